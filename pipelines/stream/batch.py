"""What all batches are and can do: move to a device, be pinned, be weighted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, cast

import torch
from torch import Tensor


class Movable:
    """Does one thing to every tensor of a dataclass, also of nested ones and dicts. Other values stay as they are."""

    __slots__ = ()

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        changed = {f.name: _mapped(getattr(self, f.name), function) for f in fields(cast(Any, self))}
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
            if t.is_cuda:
                t.record_stream(stream)
            return t

        self._map(record)

    def weighted(self, weight: Tensor) -> Self:
        """What this part of a batch is where its rows count `weight`, float32 (B,), in a loss: by default the same."""
        return self

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


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Movable):
        return value._map(function)
    if isinstance(value, dict):
        return {name: _mapped(inner, function) for name, inner in value.items()}
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch(Movable):
    """What a batch of any modality has for its B rows (with views, the views of a sample are rows after each other).

    key: B strings. label: int64 (B,), -1 where there is none. fields: what was asked for of the samples' other members,
    by name. weight: float32 (B,), 0 for a row that only pads the last batch of a validation, or None where every row
    counts.
    """

    key: list[str]
    label: Tensor
    fields: dict[str, Tensor | list[str]] = field(default_factory=dict)
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    def weighted(self, weight: Tensor) -> Self:
        """The batch with a weight per sample, float32 (B / views,): its masks' targets count so much in the loss."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: Any = {name: part.weighted(weight) for name, part in parts.items() if isinstance(part, Movable)}
        return replace(self, weight=weight, **changed)
