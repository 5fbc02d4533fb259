"""The training loop: trains on batches of any modality and writes weights, metrics and checkpoints."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskstream.pipelines.modalities.data import SplitConfig
from maskstream.pipelines.stream.stats import summary
from maskstream.shards.config import Json, rebuild
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import PositiveInt
from maskstream.shards.progress import SILENT, Progress, ProgressBar
from maskstream.shards.stores.local_files import publish
from maskstream.shards.stores.url import get_local_path

from .checkpoint import Position, count_batches_before, list_checkpoints, load_checkpoint, read_step, remove
from .checkpoint_write import CheckpointWriter
from .distributed import Agreement, in_step, rank, world_size
from .guard import SLOWER, Guard
from .hook import Hook, StepEvent
from .metrics import TrainProgress
from .model import Model, TrainingBatch
from .optimiser import Average, build_optimiser
from .options import LoopSettings
from .parallel import compile_parts, divide, recompute_blocks, wrap_for_ranks
from .process import StopRequest, choose_precision, keep_memory
from .profile import StepProfile
from .recipe import Recipe, find_channels, publish_scores
from .record import Recorder, SourceCounts
from .results import Rollback, Tally, TrainResult
from .run_folder import DATA, RunWriter, run_settings
from .sample_losses import SampleLosses
from .step import Batches, Stepper, StepSettings, endless
from .trackers import Trackers, check_trackers
from .validation import Validation, Validator
from .weights import encode_model, load_matching_weights

log = logging.getLogger(__name__)

MEASURED_AFTER = 10
"""Steps of a process after which the operations of a step are counted, which takes as long as a step or two."""


@dataclass(frozen=True, kw_only=True)
class TrainerOptions(LoopSettings):
    """Keyword arguments of a `Trainer`, in addition to the settings of its loop.

    Attributes:
        steps: Length of the whole run, over which the learning rate is planned; None uses the recipe's length.
        initial: File of initial weights (see `load_matching_weights`).
        seed: Random seed of the initial weights and of random draws during training.
        device: Device to train on.
        data: Description of the split, written to run.json.
        validation: Scores to compute during training; the weights with the best score are saved to best.safetensors.
        hooks: Further hooks, called before the built-in ones.
        sources: For a mixture, the name of each source in the metrics and its number of samples, in the order of
            `batch.source`.
        settings: Settings of the loop, instead of individual arguments.
    """

    steps: PositiveInt | None = None
    initial: str | Path | None = None
    seed: int = 0
    device: torch.device | str = "cpu"
    data: Json | None = None
    validation: Validation | None = None
    hooks: Sequence[Hook] = ()
    sources: Mapping[str, int] = field(default_factory=dict)
    settings: LoopSettings | None = None


class Trainer:
    """Trains a recipe's model on a loader's batches.

    The folder `out` receives run.json, metrics.jsonl, checkpoints/, loader_stats.json when `run` ends (where rank 0's
    loader spent its time, and its bottleneck), and model.safetensors after the last step.

    A resumed run continues from the newest intact checkpoint. On a CPU its weights are bit-identical to an
    uninterrupted run, also with a teacher. With resume=False an earlier run in the folder is overwritten.

    SIGTERM, Ctrl-C and a loader's data error on any rank end `run` after the current step, with a checkpoint. Under
    torch.distributed each rank trains on the batches of its local loader.

    Rank 0 locks the folder until `run` ends or the Trainer is deleted.

    Args:
        recipe: Model, data, schedule and optimiser of the run.
        loader: Loader of this rank's batches.
        out: Folder of the run.
        **options: The fields of `TrainerOptions`.

    Raises:
        ValueError: A setting is wrong.
        BusyError: Another run writes into the folder.
        ResumeError: No checkpoint is intact, or the checkpoint does not fit the settings.
        StoreError: The disk is full.
        CollapseError: The features have collapsed, with guard="stop", or with guard="rollback" after too many
            rollbacks.
        FloatingPointError: A loss or gradient is not finite; with on_nan="skip", too many in a row.
    """

    @takes_fields(TrainerOptions).in_method
    def __init__(self, recipe: Recipe[Any], loader: Batches, out: str | Path, options: TrainerOptions) -> None:
        if len(loader) == 0:
            raise ValueError(
                "the loader has no batches because there are fewer samples than batch_size x ranks; choose a smaller "
                "batch_size"
            )
        self.settings: LoopSettings = options.settings or options
        check_trackers(self.settings.track)
        self.recipe, self.loader, self.out = recipe, loader, get_local_path(out, "out")
        self.device = torch.device(options.device)
        self.steps = options.steps or recipe.schedule.run_length(-(-len(loader) // recipe.accumulate))
        self.step, self.tally = 0, Tally()
        self._options, self._stop = options, StopRequest()
        self._samples = recipe.batch_size * recipe.accumulate * world_size()
        self._settings: Json = {"seed": options.seed, "samples_per_step": self._samples}
        self._settings |= {} if options.initial is None else {"initial": str(options.initial)}
        self._dtype = choose_precision(self.settings.precision, self.device)
        self._folder, self._agreement = RunWriter(self.out, self.device), Agreement()
        with ExitStack() as undo:
            undo.callback(self._folder.unlock_folder)
            self._folder.hold()
            self.model = self._build_model()
            self.optimiser = build_optimiser(self.model, recipe.optimiser)
            decay = recipe.optimiser.average
            self.average = None if decay is None else Average(self.model, decay)
            self._writer = CheckpointWriter(self._folder.checkpoints, self.device, self.settings.keep)
            self._channels = find_channels(recipe.data)
            self._add_hooks()
            self._restore(resume=self.settings.resume)
            self._begin_hooks()
            self._stepper = self._build_stepper()
            undo.pop_all()
        self._bar = TrainProgress(self._shown(), recipe.name, step=self.step, steps=self.steps)
        self._recorder = self._build_recorder()
        self.hooks += [
            self._recorder,
            _WorkCount(self.step, self._recorder, self._stepper),
            _Saver(self._guard, self._writer),
        ]
        if self.settings.profile is not None and rank() == 0:
            self.hooks.append(StepProfile(self.out, self.settings.profile))
        for hook in self.hooks[self._begun :]:
            hook.begin(self)

    def _build_model(self) -> Model[Any]:
        """Build the model on the device with its initial weights, sharded and recomputed as set."""
        initial, settings = self._options.initial, self.settings
        model = self.recipe.build(seed=self._options.seed)
        if initial is not None and (own := load_matching_weights(model, initial)):
            log.info("%s has no weights for %s; they keep their initial values", initial, ", ".join(own))
        model.to(self.device)
        if settings.checkpoint_blocks:
            recompute_blocks(model)
        if settings.parallel == "fsdp":
            half = self.device.type != "cpu" or not model.float32_on_cpu
            divide(model, self.device, self._dtype if half else torch.float32, replicas=settings.replicas)
        return model

    def _add_hooks(self) -> None:
        """Create the hooks that need the step at which the run begins."""
        views, settings, validation = getattr(self.recipe.data, "views", 1), self.settings, self._options.validation
        self._guard = Guard(self.model, settings.guard, settings.guard_every, self.device, views)
        self._validator = None if validation is None else Validator(validation, self.recipe, self.out)
        self.hooks: list[Hook] = [*self._options.hooks, self._guard]
        if self._validator is not None:
            self.hooks.append(self._validator)
        self._begun = len(self.hooks)

    def _build_recorder(self) -> Recorder:
        """Build the recorder, and on rank 0 the remaining hooks that receive metrics."""
        settings, sources, data = self.settings, dict(self._options.sources), self.recipe.data
        if settings.losses and rank() == 0:
            self.hooks.append(SampleLosses(self.out, self.steps))
        track = settings.track if rank() == 0 else ()
        if track:
            self.hooks.append(Trackers(self.out, track, run_settings(self.out), self.step))
        seen = SourceCounts(sources, data.views if isinstance(data, SplitConfig) else 1)
        return Recorder(self._folder.metrics, self._bar, [*self.hooks], settings.most_skips, self.device, seen)

    def run(self, until: int | None = None) -> TrainResult:
        """Train up to step `until` (default: the last) or until a signal, then save a checkpoint."""
        goal = self.steps if until is None else min(until, self.steps)
        with keep_memory(self.device), ExitStack() as stack:
            stack.callback(self._folder.unlock_folder)
            self._folder.hold()
            stack.callback(self._writer.close)
            with StopRequest() as stop, self._bar, self._folder.metrics, ExitStack() as hooks:
                self._stop = stop
                for hook in self.hooks:
                    hooks.callback(hook.close)
                if self.step >= self.steps:
                    self._bar.note(
                        f"{self.out} has completed its {self.steps} steps; pass more --steps to continue, or "
                        "--no-resume to start over"
                    )
                self._advance(goal)
                with stop.saving():
                    self._writer.finish()
                if self.step < goal and not self._ended_early:
                    self._bar.note(f"stopped after step {self.step} of {self.steps}; run the same command to continue")
            self._write_results()
        losses, early = self._recorder.losses, self._ended_early
        loss = sum(losses) / len(losses) if losses else None
        return TrainResult(out=self.out, step=self.step, steps=self.steps, loss=loss, ended_early=early)

    @property
    def _ended_early(self) -> bool:
        return self._validator is not None and self._validator.is_in_vain(self.step)

    def _shown(self) -> Progress:
        """Return the progress display: the one in the settings on rank 0, silent elsewhere."""
        shown = self.settings.progress if rank() == 0 else False
        return shown if isinstance(shown, Progress) else ProgressBar() if shown else SILENT

    def _restore(self, *, resume: bool) -> None:
        """Continue from the newest checkpoint if `resume`, else start over."""
        options = self._options
        self._first_batch = count_batches_before(self.loader.state_dict(), len(self.loader)) or 0
        whole = {"recipe": self.recipe.to_dict()} | ({} if options.data is None else {DATA: options.data})
        whole |= {} if options.validation is None else {"val": options.validation.data}
        kind = str(self._dtype).removeprefix("torch.")
        told = {"steps": self.steps, "device": str(self.device), "ranks": world_size(), "precision": kind}
        self.step = self._saved = self._folder.begin(
            {**whole, **self._settings, **told},
            self._load,
            resume=resume,
            batches_per_epoch=len(self.loader),
        )

    def _begin_hooks(self) -> None:
        for hook in self.hooks:
            hook.begin(self)
        publish_scores(self._channels, self.model, trained=False)

    def _load(self, checkpoint: Path, position: Position) -> None:
        load_checkpoint(checkpoint, position, self.model, self.optimiser, self._identity(), average=self.average)
        self.loader.load_state_dict(position.loader)
        self._first_batch = position.first_batch
        self.tally = rebuild(Tally, position.tally)
        if position.steps != self.steps and rank() == 0:
            log.warning(
                "planned for %d steps, now for %d: from step %d on the learning rate follows the new plan",
                position.steps,
                self.steps,
                position.step,
            )

    def _build_stepper(self) -> Stepper:
        compile_parts(self.model, self.settings.compile, self.device)
        module: nn.Module = wrap_for_ranks(self.model, self.device)
        return Stepper(
            self.model,
            module,
            self.optimiser,
            self.recipe.optimiser,
            StepSettings(
                device=self.device,
                seed=self._options.seed,
                dtype=self._dtype,
                may_skip=self.settings.on_nan == "skip",
                steps=self.steps,
                losses=self.settings.losses,
                sources=len(self._options.sources),
            ),
            scale=self.tally.scale if self._dtype == torch.float16 else None,
            average=self.average,
        )

    def _write_results(self) -> None:
        """Write the loader's statistics and, after the last step, the model; all ranks contribute their rows."""
        data: bytes | None = None
        if self._ended_early or self.step >= self.steps:
            averaged = None if self.average is None else self.average.values
            about = self._describe_step() | ({} if averaged is None else {"weights": "average"})
            data = encode_model(self.model, about, averaged)
        with in_step(self.device):
            if rank() == 0:
                publish(self.out / "loader_stats.json", json.dumps(summary(self.loader.stats()), indent=2).encode())
                if data is not None:
                    publish(self.out / "model.safetensors", data)

    def _advance(self, goal: int) -> None:
        """Train up to step `goal`, calling all hooks after each step. Their time is not counted as part of a step."""
        batches, hooks_s = endless(self.loader), dict[str, float]()
        if self._guard.mode == "rollback" and not self.step:
            self.save()
        clock, ended = time.perf_counter(), self._ended_early
        while self.step < goal and not ended:
            event = self._next_event(batches, goal, hooks_s)
            self._do_step(event)
            now = time.perf_counter()
            event.seconds, clock = now - clock, now
            hooks_s = self._call_hooks(event)
            event.batches = ()
            if event.roll_back:
                self._roll_back(event.roll_back)
                batches.close()
                batches = endless(self.loader)
            if hooks_s or event.roll_back:
                clock = time.perf_counter()
            ended = event.stop or self._recorder.asked

    def _next_event(
        self, batches: Iterator[tuple[int, TrainingBatch, float]], goal: int, hooks_s: Mapping[str, float]
    ) -> StepEvent:
        """Return the next step, with its batches."""
        epoch, micro_batches, waited_s = self._agreed(batches)
        step = self.step + 1
        return StepEvent(
            run=self,
            step=step,
            epoch=epoch,
            lr=self.recipe.schedule.lr(self.step, self.steps, self._samples) * self.tally.lr_factor,
            batches=micro_batches,
            rows=sum(map(len, micro_batches)) * world_size(),
            waited_s=waited_s,
            hooks_s=hooks_s,
            save=step == goal or step % self.settings.save_every == 0,
            settle=self._recorder.settle,
        )

    def _do_step(self, event: StepEvent) -> None:
        for hook in self.hooks:
            hook.before(event)
        event.report = self._stepper.step(event.batches, number=self.step, lr=event.lr, asked_to_stop=self._stop.asked)
        publish_scores(self._channels, self.model)
        self.step = event.step

    def _call_hooks(self, event: StepEvent) -> dict[str, float]:
        """Call the hooks after a step, up to the first one that requests a rollback. Return the seconds of each."""
        seconds = dict[str, float]()
        for hook in self.hooks:
            if event.roll_back:
                return {}
            if hook.is_due(event):
                begun = time.perf_counter()
                hook.after(event)
                if hook.timed:
                    seconds[hook.timed] = seconds.get(hook.timed, 0.0) + time.perf_counter() - begun
        return seconds

    def _roll_back(self, why: str) -> None:
        """Return to the last intact checkpoint and lower the learning rate from there."""
        self._recorder.settle()
        self._writer.finish()
        at, before, done = self.step, self.tally, self.tally.rollbacks
        with in_step(self.device):
            kept = list_checkpoints(self._folder.checkpoints)
            if rank() == 0 and done and len(kept) > 1 and read_step(kept[0]) == done[-1].to:
                remove(kept[0])  # it passed the guard, but training from it collapsed twice
        self._restore(resume=True)
        self.tally.rollbacks = [*done, Rollback(at=at, to=self.step, why=why)]
        self.tally.lr_factor = before.lr_factor * SLOWER
        self.tally.scale, self.tally.spread = before.scale, before.spread
        self._begin_hooks()
        if rank() == 0:
            log.warning(
                "rolling back from step %d (%s) to step %d, from where the learning rate is %.2g times the planned one",
                *(at, why, self.step, self.tally.lr_factor),
            )

    def _agreed(self, batches: Iterator[tuple[int, TrainingBatch, float]]) -> tuple[int, list[TrainingBatch], float]:
        """Return the result of `_next`; if it fails on one rank, all ranks end before the step instead of waiting.

        After a data or storage error the completed steps are saved first.
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
            self._recorder.settle()
            self.save(before)
            self._writer.finish()
        if failure is not None:
            raise failure
        if worst:
            raise MaskstreamError(f"rank {rank()} stopped because another rank has no batch; see that rank's error")
        return made

    def _next(self, batches: Iterator[tuple[int, TrainingBatch, float]]) -> tuple[int, list[TrainingBatch], float]:
        """Return the next step's epoch, its micro-batches, and the seconds spent waiting for them."""
        epoch, batch, waited_s = next(batches)
        made = [batch]
        for _ in range(self.recipe.accumulate - 1):
            _, batch, more_s = next(batches)
            made.append(batch)
            waited_s += more_s
        return epoch, made, waited_s

    def save(self, loader: Json | None = None) -> None:
        """Start writing a checkpoint in a thread, once the previous one is on disk.

        Args:
            loader: State of the loader; needed if it has returned more batches than the completed steps used.
        """
        with self._stop.saving():
            position = Position(
                step=self.step,
                steps=self.steps,
                loader=self.loader.state_dict() if loader is None else loader,
                settings=self._identity(),
                logged=self._folder.metrics.logged(),
                first_batch=self._first_batch,
                accumulate=self.recipe.accumulate,
                tally=asdict(self.tally),
            )
            self._writer.start(self.model, self.optimiser, position, about=self._describe_step(), average=self.average)
        self._saved = self.step

    def _identity(self) -> Json:
        """Return the settings that must be equal in a resumed run. Data settings are in the loader's state."""
        return {"recipe": self.recipe.to_dict(identity=True), **self._settings}

    def _describe_step(self) -> dict[str, str]:
        return {"recipe": self.recipe.name, "step": str(self.step)}


