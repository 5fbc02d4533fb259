"""What all batches can do: move to a device, be joined, be pinned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Self, cast

import torch
from torch import Tensor


class Movable:
    """Does one thing to every tensor of a dataclass, nested ones too. Fields that hold no tensor stay as they are."""

    __slots__ = ()

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for f in fields(cast(Any, self)):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                value = function(value)
            elif isinstance(value, Movable):
                value = value._map(function)
            changed[f.name] = value
        return type(self)(**changed)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same batch with its tensors on `device`."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same batch with its CPU tensors in page-locked memory, for asynchronous copies to a CUDA device."""
        return self._map(lambda t: t if t.is_cuda else t.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keeps the memory of CUDA tensors that another stream filled until the work queued on `stream` is done."""

        def record(t: Tensor) -> Tensor:
            t.record_stream(stream)
            return t

        self._map(record)

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """One batch of all parts: each field's tensors are joined along the batch.

        ValueError where another value, such as a grid or None, differs from part to part.
        """
        return cls(**{f.name: _joined(f.name, [getattr(p, f.name) for p in parts]) for f in fields(cast(Any, cls))})


def _joined(name: str, values: Sequence[Any]) -> Any:
    """A field of a batch from the values that it has in the batch's parts."""
    if all(isinstance(value, Tensor) for value in values):
        return torch.cat(list(values))
    if any(value != values[0] for value in values[1:]):
        raise ValueError(f"all parts of a batch have the same {name}, got {', '.join(map(str, values))}")
    return values[0]
