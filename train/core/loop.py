"""The training loop: trains on batches of any modality and writes weights, metrics and checkpoints."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...pipelines.stream.stalls import summary
from ...shards.config import Json
from ...shards.errors import MaskstreamError, ResumeError
from ...shards.stores.location import local_path
from ...shards.stores.publish import publish, remove_leftovers
from ...shards.stores.sole_writer import sole_writer
from .batches import Batch, Batches, EndlessBatches
from .checkpoint import (
    CHECKPOINTS,
    Position,
    batches_before,
    checkpoint_name,
    discard_checkpoints,
    load_checkpoint,
    newest_whole,
    read_checkpoint,
    remove_unfinished,
    save_checkpoint,
)
from .class_feedback import channels_of, publish_scores
from .distributed import in_step, rank, sum_over_ranks, world_size
from .export import load_matching_weights, save_model
from .file_sum import NO_BYTES, DamageError, FileSum
from .interrupt import StopRequest
from .losses import Losses
from .metrics import MetricsLog, StepMetrics
from .optimiser import build_optimiser, limit_gradients, set_lr
from .precision import bf16_helps
from .progress import TrainProgress
from .recipe import Recipe

log = logging.getLogger(__name__)

RUN = "run.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The end of a run: steps done, steps planned, and the mean loss of the last 20 (None if this call did none)."""

    out: Path
    step: int
    steps: int
    loss: float | None

    @property
    def finished(self) -> bool:
        """Whether all planned steps are done; False after a signal."""
        return self.step >= self.steps


@dataclass(frozen=True, kw_only=True, slots=True)
class _Launched:
    """A step whose results may not have arrived from the device yet. report: see `_train_step`."""

    step: int
    epoch: int
    lr: float
    clips: int
    seconds: float
    waited_s: float
    report: Tensor


