"""Writes into the folder of a run: its lock, its checkpoints and its metrics. Rank 0 does it for all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from ...shards.config import Json
from ...shards.errors import ResumeError
from ...shards.stores.publish import publish, remove_leftovers
from ...shards.stores.sole_writer import sole_writer
from .checkpoint import (
    CHECKPOINTS,
    Position,
    checkpoint_name,
    discard_checkpoints,
    newest_whole,
    read_checkpoint,
    remove_unfinished,
)
from .distributed import in_step, rank, sum_over_ranks
from .file_sum import NO_BYTES, DamageError, FileSum
from .metrics import MetricsLog

log = logging.getLogger(__name__)

RUN = "run.json"


class RunWriter:
    """The folder `out` of a run. device: on which the ranks tell each other how it went."""

    def __init__(self, out: Path, device: torch.device) -> None:
        self.out, self.device = out, device
        self.checkpoints = out / CHECKPOINTS
        self.metrics = MetricsLog(out / "metrics.jsonl" if rank() == 0 else None)
        self._lock, self._held = ExitStack(), False

    def hold(self) -> None:
        """Locks the folder, unless it is locked already. Raises BusyError if another run has locked it."""
        if not self._held:
            with in_step(self.device):
                if rank() == 0:
                    self._lock.enter_context(sole_writer(self.out))
            self._held = True

    def let_go(self) -> None:
        """Unlocks the folder."""
        self._lock.close()
        self._held = False

    def begin(
        self, about: Json, load: Callable[[Path, Position], None], *, resume: bool, batches_per_epoch: int
    ) -> int:
        """Loads the newest whole checkpoint, which rank 0 chooses, or clears the folder; then writes run.json.

        load: loads a checkpoint, on each rank. Returns the step of the checkpoint, 0 if there is none.
        """
        found: tuple[Path, Position] | None = None
        with in_step(self.device):
            if rank() == 0 and resume:
                found = self._newest(batches_per_epoch)
        chosen = 0 if found is None else found[1].step
        step = int(sum_over_ranks(torch.tensor(chosen, device=self.device)))
        with in_step(self.device):
            if step:
                load(*(found or self._chosen(step)))
        with in_step(self.device):
            if rank() == 0:
                self._prepare(NO_BYTES if found is None else found[1].logged, about, keep=resume)
        return step

    def _newest(self, batches_per_epoch: int) -> tuple[Path, Position] | None:
        """The newest whole checkpoint. Where only checkpoints were put into the folder, the metrics begin after it."""
        path = self.out / "metrics.jsonl"
        without = not (self.out / RUN).exists() and (not path.exists() or (path.is_file() and not path.stat().st_size))
        found = newest_whole(self.checkpoints, metrics=None if without else path, batches_per_epoch=batches_per_epoch)
        if found is None or not without:
            return found
        log.warning("%s has no metrics of the steps up to %d; they begin after it", self.out, found[1].step)
        return found[0], replace(found[1], logged=NO_BYTES)

    def _chosen(self, step: int) -> tuple[Path, Position]:
        """The checkpoint that rank 0 chose, on another rank."""
        checkpoint = self.checkpoints / checkpoint_name(step)
        try:
            return checkpoint, read_checkpoint(checkpoint)
        except DamageError as error:
            raise ResumeError(
                f"rank 0 found {checkpoint} whole, but on rank {rank()} {error}; use a folder that all ranks share"
            ) from error

    def _prepare(self, logged: FileSum, about: Json, *, keep: bool) -> None:
        """Cuts the metrics to those before the first step of this run, and removes what belongs to no checkpoint."""
        remove_leftovers(self.out)
        if keep:
            remove_unfinished(self.checkpoints)
        else:
            discard_checkpoints(self.checkpoints)
        self.metrics.begin_after(logged)
        publish(self.out / RUN, json.dumps(about, indent=2).encode())
