"""What the training loop uses of batches and of loaders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, Self, runtime_checkable

import torch


class Batch(Protocol):
    """The part of a batch that the trainer uses; the model uses the rest."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self: ...


class Batches(Protocol):
    """The part of a loader that the trainer uses: each iteration gives one epoch, from the position in its state."""

    @property
    def epoch(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def stats(self) -> dict[str, Any]: ...


@runtime_checkable
class EndlessBatches(Protocol):
    """A loader that goes from one epoch to the next without a pause. The trainer uses `repeat` where there is one."""

    def repeat(self) -> Iterator[Batch]: ...
