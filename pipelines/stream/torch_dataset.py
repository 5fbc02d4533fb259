"""A loader as `torch.utils.data.IterableDataset`, for code that builds its DataLoader around a dataset."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch.utils.data import IterableDataset, get_worker_info


class EpochLoader(Protocol):
    """The methods of a loader that `BatchDataset` calls."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def repeat(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class BatchDataset(IterableDataset[Any]):
    """The batches of a loader, one epoch per iteration (or without end). Iterating moves the loader's position.

    Pass it to `DataLoader(dataset, batch_size=None)`, which hands whole batches on. The loader has its own worker
    processes and pins memory itself; `num_workers` above 0 raises ValueError, because a copy of the loader in another
    process would not move the position of this one. The loader already gives each rank its share, so add no
    distributed sampler.
    """

    def __init__(self, loader: EpochLoader, convert: Callable[[Any], Any] | None, repeat: bool) -> None:
        self.loader = loader
        self._convert, self._repeat = convert, repeat

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:
            raise ValueError(
                "this dataset wraps a loader that has its own workers; use DataLoader(dataset, batch_size=None, "
                "num_workers=0) and give workers= to the loader"
            )
        batches = self.loader.repeat() if self._repeat else iter(self.loader)
        return batches if self._convert is None else map(self._convert, batches)

    def state_dict(self) -> dict[str, Any]:
        """The state of the loader."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads the state of the loader."""
        self.loader.load_state_dict(state)
