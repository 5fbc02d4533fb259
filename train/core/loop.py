"""The training loop: trains on batches of any modality and writes weights, metrics and checkpoints."""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskstream.pipelines.modalities.data import SplitConfig
from maskstream.pipelines.stream.stats import summary
from maskstream.shards.config import Json
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.keywords import takes_fields
from maskstream.shards.progress import SILENT, Progress, ProgressBar
from maskstream.shards.stores.local_files import publish
from maskstream.shards.stores.url import local_path

from .checkpoint import Position, batches_before, list_checkpoints, load_checkpoint, read_step, remove
from .checkpoint_write import CheckpointWriter
from .distributed import Agreement, in_step, rank, world_size
from .export import load_matching_weights, model_bytes
from .guard import MOST_ROLLBACKS, SLOWER, CollapseError, Guard
from .metrics import TrainProgress
from .model import TrainingBatch
from .optimiser import Average, build_optimiser
from .options import LoopSettings
from .parallel import compile_parts, divide, gathered_root, over_ranks, recompute_blocks
from .process import StopRequest, chosen_precision, kept_memory
from .recipe import Recipe, find_channels, publish_scores
from .results import Launched, Results, Rollback, SourceCounts, Tally, TrainResult
from .run_folder import DATA, RunWriter, run_settings
from .sample_losses import SampleLosses
from .step import Batches, Stepper, StepSettings, endless
from .timing import StepProfile
from .trackers import Trackers, check_trackers
from .validation import Probe, Validation, Validator

log = logging.getLogger(__name__)

MEASURED_AFTER = 10
"""The steps of a process after which the work of a step is counted, which takes as long as a step or two."""


@dataclass(frozen=True, kw_only=True)
class TrainerOptions(LoopSettings):
    """What a `Trainer` takes by keyword, besides the settings of its loop.

    Attributes:
        steps: Length of the whole run, over which the learning rate is planned; None for the recipe's.
        initial: File of initial weights (see `load_matching_weights`).
        seed: Random seed of the initial weights and of what the model draws in a step.
        device: Device that trains.
        data: What run.json says of the split that is read.
        validation: Scores of the model while it trains, whose best weights stay in best.safetensors.
        probe: Scores of its features, which are shown with these.
        sources: For a mixture, the name that metrics use for each source, and its number of samples, in the order of
            `batch.source`.
        record: Called on rank 0, while the folder is locked, with the step after which the run continues, also after a
            rollback.
        settings: Settings of the loop, instead of those given one by one.
    """

    steps: int | None = None
    initial: str | Path | None = None
    seed: int = 0
    device: torch.device | str = "cpu"
    data: Json | None = None
    validation: Validation | None = None
    probe: Probe | None = None
    sources: Mapping[str, int] = field(default_factory=dict)
    record: Callable[[int], None] | None = None
    settings: LoopSettings | None = None


