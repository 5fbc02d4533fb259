"""A loader as `torch.utils.data.IterableDataset`, for code that builds its DataLoader around a dataset."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch.utils.data import IterableDataset, get_worker_info


class EpochLoader(Protocol):
    """Loader methods that `BatchDataset` calls."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def repeat(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class BatchDataset(IterableDataset[Any]):
    """Batches of a loader, one epoch per iteration (or without end). Iterating advances the loader's position.

    Pass it to `DataLoader(dataset, batch_size=None)`, which forwards whole batches. The loader has its own worker
    processes and pins memory itself; `num_workers` above 0 raises ValueError, because a copy of the loader in another
    process would not advance this one's position. The loader already divides batches among ranks, so do not add a
    distributed sampler.
    """

    def __init__(self, loader: EpochLoader, convert: Callable[[Any], Any] | None, repeat: bool) -> None:
        self.loader = loader
        self._convert, self._repeat = convert, repeat

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:
            raise ValueError(
                "this dataset wraps a loader that has its own workers; use DataLoader(dataset, "
                "batch_size=None, num_workers=0) and pass workers= to the loader"
            )
        batches = self.loader.repeat() if self._repeat else iter(self.loader)
        return batches if self._convert is None else map(self._convert, batches)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loader."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of the loader."""
        self.loader.load_state_dict(state)
