"""What all batches can do: move to a device, be joined, be pinned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Self, cast

import torch
from torch import Tensor


class Movable:
    """Does one thing to every tensor of a dataclass, nested ones too."""

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
        """One of all: each field's tensors joined along the batch; what is None in one is None in all."""
        joined: dict[str, Any] = {}
        for f in fields(cast(Any, cls)):
            values = [getattr(p, f.name) for p in parts]
            joined[f.name] = None if values[0] is None else torch.cat(values)
        return cls(**joined)
