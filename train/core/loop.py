"""The training loop: trains on batches of any modality and writes weights, metrics and checkpoints."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...pipelines.stream.stalls import summary
from ...shards.config import Json
from ...shards.errors import ResumeError
from ...shards.stores.publish import publish, remove_leftovers
from .checkpoint import Position, discard_checkpoints, latest_checkpoint, load_checkpoint, save_checkpoint
from .distributed import barrier, rank, sum_over_ranks, world_size
from .export import load_matching_weights, save_model
from .interrupt import StopRequest
from .losses import Losses
from .metrics import MetricsLog, StepMetrics
from .optimiser import build_optimiser, limit_gradients, set_lr
from .precision import bf16_helps
from .progress import TrainProgress
from .recipe import Recipe

log = logging.getLogger(__name__)


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

    resume: continue from the latest checkpoint; on a CPU the weights equal, bit for bit, those of a run that never
    stopped. Without it the folder's earlier run is overwritten. steps: the length of the whole run, over which the
    learning rate is planned. initial: a file of initial weights (see `load_matching_weights`). SIGTERM and Ctrl-C end
    `run` after the current step, with a checkpoint. Under torch.distributed each rank trains on its own loader's
    batches with DistributedDataParallel.

    Raises ValueError for wrong settings, ResumeError for a checkpoint that does not fit, FloatingPointError for a loss
    that is not finite.
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
        resume: bool = True,
        progress: bool = True,
    ) -> None:
        if len(loader) == 0:
            raise ValueError(
                "the loader has no batch: there are fewer samples than batch_size x ranks; choose a smaller batch_size"
            )
        if save_every < 1 or (steps is not None and steps < 1):
            raise ValueError(f"steps and save_every are at least 1, got steps={steps}, save_every={save_every}")
        self.recipe, self.loader, self.out = recipe, loader, Path(out)
        self.device = torch.device(device)
        self.steps = recipe.schedule.run_length(len(loader)) if steps is None else steps
        self.step = 0
        self.model = recipe.build(seed=seed)
        if initial is not None and (own := load_matching_weights(self.model, initial)):
            log.info("%s has no weights for %s; they keep their initial values", initial, ", ".join(own))
        self.model.to(self.device)
        self.optimiser = build_optimiser(self.model, recipe.optimiser)
        self._bf16 = bf16_helps(self.device)
        self._samples = recipe.batch_size * world_size()
        self._settings: Json = {"seed": seed, "samples_per_step": self._samples}
        self._settings |= {} if initial is None else {"initial": str(initial)}
        self._save_every = save_every
        self._begin(resume)
        self._train_model = self._wrapped(compile_model)
        self._bar = TrainProgress(recipe.name, step=self.step, steps=self.steps, shown=progress and rank() == 0)
        self._losses: deque[float] = deque(maxlen=20)
        self._parts: tuple[str, ...] = ()

    def run(self, until: int | None = None) -> TrainResult:
        """Trains up to step `until` (by default the last) or until a signal, then saves a checkpoint."""
        goal = self.steps if until is None else min(until, self.steps)
        with StopRequest() as stop, self._bar, closing(self._log()) as metrics:
            self._advance(goal, stop, metrics)
            if self.step < goal:
                self._bar.note(f"stopped after step {self.step} of {self.steps}; run the same command to continue")
        if rank() == 0:
            publish(self.out / "loader_stats.json", json.dumps(summary(self.loader.stats()), indent=2).encode())
        if rank() == 0 and self.step >= self.steps:
            save_model(self.model, self.out / "model.safetensors", self._about())
        barrier()
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        return TrainResult(out=self.out, step=self.step, steps=self.steps, loss=loss)

    def _advance(self, goal: int, stop: StopRequest, metrics: MetricsLog) -> None:
        """Trains up to step `goal`. Results are read one step late, so that a CUDA device always has a step queued."""
        lag = 1 if self.device.type == "cuda" else 0
        pending: deque[_Launched] = deque()
        batches = self._batches()
        stopped = False
        clock = time.perf_counter()
        while self.step < goal and not stopped:
            epoch, batch, waited_s = next(batches)
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
                stopped |= self._record(pending.popleft(), metrics)
            if save or stopped:
                self._save()
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
        self._parts = tuple(losses.parts)
        means = [mean.detach() for mean in losses.means(weights).values()]
        asked = loss.new_full((), float(asked_to_stop))
        return sum_over_ranks(torch.stack((loss.detach(), norm / world_size(), asked, *means)))

    def _record(self, done: _Launched, metrics: MetricsLog) -> bool:
        """Logs and shows a step. Returns whether a rank had been asked to stop."""
        loss, norm, stop_requests, *means = done.report.tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss of step {done.step} is {loss} at lr {done.lr:g}; start over with a lower base_lr, a longer "
                "warmup or a max_grad_norm"
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
        metrics.write(record)
        self._bar.update(record)
        self._losses.append(loss)
        return bool(stop_requests > 0)

    def _begin(self, resume: bool) -> None:
        """Loads the latest checkpoint or clears the folder. All ranks must find the same checkpoint."""
        folder = self.out / "checkpoints"
        latest = latest_checkpoint(folder) if resume else None
        if latest is not None:
            position = load_checkpoint(latest, self.model, self.optimiser, self._identity())
            self.loader.load_state_dict(position.loader)
            self.step = position.step
            if position.steps != self.steps:
                log.warning(
                    "planned for %d steps, now for %d: from step %d on the learning rate follows the new plan",
                    position.steps,
                    self.steps,
                    self.step,
                )
        total = sum_over_ranks(
            torch.tensor([float(self.step), float(self.step) ** 2], dtype=torch.float64, device=self.device)
        )
        if total.tolist() != [self.step * world_size(), self.step**2 * world_size()]:
            raise ResumeError(f"the ranks found different checkpoints in {folder}; use a folder that all ranks share")
        if rank() == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.out)
            if not resume:
                discard_checkpoints(folder)
            whole = {"recipe": self.recipe.to_dict(), **self._settings}
            about = {**whole, "steps": self.steps, "device": str(self.device), "bf16": self._bf16}
            publish(self.out / "run.json", json.dumps(about, indent=2).encode())
        barrier()

    def _wrapped(self, compile_model: bool) -> nn.Module:
        if compile_model:
            self.model.compile(fullgraph=True)
        if world_size() == 1:
            return self.model
        return DistributedDataParallel(self.model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def _save(self) -> None:
        if rank() == 0:
            position = Position(
                step=self.step, steps=self.steps, loader=self.loader.state_dict(), settings=self._identity()
            )
            save_checkpoint(self.out / "checkpoints", self.model, self.optimiser, position, about=self._about())
        barrier()

    def _identity(self) -> Json:
        """The settings that must be the same in a resumed run. The loader's state holds those of the data."""
        return {"recipe": self.recipe.to_dict(identity=True), **self._settings}

    def _about(self) -> dict[str, str]:
        return {"recipe": self.recipe.name, "step": str(self.step)}

    def _log(self) -> MetricsLog:
        return MetricsLog(self.out / "metrics.jsonl" if rank() == 0 else None, step=self.step)


def weights_of_all_ranks(losses: Losses) -> dict[str, Tensor] | None:
    """The weight of each part of a step's loss, summed over all ranks; None if there is only one rank."""
    if world_size() == 1:
        return None
    return dict(zip(losses.parts, sum_over_ranks(losses.weights()), strict=True))