class Trainer:
    """Trains a recipe's model on a loader's batches in the folder `out`.

    It writes run.json, metrics.jsonl, checkpoints/, loader_stats.json when `run` ends (where rank 0's loader spent its
    time, and what limited it), and model.safetensors after the last step.

    The fields of `TrainerOptions` are keyword arguments. A
    resumed run continues from the newest checkpoint that is whole; on a CPU its weights equal, bit for bit, those of a
    run that never stopped, also with a teacher. With resume=False the folder's earlier run is overwritten.

    SIGTERM and Ctrl-C end `run` after the current step, with a checkpoint, and so does an error of a rank's loader
    about data. Under torch.distributed each rank trains on its own loader's batches.

    The folder is locked (by rank 0) from here to the end of `run`, or until the Trainer is deleted.

    Raises ValueError for wrong settings, BusyError if another run writes into the folder, ResumeError if no checkpoint
    is whole or it does not fit, StoreError if the disk is full, CollapseError for features that have collapsed (with
    guard="stop", or "rollback" in vain), FloatingPointError for a loss or a gradient that is not
    finite (with on_nan="skip": for too many in a row).
    """

    @takes_fields(TrainerOptions).of_init
    def __init__(self, recipe: Recipe[Any], loader: Batches, out: str | Path, options: TrainerOptions) -> None:
        steps, initial, seed, validation = options.steps, options.initial, options.seed, options.validation
        if len(loader) == 0:
            raise ValueError(
                "the loader has no batch: there are fewer samples than batch_size x ranks; choose a smaller batch_size"
            )
        if steps is not None and steps < 1:
            raise ValueError(f"steps is at least 1, got {steps=}")
        self.settings: LoopSettings = options.settings or options
        check_trackers(self.settings.track)
        self.recipe, self.loader, self.out = recipe, loader, local_path(out, "out")
        self.device = torch.device(options.device)
        self.steps = recipe.schedule.run_length(-(-len(loader) // recipe.accumulate)) if steps is None else steps
        self.step = 0
        self._samples = recipe.batch_size * recipe.accumulate * world_size()
        self._settings: Json = {"seed": seed, "samples_per_step": self._samples}
        self._settings |= {} if initial is None else {"initial": str(initial)}
        self._data = {} if options.data is None else {DATA: options.data}
        self._about_val: Json = {} if validation is None else {"val": validation.data}
        self._dtype = chosen_precision(self.settings.precision, self.device)
        self._tally, self._probe, self._sources = Tally(), options.probe, dict(options.sources)
        self._folder = RunWriter(self.out, self.device)
        self._agreement, self._record = Agreement(), options.record
        with ExitStack() as undo:
            undo.callback(self._folder.let_go)
            self._folder.hold()
            self.model = recipe.build(seed=seed)
            if initial is not None and (own := load_matching_weights(self.model, initial)):
                log.info("%s has no weights for %s; they keep their initial values", initial, ", ".join(own))
            self.model.to(self.device)
            if self.settings.checkpoint_blocks:
                recompute_blocks(self.model)
            if self.settings.parallel == "fsdp":
                half = self.device.type != "cpu" or not self.model.float32_on_cpu
                dtype = self._dtype if half else torch.float32
                divide(self.model, self.device, dtype, replicas=self.settings.replicas)
            self.optimiser = build_optimiser(self.model, recipe.optimiser)
            views, every = getattr(recipe.data, "views", 1), self.settings.guard_every
            self._guard = Guard(self.model, self.settings.guard, every, self.device, views)
            decay = recipe.optimiser.average
            self.average = None if decay is None else Average(self.model, decay)
            self._validator = (
                None if validation is None else Validator(validation, recipe, self.model, self.average, self.out)
            )
            self._begin()
            self._channels = find_channels(recipe.data)
            publish_scores(self._channels, self.model, trained=False)
            self._stepper = self._made_stepper(seed)
            self._writer = CheckpointWriter(self._folder.checkpoints, self.device, self.settings.keep)
            undo.pop_all()
        self._bar = TrainProgress(self._shown(), recipe.name, step=self.step, steps=self.steps)
        track = self.settings.track if rank() == 0 else ()
        self._trackers = Trackers(self.out, track, run_settings(self.out) if track else {}, self.step)
        metrics, most_skips = self._folder.metrics, self.settings.most_skips
        losses = SampleLosses(self.out, self.steps) if self.settings.losses and rank() == 0 else None
        seen = SourceCounts(self._sources, recipe.data.views if isinstance(recipe.data, SplitConfig) else 1)
        self._results = Results(metrics, self._bar, self._trackers, self._tally, most_skips, self.device, losses, seen)
        traced = self.settings.profile if rank() == 0 else None
        self._profile = None if traced is None else StepProfile(self.out, traced, self.device)

    def run(self, until: int | None = None) -> TrainResult:
        """Trains up to step `until` (by default the last) or until a signal, then saves a checkpoint."""
        goal = self.steps if until is None else min(until, self.steps)
        with kept_memory(self.device), ExitStack() as stack:
            stack.callback(self._folder.let_go)
            self._folder.hold()
            stack.callback(self._writer.close)
            stack.enter_context(self._profile or nullcontext())
            with StopRequest() as stop, self._bar, self._trackers, self._folder.metrics:
                if self.step >= self.steps:
                    self._bar.note(f"{self.out} has its {self.steps} steps; more --steps go on, --no-resume begins")
                self._advance(goal, stop)
                with stop.saving():
                    self._writer.finish()
                if self.step < goal and not self._ended_early:
                    self._bar.note(f"stopped after step {self.step} of {self.steps}; run the same command to continue")
            self._write_results()
        losses = self._results.losses
        loss = sum(losses) / len(losses) if losses else None
        early = self._ended_early
        return TrainResult(out=self.out, step=self.step, steps=self.steps, loss=loss, ended_early=early)

    @property
    def _ended_early(self) -> bool:
        return self._validator is not None and self._validator.is_in_vain(self.step)

    def _shown(self) -> Progress:
        """What shows the progress: that of the settings, on rank 0."""
        shown = self.settings.progress if rank() == 0 else False
        return shown if isinstance(shown, Progress) else ProgressBar() if shown else SILENT

    def _begin(self) -> None:
        """Continues from the newest checkpoint, or begins."""
        self._first_batch = batches_before(self.loader.state_dict(), len(self.loader)) or 0
        whole = {"recipe": self.recipe.to_dict(), **self._data, **self._about_val, **self._settings}
        kind = str(self._dtype).removeprefix("torch.")
        about = {**whole, "steps": self.steps, "device": str(self.device), "ranks": world_size(), "precision": kind}
        self.step = self._saved = self._folder.begin(
            about, self._load, resume=self.settings.resume, batches_per_epoch=len(self.loader)
        )
        with in_step(self.device):
            if rank() == 0 and self._record is not None:
                self._record(self.step)
        self._guard.begin(self._tally.spread)
        if self._validator is not None:
            self._validator.resume(self._tally.best, self.step)

    def _load(self, checkpoint: Path, position: Position) -> None:
        load_checkpoint(checkpoint, position, self.model, self.optimiser, self._identity(), average=self.average)
        self.loader.load_state_dict(position.loader)
        self._first_batch = position.first_batch
        self._tally = Tally.from_dict(position.tally)
        if position.steps != self.steps and rank() == 0:
            log.warning(
                "planned for %d steps, now for %d: from step %d on the learning rate follows the new plan",
                position.steps,
                self.steps,
                position.step,
            )

    def _made_stepper(self, seed: int) -> Stepper:
        compile_parts(self.model, self.settings.compile, self.device)
        module: nn.Module = over_ranks(self.model, self.device)
        return Stepper(
            self.model,
            module,
            self.optimiser,
            self.recipe.optimiser,
            StepSettings(
                device=self.device,
                seed=seed,
                dtype=self._dtype,
                may_skip=self.settings.on_nan == "skip",
                steps=self.steps,
                losses=self.settings.losses,
                sources=len(self._sources),
            ),
            scale=self._tally.scale if self._dtype == torch.float16 else None,
            average=self.average,
        )

    def _write_results(self) -> None:
        """Writes what the loader did and, after the last step, the model, whose rows all ranks give."""
        data: bytes | None = None
        if self._ended_early or self.step >= self.steps:
            averaged = None if self.average is None else self.average.values
            about = self._about() | ({} if averaged is None else {"weights": "average"})
            data = model_bytes(self.model, about, averaged)
        with in_step(self.device):
            if rank() == 0:
                publish(self.out / "loader_stats.json", json.dumps(summary(self.loader.stats()), indent=2).encode())
                if data is not None:
                    publish(self.out / "model.safetensors", data)

    def _advance(self, goal: int, stop: StopRequest) -> None:
        """Trains up to step `goal`. Results are read one step late, so that a CUDA device always has a step queued."""
        lag = 1 if self.device.type == "cuda" else 0
        pending: deque[Launched] = deque()
        batches = endless(self.loader)
        stopped, first = False, self.step
        between_s: dict[str, float] = {}
        if self._guard.mode == "rollback" and not self.step:
            self._save(stop)
        clock = time.perf_counter()
        while self.step < goal and not stopped and not self._ended_early:
            if self._profile is not None:
                self._profile.begin(self.step + 1)
            epoch, micro_batches, waited_s = self._agreed(batches, pending, stop)
            spread: Mapping[str, float] = {}
            if self.step == first and not self._guard.first and self._guard.mode != "off":
                self._tally.spread = dict(spread := self._guard.measure(micro_batches[-1]))
            lr = self.recipe.schedule.lr(self.step, self.steps, self._samples) * self._tally.lr_factor
            report = self._stepper.step(micro_batches, number=self.step, lr=lr, asked_to_stop=stop.asked)
            publish_scores(self._channels, self.model)
            self.step += 1
            now = time.perf_counter()
            save = self.step == goal or self.step % self.settings.save_every == 0
            watch = not spread and (self._guard.is_due(self.step) or (save and self._guard.mode == "rollback"))
            spread = self._guard.measure(micro_batches[-1]) if watch else spread
            guarded = time.perf_counter()
            asked = self._probe is not None and self._probe.is_due(self.step, self.steps)
            probed = self._probed() if asked else {}
            launched = Launched(
                step=self.step,
                epoch=epoch,
                lr=lr,
                clips=sum(map(len, micro_batches)) * world_size(),
                seconds=now - clock,
                waited_s=waited_s,
                between_s=between_s,
                report=report,
                spread=spread,
                probed=probed,
            )
            pending.append(launched)
            clock, between_s = now, {}
            if watch:
                between_s["guard"] = guarded - now
            if asked:
                between_s["probe"] = time.perf_counter() - guarded
            if self._profile is not None:
                self._profile.end(self.step)
            due = self._validator if self._validator and self._validator.is_due(self.step, self.steps) else None
            count = self._results.work is None and self.step - first == MEASURED_AFTER
            fallen = watch and self._guard.has_collapsed
            while len(pending) > (0 if save or stopped or due or count or fallen else lag):
                done = pending.popleft()
                stopped |= self._results.take(done, due.measure if due and not pending else None)
            if due:
                between_s["validation"] = time.perf_counter() - now
            if count:
                self._results.work = self._stepper.work(micro_batches)
            best = due if due and due.improved else None
            if best:
                self._tally.best = best.best
            if fallen and self._act_on_collapse():
                batches.close()
                batches, clock, between_s = endless(self.loader), time.perf_counter(), {}
                continue
            begun = time.perf_counter()
            save |= self._ended_early
            if (save or stopped or best) and not (self._guard.mode == "rollback" and self._guard.is_low):
                self._save(stop)
            if best:  # behind its checkpoint, so that no resume goes back behind it
                self._writer.finish()
                best.keep()
            if save or stopped or best:
                between_s["checkpoint"] = time.perf_counter() - begun
            if save or stopped or due or count or watch or asked:
                clock = time.perf_counter()

    def _probed(self) -> Mapping[str, float]:
        """The scores of the probe."""
        assert self._probe is not None
        self.model.eval()
        with gathered_root(self.model), torch.no_grad():
            found = self._probe.measure(self.model, self.device)
        self.model.train()
        return found

    def _act_on_collapse(self) -> bool:
        """Warns of a collapse, or goes back to the last sound checkpoint: whether it did.

        Raises CollapseError if the run is to stop, or has gone back often enough.
        """
        found = f"the features have collapsed after step {self.step}: {self._guard.why}"
        if self._guard.mode == "log":
            if rank() == 0:
                log.warning("%s; set guard='stop' or 'rollback' to end such a run or to go back", found)
            self._guard.begin(self._tally.spread)
            return False
        done = self._tally.rollbacks
        if self._guard.mode == "stop" or len(done) == MOST_ROLLBACKS:
            tried = f", and so they had {len(done)} times before" if done else ""
            raise CollapseError(
                f"{found}{tried}; start over with a lower base_lr, a longer warmup, or a momentum nearer to 1"
            )
        self._writer.finish()
        at, why, before = self.step, self._guard.why, self._tally
        with in_step(self.device):
            kept = list_checkpoints(self._folder.checkpoints)
            if rank() == 0 and done and len(kept) > 1 and read_step(kept[0]) == done[-1].to:
                remove(kept[0])  # it was as sound as the line can tell, and led here twice
        self._begin()
        self._tally.rollbacks = [*done, Rollback(at=at, to=self.step, why=why)]
        self._tally.lr_factor = before.lr_factor * SLOWER
        self._tally.scale, self._tally.spread = before.scale, before.spread
        self._results.tally = self._tally
        publish_scores(self._channels, self.model, trained=False)
        self._guard.begin(self._tally.spread)
        if rank() == 0:
            log.warning(
                "%s; back to step %d, from where the learning rate is %.2g times that of the plan",
                found,
                self.step,
                self._tally.lr_factor,
            )
        return True

    def _agreed(
        self, batches: Iterator[tuple[int, TrainingBatch, float]], pending: deque[Launched], stop: StopRequest
    ) -> tuple[int, list[TrainingBatch], float]:
        """The same as `_next`. If it fails on a rank, all ranks end before the step, none waits for another.

        An error about data, or of what stores it, loses no step: those that are done are saved.
        """
        failure: Exception | None = None
        before = self.loader.state_dict() if world_size() * self.recipe.accumulate > 1 else None
        try:
            made = self._next(batches)
        except Exception as error:
            failure = error
        kind = 0 if failure is None else 1 if isinstance(failure, MaskstreamError) else 2
        worst, busy = self._agreement.largest(kind, int(not self._writer.is_idle()))
        if self._writer.is_open and not busy:
            self._writer.finish()
        if worst == 1 and self.step > self._saved:
            while pending:
                self._results.take(pending.popleft())
            self._save(stop, before)
            self._writer.finish()
        if failure is not None:
            raise failure
        if worst:
            raise MaskstreamError(f"rank {rank()} ends because another rank has no batch; its message says why")
        return made

    def _next(self, batches: Iterator[tuple[int, TrainingBatch, float]]) -> tuple[int, list[TrainingBatch], float]:
        """The epoch of the next step, its micro-batches, and how many seconds it waited for them."""
        epoch, batch, waited_s = next(batches)
        made = [batch]
        for _ in range(self.recipe.accumulate - 1):
            _, batch, more_s = next(batches)
            made.append(batch)
            waited_s += more_s
        return epoch, made, waited_s

    def _save(self, stop: StopRequest, loader: Json | None = None) -> None:
        """Begins a checkpoint, which a thread writes; the one before is then there.

        loader: the loader's state, if it has handed out more batches than those of the steps that are done.
        """
        with stop.saving():
            position = Position(
                step=self.step,
                steps=self.steps,
                loader=self.loader.state_dict() if loader is None else loader,
                settings=self._identity(),
                logged=self._folder.metrics.logged(),
                first_batch=self._first_batch,
                accumulate=self.recipe.accumulate,
                tally=self._tally.to_dict(),
            )
            self._writer.start(self.model, self.optimiser, position, about=self._about(), average=self.average)
        self._saved = self.step

    def _identity(self) -> Json:
        """The settings that must be the same in a resumed run. The loader's state holds those of the data."""
        return {"recipe": self.recipe.to_dict(identity=True), **self._settings}

    def _about(self) -> dict[str, str]:
        return {"recipe": self.recipe.name, "step": str(self.step)}
