"""One optimiser step.

The gradients of several micro-batches equal the gradients of one batch of all their samples.

That needs the total weight of all micro-batches before the first backward pass. With a single loss part, the loss is
divided by an approximate weight, and the gradients are corrected at the end. With several parts one factor is not
enough, so an extra forward pass computes the weights first.
"""

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from maskstream.pipelines.stream.batch import Batch

from .distributed import gather_in_order, rank, sum_over_ranks, world_size
from .model import LEAST, Losses, Model, TrainingBatch
from .optimiser import Average, OptimiserConfig, limit_gradients, scale_gradients, set_decay, set_lr
from .parallel import share_rest, sharing
from .process import derive_step_seed, seeded
from .timing import StepClock

log = logging.getLogger(__name__)


class Batches(Protocol):
    """The loader interface that the trainer uses: each iteration yields one epoch, from the position in its state."""

    @property
    def epoch(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[TrainingBatch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def stats(self) -> dict[str, Any]: ...


@runtime_checkable
class EndlessBatches(Protocol):
    """A loader whose `repeat` continues from one epoch to the next without a pause; the trainer prefers it."""

    def repeat(self) -> Iterator[TrainingBatch]: ...


def endless(loader: Batches) -> Generator[tuple[int, TrainingBatch, float]]:
    """Yield (epoch, batch, seconds spent waiting for it) without end."""
    while True:
        source = loader.repeat() if isinstance(loader, EndlessBatches) else iter(loader)
        epoch, start = loader.epoch, time.perf_counter()
        for batch in source:
            yield epoch, batch, time.perf_counter() - start
            epoch, start = loader.epoch, time.perf_counter()


GROWTH, BACKOFF, INTERVAL, FIRST = 2.0, 0.5, 2000, 65536.0
"""As in torch.amp.GradScaler."""


@dataclass(kw_only=True, slots=True)
class LossScale:
    """The loss scale of float16 training.

    Attributes:
        value: Factor of the loss.
        good_steps: Number of consecutive steps without an overflow since the last change.
    """

    value: float = FIRST
    good_steps: int = 0

    def update(self, *, overflowed: bool) -> None:
        """Halve the factor after an overflow, and double it after `INTERVAL` steps without one.

        Args:
            overflowed: Whether gradients of the step overflowed.
        """
        if overflowed:
            self.value, self.good_steps = self.value * BACKOFF, 0
            return
        self.good_steps += 1
        if self.good_steps == INTERVAL:
            self.value, self.good_steps = self.value * GROWTH, 0


_SIZES = {"cpu": 1024, "cuda": 8192}
_TIMES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StepWork:
    """Cost of a step on this rank.

    Attributes:
        flops: Operations of the step.
        peak: Highest measured rate of the device, in operations per second.
    """

    flops: float
    peak: float


def count_flops(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Count the operations of one forward and backward pass in matrix products, attention and convolutions.

    An extra pass is run without compiled code, and its gradients are dropped, so the parameters must have none. Source:
    torch's FlopCounterMode, which counts a multiplication and an addition as 2.

    Args:
        model: The model.
        loss: Computes the loss of a batch.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if on_cpu:  # FlopCounter does not know the fused attention of CPUs, only the products that it consists of
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        counter = stack.enter_context(FlopCounterMode(display=False))
        loss().backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return int(counter.get_total_flops())


def measure_peak_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations per second of a large matrix product, the best of several, with torch's current threads.

    Args:
        device: Device to measure.
        dtype: Type of the matrices.
    """
    size = _SIZES.get(device.type, 1024)
    one = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_TIMES):
        start = time.perf_counter()
        one @ one
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """Results of a step, which may not have arrived from the device yet.

    Attributes:
        values: float32 (3 + parts + groups,) over all ranks: the loss, the gradient norm, the number of ranks asked to
            stop, the mean of each loss part, and the gradient norm of each part of the model. For a mixture they are
            followed by the summed loss of each source's rows (NaN if undefined) and the number of rows of each source.
        parts: Names of the loss parts.
        groups: Names of the model's parts.
        skipped: Whether the weights were left unchanged.
        clock: Times of this rank.
        samples: float32 loss of each sample, in the order of the whole step's batches; None unless requested.
    """

    values: Tensor
    parts: tuple[str, ...]
    groups: tuple[str, ...]
    skipped: bool
    clock: StepClock
    samples: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSettings:
    """Settings of a step.

    Attributes:
        device: Device to train on.
        seed: Random seed of the model's draws.
        dtype: Data type of matrix products.
        may_skip: Skip a step whose loss or gradient is not finite. Each step then waits for a CUDA device.
        steps: Number of steps of the whole run, over which weight decay and teachers change.
        losses: Record the loss of each sample.
        sources: Number of sources of a mixture; 0 for a single split.
    """

    device: torch.device
    seed: int
    dtype: torch.dtype = torch.float32
    may_skip: bool = False
    steps: int = 1
    losses: bool = False
    sources: int = 0


class Stepper:
    """Performs the optimiser steps of a model.

    Args:
        model: The model.
        module: Module to call: the model, or a wrapper that averages its gradients over ranks.
        optimiser: Optimiser of the model's parameters.
        config: Settings of the optimiser.
        settings: Settings of a step.
        scale: Loss scale, for float16.
        average: Moving average of the weights, updated by each step.
    """

    def __init__(
        self,
        model: nn.Module,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        config: OptimiserConfig,
        settings: StepSettings,
        *,
        scale: LossScale | None = None,
        average: Average | None = None,
    ) -> None:
        self._model, self._module, self._optimiser, self._config = model, module, optimiser, config
        self._settings, self._device, self._dtype = settings, settings.device, settings.dtype
        self._scale, self._average = scale, average

    def step(self, batches: Sequence[TrainingBatch], *, number: int, lr: float, asked_to_stop: bool) -> StepReport:
        """Train on the micro-batches of a step.

        Args:
            batches: Batches of this rank.
            number: Number of the step, from 0.
            lr: Learning rate of the step.
            asked_to_stop: Whether this rank was asked to stop, which all ranks learn from the report.

        Returns:
            The results, on the device.
        """
        clock = StepClock(self._device)
        on_device = [batch.to(self._device, non_blocking=True) for batch in batches]
        clock.lap("data")
        set_lr(self._optimiser, lr)
        set_decay(self._optimiser, self._config, number / self._settings.steps)
        own, of_sources = list[Tensor](), list[Tensor]()
        parts, results = self._gradients(on_device, number, clock, own, of_sources)
        samples = gather_in_order(torch.stack(own)) if own else None
        norm, norms = limit_gradients(self._model, self._config)
        asked = norm.new_full((), float(asked_to_stop))
        shares = torch.stack([*norms.values()]) / world_size()
        first = torch.stack((results[0], norm / world_size(), asked))
        mixed = [torch.stack(of_sources).sum(0)] if of_sources else []
        values = sum_over_ranks(torch.cat((first, results[1:], shares, *mixed)))
        skipped = (self._settings.may_skip or self._scale is not None) and not bool(values[:2].isfinite().all())
        if not skipped:
            self._optimiser.step()
            if self._average is not None:
                self._average.update(number)
            if isinstance(self._model, Model):
                self._model.follow(number, self._settings.steps)
        self._optimiser.zero_grad()
        if self._scale is not None:
            self._scale.update(overflowed=skipped)
        clock.lap("optimiser")
        return StepReport(
            values=values, parts=parts, groups=tuple(norms), skipped=skipped, clock=clock, samples=samples
        )

    def work(self, batches: Sequence[TrainingBatch]) -> StepWork:
        """Measure the operations of a step on these micro-batches, and the device's rate for large matrix products.

        Weights do not change. Do not call it between the passes of a step.
        """
        flops = 0
        self._model.eval()
        for batch in batches:
            flops += count_flops(self._model, partial(self._measure_loss, batch.to(self._device, non_blocking=True)))
        self._model.train()
        return StepWork(flops=flops, peak=measure_peak_rate(self._device, self._dtype))

    def _gradients(
        self,
        batches: Sequence[TrainingBatch],
        number: int,
        clock: StepClock,
        own: list[Tensor],
        of_sources: list[Tensor],
    ) -> tuple[tuple[str, ...], Tensor]:
        """Compute the gradients of the step's loss, averaged over ranks.

        The sums are divided by the weights of the whole step. With one micro-batch they are known before the backward
        pass. With more, a loss of one part is divided by the first micro-batch's weight and the gradients are corrected
        at the end; a loss of several parts is first computed once without gradients.

        Args:
            batches: Micro-batches of the step.
            number: Number of the step.
            clock: Measures the parts of the step.
            own: Receives the sample losses of each micro-batch, if requested.
            of_sources: Receives the losses of each source of a mixture.

        Returns:
            Names of the loss parts, and this rank's contribution to the loss and to the means of the parts, float32 (1
            + parts,).
        """
        last = len(batches) - 1
        with sharing(self._module, now=last == 0):
            losses = self._compute_losses(self._module, batches[0], number, 0)
            parts, first = tuple(losses.parts), losses.weights()
            exact = last == 0 or len(parts) > 1
            divisors = (
                self._sum_divisors(batches, number, first) if exact else sum_over_ranks(first.clone()).clamp_min(1.0)
            )
            clock.lap("forward")
            self._run_backward(losses, divisors)
            clock.lap("backward")
        self._note(losses, batches[0], own, of_sources)
        totals, weights = _sum_totals(losses), first
        for i in range(1, len(batches)):
            with sharing(self._module, now=i == last):
                losses = self._compute_losses(self._module, batches[i], number, i)
                clock.lap("forward")
                self._run_backward(losses, divisors)
                clock.lap("backward")
            self._note(losses, batches[i], own, of_sources)
            totals, weights = totals + _sum_totals(losses), weights + losses.weights()
        share_rest(self._module)
        whole = divisors if exact else sum_over_ranks(weights).clamp_min(LEAST)
        scale = 1.0 if self._scale is None else self._scale.value
        if not exact or scale != 1.0:
            scale_gradients(self._model, (divisors / whole).mean() / scale)
        means = totals / whole.clamp_min(LEAST)
        shares = means.new_tensor([part.share for part in losses.parts.values()])
        return parts, torch.cat(((means * shares).sum()[None], means))

    def _note(self, losses: Losses, batch: TrainingBatch, own: list[Tensor], of_sources: list[Tensor]) -> None:
        if self._settings.losses:
            own.append(losses.of_samples(len(batch)))
        if self._settings.sources:
            of_sources.append(sum_source_losses(losses, batch, self._settings.sources))

    def _sum_divisors(self, batches: Sequence[TrainingBatch], number: int, first: Tensor) -> Tensor:
        """Sum the weight of each part over all micro-batches and ranks, given the `first` local batch's weights.

        The model is in eval mode so that training-time counters are not updated twice.
        """
        weights = first.clone()
        self._model.eval()
        with torch.no_grad():
            for i in range(1, len(batches)):
                weights += self._compute_losses(self._model, batches[i], number, i).weights()
        self._model.train()
        return sum_over_ranks(weights)

    def _compute_losses(self, module: nn.Module, batch: TrainingBatch, number: int, micro_batch: int) -> Losses:
        seed = derive_step_seed(self._settings.seed, number, rank(), micro_batch)
        enabled = self._dtype != torch.float32
        with seeded(seed, self._device), torch.autocast(self._device.type, self._dtype, enabled=enabled):
            return cast(Losses, module(batch))

    def _measure_loss(self, batch: TrainingBatch) -> Tensor:
        return self._compute_losses(self._model, batch, 0, 0).loss()

    def _run_backward(self, losses: Losses, divisors: Tensor) -> None:
        """Add to the gradients. DDP averages over ranks, but the step's loss is a sum over ranks."""
        loss = losses.loss(dict(zip(losses.parts, divisors, strict=True)))
        factor = world_size() * (1.0 if self._scale is None else self._scale.value)
        (loss if factor == 1 else factor * loss).backward()  # type: ignore[no-untyped-call]


def _sum_totals(losses: Losses) -> Tensor:
    return torch.stack([part.total.detach().float() for part in losses.parts.values()])


def sum_source_losses(losses: Losses, batch: TrainingBatch, sources: int) -> Tensor:
    """Sum the losses and count the rows of each source in a batch of a mixture.

    Args:
        losses: Losses of the batch.
        batch: The batch.
        sources: Number of sources.

    Returns:
        float32 (2 * sources,): first the sums, which are NaN if no part of the loss is a sum over rows, then the
            counts.

    Raises:
        ValueError: The batch does not specify the source of its rows.
    """
    if not isinstance(batch, Batch) or batch.source is None:
        raise ValueError(f"the run has {sources} sources, but its batches have no `source`; leave out sources=")
    found = torch.zeros(2, sources, device=batch.source.device)
    try:
        own = losses.of_samples(len(batch), batch.error_rows)
    except ValueError:
        own = found.new_full((len(batch),), math.nan)
    found[0].index_add_(0, batch.source, own)
    found[1].index_add_(0, batch.source, torch.ones_like(own))
    return found.flatten()