class Trainer:
    """Trains a recipe's model on a loader's batches in the folder `out`.

    It writes run.json, metrics.jsonl, checkpoints/, loader_stats.json when `run` ends (where rank 0's loader spent its
    time, and what limited it), and model.safetensors after the last step.

    resume: continue from the newest checkpoint that is whole; on a CPU the weights equal, bit for bit, those of a run
    that never stopped. Without it the folder's earlier run is overwritten. save_every: steps between checkpoints. keep:
    how many of the newest stay. steps: the length of the whole run, over which the learning rate is planned. initial: a
    file of initial weights (see `load_matching_weights`). SIGTERM and Ctrl-C end `run` after the current step, with a
    checkpoint, and so does an error of the loader about data where there is one rank. Under torch.distributed each rank
    trains on its own loader's batches with DistributedDataParallel.

    The folder is locked (by rank 0) from here to the end of `run`, or until the Trainer is deleted.

    Raises ValueError for wrong settings, BusyError if another run writes into the folder, ResumeError if no checkpoint
    is whole or it does not fit, StoreError if the disk is full, FloatingPointError for a loss or a gradient that is not
    finite.
    """

    def __init__(
        self,
        recipe: Recipe[Any],
        loader: Batches,
        out: str | Path,
        *,
        steps: int | None = None,
        initial: str | Path | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        compile_model: bool = False,
        save_every: int = 500,
        keep: int = 2,
        resume: bool = True,
        progress: bool = True,
    ) -> None:
        if len(loader) == 0:
            raise ValueError(
                "the loader has no batch: there are fewer samples than batch_size x ranks; choose a smaller batch_size"
            )
        if min(save_every, keep, 1 if steps is None else steps) < 1:
            raise ValueError(f"steps, save_every and keep are at least 1, got {steps=}, {save_every=}, {keep=}")
        self.recipe, self.loader, self.out = recipe, loader, local_path(out, "out")
        self.device = torch.device(device)
        self.steps = recipe.schedule.run_length(len(loader)) if steps is None else steps
        self.step = 0
        self._save_every, self._keep = save_every, keep
        self._samples = recipe.batch_size * world_size()
        self._settings: Json = {"seed": seed, "samples_per_step": self._samples}
        self._settings |= {} if initial is None else {"initial": str(initial)}
        self._bf16 = bf16_helps(self.device)
        self._metrics = MetricsLog(self.out / "metrics.jsonl" if rank() == 0 else None)
        self._losses: deque[float] = deque(maxlen=20)
        self._parts: tuple[str, ...] = ()
        self._lock, self._held = ExitStack(), False
        with ExitStack() as undo:
            undo.callback(self._let_go)
            self._hold()
            self.model = recipe.build(seed=seed)
            if initial is not None and (own := load_matching_weights(self.model, initial)):
                log.info("%s has no weights for %s; they keep their initial values", initial, ", ".join(own))
            self.model.to(self.device)
            self.optimiser = build_optimiser(self.model, recipe.optimiser)
            self._begin(resume)
            self._channels = channels_of(recipe.data)
            publish_scores(self._channels, self.model, trained=False)
            self._train_model = self._wrapped(compile_model)
            undo.pop_all()
        self._bar = TrainProgress(recipe.name, step=self.step, steps=self.steps, shown=progress and rank() == 0)

    def run(self, until: int | None = None) -> TrainResult:
        """Trains up to step `until` (by default the last) or until a signal, then saves a checkpoint."""
        goal = self.steps if until is None else min(until, self.steps)
        with ExitStack() as stack:
            stack.callback(self._let_go)
            self._hold()
            with StopRequest() as stop, self._bar, self._metrics:
                self._advance(goal, stop)
                if self.step < goal:
                    self._bar.note(f"stopped after step {self.step} of {self.steps}; run the same command to continue")
            with in_step(self.device):
                if rank() == 0:
                    self._write_results()
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        return TrainResult(out=self.out, step=self.step, steps=self.steps, loss=loss)

    def _hold(self) -> None:
        """Locks the folder, unless this Trainer has locked it already. Raises BusyError if another one has."""
        if not self._held:
            with in_step(self.device):
                if rank() == 0:
                    self._lock.enter_context(sole_writer(self.out))
            self._held = True

    def _let_go(self) -> None:
        self._lock.close()
        self._held = False

    def _write_results(self) -> None:
        publish(self.out / "loader_stats.json", json.dumps(summary(self.loader.stats()), indent=2).encode())
        if self.step >= self.steps:
            save_model(self.model, self.out / "model.safetensors", self._about())

    def _advance(self, goal: int, stop: StopRequest) -> None:
        """Trains up to step `goal`. Results are read one step late, so that a CUDA device always has a step queued."""
        lag = 1 if self.device.type == "cuda" else 0
        pending: deque[_Launched] = deque()
        batches = self._batches()
        stopped = False
        clock = time.perf_counter()
        while self.step < goal and not stopped:
            try:
                epoch, batch, waited_s = next(batches)
            except MaskstreamError:
                self._save_before_end(pending, stop)
                raise
            lr = self.recipe.schedule.lr(self.step, self.steps, self._samples)
            report = self._train_step(batch, lr, stop.asked)
            self.step += 1
            now = time.perf_counter()
            launched = _Launched(
                step=self.step,
                epoch=epoch,
                lr=lr,
                clips=len(batch) * world_size(),
                seconds=now - clock,
                waited_s=waited_s,
                report=report,
            )
            pending.append(launched)
            clock = now
            save = self.step == goal or self.step % self._save_every == 0
            while len(pending) > (0 if save or stopped else lag):
                stopped |= self._record(pending.popleft())
            if save or stopped:
                self._save(stop)
                clock = time.perf_counter()

    def _batches(self) -> Iterator[tuple[int, Batch, float]]:
        """Yields (epoch, batch, seconds spent waiting for it), without end."""
        while True:
            source = self.loader.repeat() if isinstance(self.loader, EndlessBatches) else iter(self.loader)
            epoch, start = self.loader.epoch, time.perf_counter()
            for batch in source:
                yield epoch, batch, time.perf_counter() - start
                epoch, start = self.loader.epoch, time.perf_counter()

    def _train_step(self, batch: Batch, lr: float, asked_to_stop: bool) -> Tensor:
        """Does one optimiser step. Returns float32 (3 + parts,) over all ranks: the loss, the gradient norm, the number
        of ranks asked to stop, and the mean of each part of the loss.
        """
        batch = batch.to(self.device, non_blocking=True)
        set_lr(self.optimiser, lr)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            losses: Losses = self._train_model(batch)
        weights = weights_of_all_ranks(losses)
        loss = losses.loss(weights)
        # DDP averages the gradients of all ranks, but the loss of the step is the sum of the ranks' losses
        (loss if world_size() == 1 else world_size() * loss).backward()  # type: ignore[no-untyped-call]
        norm = limit_gradients(self.model, self.recipe.optimiser)
        self.optimiser.step()
        self.optimiser.zero_grad()
        publish_scores(self._channels, self.model)
        self._parts = tuple(losses.parts)
        means = [mean.detach() for mean in losses.means(weights).values()]
        asked = loss.new_full((), float(asked_to_stop))
        return sum_over_ranks(torch.stack((loss.detach(), norm / world_size(), asked, *means)))

    def _record(self, done: _Launched) -> bool:
        """Logs and shows a step. Returns whether a rank had been asked to stop."""
        loss, norm, stop_requests, *means = done.report.tolist()
        for what, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the {what} of step {done.step} is {value} at lr {done.lr:g}, and no checkpoint has its weights; "
                    "start over with a lower base_lr, a longer warmup or a max_grad_norm"
                )
        record = StepMetrics(
            step=done.step,
            epoch=done.epoch,
            loss=loss,
            parts=dict(zip(self._parts, means, strict=True)),
            lr=done.lr,
            grad_norm=norm,
            clips_per_s=done.clips / done.seconds,
            data_wait_share=min(done.waited_s / done.seconds, 1.0),
        )
        self._metrics.write(record)
        self._bar.update(record)
        self._losses.append(loss)
        return bool(stop_requests > 0)

    def _begin(self, resume: bool) -> None:
        """Loads the newest whole checkpoint, which rank 0 chooses, or clears the folder."""
        found: tuple[Path, Position] | None = None
        with in_step(self.device):
            if rank() == 0 and resume:
                found = self._newest()
        chosen = 0 if found is None else found[1].step
        self.step = self._saved = int(sum_over_ranks(torch.tensor(chosen, device=self.device)))
        self._first_batch = batches_before(self.loader.state_dict(), len(self.loader)) or 0
        with in_step(self.device):
            if self.step:
                self._load(*(found or self._chosen()))
        with in_step(self.device):
            if rank() == 0:
                self._prepare_folder(NO_BYTES if found is None else found[1].logged, keep=resume)

    def _newest(self) -> tuple[Path, Position] | None:
        """The newest whole checkpoint. Where only checkpoints were put into the folder, the metrics begin after it."""
        path = self.out / "metrics.jsonl"
        without = not (self.out / RUN).exists() and (not path.exists() or (path.is_file() and not path.stat().st_size))
        found = newest_whole(self._checkpoints, metrics=None if without else path, batches_per_epoch=len(self.loader))
        if found is None or not without:
            return found
        log.warning("%s has no metrics of the steps up to %d; they begin after it", self.out, found[1].step)
        return found[0], replace(found[1], logged=NO_BYTES)

    def _chosen(self) -> tuple[Path, Position]:
        """The checkpoint that rank 0 chose, on another rank."""
        checkpoint = self._checkpoints / checkpoint_name(self.step)
        try:
            return checkpoint, read_checkpoint(checkpoint)
        except DamageError as error:
            raise ResumeError(
                f"rank 0 found {checkpoint} whole, but on rank {rank()} {error}; use a folder that all ranks share"
            ) from error

    def _load(self, checkpoint: Path, position: Position) -> None:
        load_checkpoint(checkpoint, position, self.model, self.optimiser, self._identity())
        self.loader.load_state_dict(position.loader)
        self._first_batch = position.first_batch
        if position.steps != self.steps and rank() == 0:
            log.warning(
                "planned for %d steps, now for %d: from step %d on the learning rate follows the new plan",
                position.steps,
                self.steps,
                self.step,
            )

    def _prepare_folder(self, logged: FileSum, *, keep: bool) -> None:
        """Cuts the metrics to those before the first step of this run, and removes what belongs to no checkpoint."""
        remove_leftovers(self.out)
        if keep:
            remove_unfinished(self._checkpoints)
        else:
            discard_checkpoints(self._checkpoints)
        self._metrics.begin_after(logged)
        whole = {"recipe": self.recipe.to_dict(), **self._settings}
        about = {**whole, "steps": self.steps, "device": str(self.device), "bf16": self._bf16}
        publish(self.out / RUN, json.dumps(about, indent=2).encode())

    def _wrapped(self, compile_model: bool) -> nn.Module:
        if compile_model:
            self.model.compile(fullgraph=True)
        if world_size() == 1:
            return self.model
        wrap: Callable[..., nn.Module] = DistributedDataParallel
        return wrap(
            self.model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **_without_buffers(),
        )

    def _save(self, stop: StopRequest) -> None:
        with stop.saving(), in_step(self.device):
            if rank() == 0:
                position = Position(
                    step=self.step,
                    steps=self.steps,
                    loader=self.loader.state_dict(),
                    settings=self._identity(),
                    logged=self._metrics.logged(),
                    first_batch=self._first_batch,
                )
                save_checkpoint(
                    self._checkpoints, self.model, self.optimiser, position, about=self._about(), keep=self._keep
                )
        self._saved = self.step

    def _save_before_end(self, pending: deque[_Launched], stop: StopRequest) -> None:
        """Saves the steps that are done when the loader fails; of several ranks only one would be here."""
        if world_size() == 1 and self.step > self._saved:
            while pending:
                self._record(pending.popleft())
            self._save(stop)

    def _identity(self) -> Json:
        """The settings that must be the same in a resumed run. The loader's state holds those of the data."""
        return {"recipe": self.recipe.to_dict(identity=True), **self._settings}

    def _about(self) -> dict[str, str]:
        return {"recipe": self.recipe.name, "step": str(self.step)}

    @property
    def _checkpoints(self) -> Path:
        return self.out / CHECKPOINTS


def _without_buffers() -> dict[str, bool]:
    """What keeps DDP from sending buffers in every forward: they are constants, or made of what all ranks share.

    Older versions of torch have no `forward_sync_buffers`, and newer ones warn of `broadcast_buffers`.
    """
    names = ("forward_sync_buffers", "broadcast_buffers")
    return {next(name for name in names if name in signature(DistributedDataParallel).parameters): False}


def weights_of_all_ranks(losses: Losses) -> dict[str, Tensor] | None:
    """The weight of each part of a step's loss, summed over all ranks; None if there is only one rank."""
    if world_size() == 1:
        return None
    return dict(zip(losses.parts, sum_over_ranks(losses.weights()), strict=True))
