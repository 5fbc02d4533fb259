"""A loader as `torch.utils.data.IterableDataset`, for code that builds its DataLoader around a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch.utils.data import IterableDataset, get_worker_info


class Batches(Protocol):
    """What a dataset needs of a loader."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def repeat(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class BatchDataset(IterableDataset[Any]):
    """The batches of a loader, one epoch an iteration (or without end), from the loader's position, which it moves.

    Give it to `DataLoader(dataset, batch_size=None)`, which passes whole batches on. The loader has worker processes
    and pinned copies of its own, so the DataLoader gets none: ValueError with `num_workers`, because a copy of the
    loader in another process would move a position that nobody here sees. The loader already gives each rank its share;
    nothing may be distributed again around it.
    """

    def __init__(self, loader: Batches, convert: Callable[[Any], Any] | None, repeat: bool) -> None:
        self.loader = loader
        self._convert, self._repeat = convert, repeat

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:
            raise ValueError(
                "this dataset is a loader with workers of its own; use DataLoader(dataset, batch_size=None, "
                "num_workers=0) and give workers= to the loader"
            )
        batches = self.loader.repeat() if self._repeat else iter(self.loader)
        return batches if self._convert is None else map(self._convert, batches)

    def state_dict(self) -> dict[str, Any]:
        """The loader's."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The loader's."""
        self.loader.load_state_dict(state)
