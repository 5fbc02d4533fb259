"""Writes checkpoints: each rank's state is copied in memory, and a thread writes the copy while training continues."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save
from torch import Tensor, nn

from maskstream.shards.checksummed import add_checksum
from maskstream.shards.errors import StoreError
from maskstream.shards.stores.local_files import check_space_for, publish, sync_folder

from .checkpoint import AVERAGE, MODEL, OPTIMISER, STATE, Position, list_checkpoints, name_checkpoint, read_step, remove
from .distributed import find_part, get_local_rows, in_step, is_divided, rank, world_size
from .optimiser import Average
from .weights import FileSum, make_metadata, pack_weights, part_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One rank's part of a checkpoint, copied to host memory: part `part` of `position.parts`."""

    position: Position
    part: int
    metadata: Mapping[str, str]
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        position: Position,
        *,
        about: Mapping[str, str] | None = None,
        average: Average | None = None,
    ) -> Snapshot | None:
        """Copy the state of this rank to host memory.

        Args:
            model: The model.
            optimiser: The optimiser.
            position: Progress of the run.
            about: Metadata of the file of weights.
            average: Averaged weights to save.

        Returns:
            The snapshot; None if another rank writes the same state: only rank 0 writes a model that is not divided,
                and only one replica of divided rows is written.
        """
        part, parts, copy = describe_own_part(model)
        if copy:
            return None
        return cls(
            position=replace(position, parts=parts),
            part=part,
            metadata=make_metadata(model, about),
            weights=_copy_to_host(model.state_dict()),
            moments=_copy_to_host(_moments(model, optimiser, average)),
        )

    def write(self, folder: Path) -> dict[str, FileSum]:
        """Write the files of this part into `folder` and return their checksums by name."""
        parts = self.position.parts
        sums = {}
        for name, data in (
            (part_name(MODEL, self.part, parts), pack_weights(self.weights, self.metadata)),
            (part_name(OPTIMISER, self.part, parts), save(dict(self.moments))),
        ):
            publish(folder / name, data)
            sums[name] = FileSum.of(data)
        return sums