class _WorkCount(Hook):
    """Counts the operations of a step once per process."""

    timed = "work"

    def __init__(self, first: int, recorder: Recorder, stepper: Stepper) -> None:
        self._first, self._recorder, self._stepper = first, recorder, stepper

    def is_due(self, event: StepEvent) -> bool:
        """Return whether enough steps have passed."""
        return self._recorder.work is None and event.step - self._first == MEASURED_AFTER

    def after(self, event: StepEvent) -> None:
        """Count the operations with the step's batches."""
        event.settle(None)
        self._recorder.work = self._stepper.work(event.batches)


class _Saver(Hook):
    """Saves a checkpoint when one is due, when the run stops, and when a hook waits for one."""

    timed = "checkpoint"

    def __init__(self, guard: Guard, writer: CheckpointWriter) -> None:
        self._guard, self._writer = guard, writer

    def is_due(self, event: StepEvent) -> bool:
        """Return whether the settings or a hook request a checkpoint."""
        return event.save or event.stop or bool(event.after_save)

    def after(self, event: StepEvent) -> None:
        """Save a checkpoint, unless the guard forbids it."""
        event.settle(None)
        if not self._guard.forbids_saving:
            event.run.save()
        if event.after_save:
            self._writer.finish()
        for do in event.after_save:
            do()
