"""Base class of all batches: moving to a device, pinning, weighting, concatenating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self, cast

from .stats import Stats
from .tensors import torch

if TYPE_CHECKING:
    from torch import Tensor


class Movable:
    """Base of dataclasses of tensors, nested dataclasses and dicts; methods apply to all tensors and
    keep other values.
    """

    __slots__ = ()

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        changed = {f.name: _mapped(getattr(self, f.name), function) for f in fields(cast(Any, self))}
        return type(self)(**changed)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Move all tensors to `device`."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copy CPU tensors to page-locked memory, for asynchronous copies to a CUDA device."""
        return self._map(lambda t: t if t.is_cuda else t.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory of CUDA tensors that another stream filled until the work queued on `stream` ends."""

        def record(t: Tensor) -> Tensor:
            if t.is_cuda:
                t.record_stream(stream)
            return t

        self._map(record)

    def weighted(self, weight: Tensor) -> Self:
        """Multiply each row's loss weight by `weight`, float32 (B,); by default nothing changes."""
        return self

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """Concatenate batches along the batch axis: tensors and lists of each field, and recursively dataclasses and
        dicts.

        Raises:
            ValueError: Another value, such as a grid or None, differs between the parts.
        """
        return cls(
            **{f.name: _concatenate_field(f.name, [getattr(p, f.name) for p in parts]) for f in fields(cast(Any, cls))}
        )


def _concatenate_field(name: str, values: Sequence[Any]) -> Any:
    """Concatenate the values of one field."""
    if all(isinstance(value, torch.Tensor) for value in values):
        return torch.cat(list(values))
    if all(isinstance(value, list) for value in values):
        return [one for value in values for one in value]
    if all(isinstance(value, Movable) for value in values):
        return type(values[0]).concatenated(values)
    if all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        return {own: _concatenate_field(f"{name}[{own!r}]", [value[own] for value in values]) for own in values[0]}
    if any(value != values[0] for value in values[1:]):
        raise ValueError(f"all parts of a batch must have the same {name}, got {', '.join(map(str, values))}")
    return values[0]


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Movable):
        return value._map(function)
    if isinstance(value, dict):
        return {name: _mapped(inner, function) for name, inner in value.items()}
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch(Movable):
    """Fields that batches of all modalities have, for B rows; the views of a sample are consecutive rows.

    Attributes:
        key: Keys of the samples, B strings.
        label: int64 (B,): labels; -1 without one.
        fields: Values of the loader's `fields`, by name.
        weight: float32 (B,): 0 for rows that only pad the last validation batch; None if every row counts.
        source: int64 (B,): number of the mixture's part for each row; None for a single split.
    """

    key: list[str]
    label: Tensor
    fields: dict[str, Tensor | list[str]] = field(default_factory=dict)
    weight: Tensor | None = None
    source: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    @property
    def error_rows(self) -> Tensor | None:
        """Row of each of the model's loss errors, int64, if they are not one per row; else None."""
        return None

    def count_in(self, stats: Stats) -> None:
        """Add statistics of this batch; by default nothing."""

    def weighted(self, weight: Tensor) -> Self:
        """Multiply the target weights of each sample's masks by `weight`, float32 (B / views,)."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: Any = {name: part.weighted(weight) for name, part in parts.items() if isinstance(part, Movable)}
        return replace(self, weight=weight, **changed)