def describe_own_part(model: nn.Module) -> tuple[int, int, int]:
    """Return this rank's part of the model, the number of parts, and the replica. If the model is not sharded, each
    rank holds a replica.
    """
    divided = next((p for p in model.parameters() if is_divided(p)), None)
    return (0, 1, rank()) if divided is None else find_part(divided)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    position: Position,
    *,
    about: Mapping[str, str] | None = None,
    keep: int = 2,
    average: Average | None = None,
) -> Path:
    """Write a checkpoint of one process and remove all but the newest ones.

    Checkpoints of later steps are removed too: they are damaged or were left behind by the run.

    Args:
        folder: Folder of the checkpoints.
        model: The model.
        optimiser: The optimiser.
        position: Progress of the run.
        about: Metadata of the file of weights.
        keep: Number of newest checkpoints to keep.
        average: Averaged weights to save.

    Returns:
        The folder of the checkpoint.

    Raises:
        StoreError: The disk is full or cannot be written; earlier checkpoints are unchanged.
        ValueError: The model is divided among ranks.
    """
    snapshot = Snapshot.of(model, optimiser, position, about=about, average=average)
    if snapshot is None or snapshot.position.parts > 1:
        raise ValueError("save_checkpoint supports only one process; with several ranks, use a CheckpointWriter")
    return _write_whole(folder, snapshot, keep)


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time, in a thread of each rank that has state to write.

    Every rank must call its methods at the same steps.

    Args:
        folder: Folder of the checkpoints.
        device: Device of the rank's collectives.
        keep: Number of newest checkpoints to keep.
    """

    def __init__(self, folder: Path, device: torch.device, keep: int) -> None:
        self._folder, self._device, self._keep = folder, device, keep
        self._step: int | None = None
        self._parts = 1
        self._written: Future[Path | dict[str, FileSum]] | None = None
        self._position: Position | None = None

    def start(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        position: Position,
        *,
        about: Mapping[str, str] | None = None,
        average: Average | None = None,
    ) -> None:
        """Wait for the previous checkpoint, copy the state and start to write it.

        Args:
            model: The model.
            optimiser: The optimiser.
            position: Progress of the run.
            about: Metadata of the file of weights.
            average: Averaged weights to save.
        """
        self.finish()
        with in_step(self._device):
            snapshot = Snapshot.of(model, optimiser, position, about=about, average=average)
            if snapshot is not None and snapshot.position.parts > 1 and snapshot.part == 0:
                with _report_failure(self._final(position.step)):
                    _make_empty(_temporary(self._final(position.step)))
        self._step, self._position = position.step, None if snapshot is None else snapshot.position
        self._parts = describe_own_part(model)[1]
        if snapshot is not None:
            thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
            self._written = thread.submit(self._write, snapshot)
            thread.shutdown(wait=False)

    def is_idle(self) -> bool:
        """Return whether this rank has written its files; a checkpoint of several parts may still be unnamed."""
        return self._written is None or self._written.done()

    @property
    def is_open(self) -> bool:
        """Whether a checkpoint was started and not yet completed by `finish`; the same on all ranks."""
        return self._step is not None

    def finish(self) -> None:
        """Wait until the started checkpoint is complete.

        Raises:
            StoreError: The checkpoint could not be written; all ranks raise an error.
        """
        if self._step is None:
            return
        step, written = self._step, self._written
        self._step = self._written = None
        own: Path | dict[str, FileSum] = {}
        with in_step(self._device):
            if written is not None:
                own = written.result()
        if self._parts > 1 and isinstance(own, dict):
            parts: list[dict[str, FileSum]] = [{}] * world_size()
            dist.all_gather_object(parts, own)
            sums = {name: one for part in parts for name, one in part.items()}
            with in_step(self._device):
                if self._position is not None and rank() == 0:
                    final = self._final(step)
                    with _report_failure(final):
                        _publish(_temporary(final), final, self._position, sums)
                    _remove_others(self._folder, final, self._keep)

    def close(self) -> None:
        """Wait for the thread and ignore its result."""
        if self._written is not None:
            wait([self._written])

    def _write(self, snapshot: Snapshot) -> Path | dict[str, FileSum]:
        if snapshot.position.parts == 1:
            return _write_whole(self._folder, snapshot, self._keep)
        final = self._final(snapshot.position.step)
        with _report_failure(final):
            return snapshot.write(_temporary(final))

    def _final(self, step: int) -> Path:
        return self._folder / name_checkpoint(step)


def _write_whole(folder: Path, snapshot: Snapshot, keep: int) -> Path:
    final = folder / name_checkpoint(snapshot.position.step)
    with _report_failure(final):
        temporary = _temporary(final)
        _make_empty(temporary)
        _publish(temporary, final, snapshot.position, snapshot.write(temporary))
    _remove_others(folder, final, keep)
    return final


def _publish(temporary: Path, final: Path, position: Position, sums: Mapping[str, FileSum]) -> None:
    """Add the state to the files of a checkpoint and rename it to its final name."""
    files = {name: asdict(one) for name, one in sums.items()}
    publish(temporary / STATE, add_checksum({**asdict(position), "files": files}))
    if final.exists():
        remove(final)
    os.rename(temporary, final)
    sync_folder(final.parent)


def _remove_others(folder: Path, final: Path, keep: int) -> None:
    """Remove checkpoints later than `final`, and all earlier ones except the newest `keep` - 1."""
    others = [path for path in list_checkpoints(folder) if path != final]
    earlier = [path for path in others if read_step(path) < read_step(final)]
    for old in others:
        if old not in earlier[: keep - 1]:
            remove(old)


def _temporary(final: Path) -> Path:
    return final.with_name(f".{final.name}.tmp")


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


@contextmanager
def _report_failure(final: Path) -> Iterator[None]:
    """Run the block that writes a checkpoint; on failure remove partial files and turn an OSError into a StoreError."""
    try:
        with check_space_for(final):
            yield
    except BaseException as error:
        shutil.rmtree(_temporary(final), ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(
                f"{final} cannot be written ({error.strerror or error}); earlier checkpoints are unchanged. Fix the "
                "disk or its permissions and run the same command again"
            ) from error
        raise


def _moments(model: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None) -> dict[str, Tensor]:
    averages = {} if average is None else {f"{name}/{AVERAGE}": value for name, value in average.values.items()}
    return averages | {
        f"{name}/{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimiser.state.get(parameter, {}).items()  # of a frozen one there is none
    }


def _copy_to_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to host memory: this rank's rows of divided tensors and, on rank 0, all others."""
    kept = {name: one for name, one in tensors.items() if is_divided(one) or not rank()}
    return {name: get_local_rows(one.detach()).to("cpu", copy=True).contiguous() for name, one in kept.items()}
