"""Sizes and lengths that change over the run: what the settings are in each phase, and batches that follow them.

All samples of a batch are drawn at its progress, so a batch is of one phase. Which one follows from its number and the
length of the run. So ranks, workers and a resume agree, and any batch is made without those before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np

from maskstream.pipelines.stream.order import Int64Array
from maskstream.pipelines.stream.rng import run_progress
from maskstream.pipelines.stream.sampler import DraftT, HostT, RequestT, Sampler, Visible, Wanted
from maskstream.pipelines.stream.shares import Schedule
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.config import Config
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Announcement, Range

ConfigT = TypeVar("ConfigT", bound=Config)
OverRun = Mapping[str, Schedule]
"""Settings that change over the run, such as "clip.frames", each with its schedule."""


def split_phases(config: ConfigT, over_run: OverRun, legal: Sequence[str]) -> list[tuple[float, ConfigT]]:
    """The settings in each phase of the run, and the progress at which it begins, the first at 0.

    config: the settings without `over_run`, which are those at the run's end. legal: the settings that may change.
    ValueError for others, for schedules that do not go by steps, and for values that are not legal.
    """
    for name, schedule in over_run.items():
        if name not in legal:
            raise ValueError(f"over_run names {name!r}, which does not change over a run; legal are {', '.join(legal)}")
        own, last = _read(config, name), schedule.at(1.0)
        if own != last:
            raise ValueError(
                f"over_run: {name} ends with {last:g}, and {name}={own:g} is what the run ends with; give both the same"
            )
    starts = sorted({0.0, *(place for one in over_run.values() for place in one.points_of_change if place < 1)})
    found = []
    for start, stop in zip(starts, [*starts[1:], 1.0], strict=True):
        made = config
        for name, schedule in over_run.items():
            value = schedule.at(start)
            if any(schedule.at(start + (stop - start) * part) != value for part in (0.25, 0.5, 0.75, 0.999)):
                raise ValueError(
                    f"over_run: {name} follows {schedule}, which does not go by steps, and all samples of a phase are "
                    "alike; give masks.Piecewise whose lines are level, such as "
                    "Piecewise(points=((0, 8), (0.75, 8), (0.75, 16)))"
                )
            try:
                made = _set_at_path(made, name.split("."), int(value) if value == int(value) else value)
            except ValueError as error:
                raise ValueError(f"over_run: {name}={value:g} from progress {start:g} on: {error}") from error
        found.append((start, made))
    return found


def _read(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _set_at_path(config: ConfigT, path: Sequence[str], value: float) -> ConfigT:
    """The config with another value at a path of fields, which is whole where the one before is."""
    first, *rest = path
    own = getattr(config, first)
    if rest:
        return replace(config, **{first: _set_at_path(own, rest, value)})
    if isinstance(own, float):
        return replace(config, **{first: float(value)})
    return replace(config, **{first: value})


class PhasedRequest(NamedTuple, Generic[RequestT]):
    """A request of a phase."""

    phase: int
    of_phase: RequestT

    @property
    def keys(self) -> Sequence[str]:
        """The keys of the samples."""
        return self.of_phase.keys

    @property
    def ranges(self) -> Sequence[Range]:
        """All that is read of the split."""
        return self.of_phase.ranges


class PhasedDraft(NamedTuple, Generic[DraftT]):
    """The draft of a batch of a phase."""

    phase: int
    of_phase: DraftT


@dataclass(frozen=True, kw_only=True)
class PhasedSampler(Generic[RequestT, DraftT, HostT]):
    """Makes each batch with the sampler of its phase. starts: the progress at which each phase begins."""

    starts: tuple[float, ...]
    samplers: tuple[Sampler[RequestT, DraftT, HostT], ...]

    @property
    def splits(self) -> tuple[Manifest, ...]:
        """The split, which all phases share."""
        return self.samplers[0].splits

    def with_labels(self, names: Sequence[str]) -> Self:
        """The same sampler with the labels of another table of names."""
        return replace(self, samplers=tuple(sampler.with_labels(names) for sampler in self.samplers))

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.samplers[0].seed

    @property
    def needs_progress(self) -> bool:
        """A phase follows from the progress of the run."""
        return True

    @property
    def needs_torch(self) -> bool:
        """Whether a phase is made with torch."""
        return any(sampler.needs_torch for sampler in self.samplers)

    @property
    def together(self) -> int:
        """As many rows as the phase with the fewest."""
        return min(sampler.together for sampler in self.samplers)

    def request(self, wanted: Wanted) -> PhasedRequest[RequestT]:
        """The request of samples of one batch."""
        phase = bisect_right(self.starts, wanted.first.progress) - 1
        return PhasedRequest(phase, self.samplers[phase].request(wanted))

    def announce(self, request: PhasedRequest[RequestT]) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.samplers[request.phase].announce(request.of_phase)

    def allocate(self, requests: Sequence[PhasedRequest[RequestT]]) -> PhasedDraft[DraftT]:
        """The memory of the batch of some requests."""
        phase = requests[0].phase if requests else 0
        return PhasedDraft(phase, self.samplers[phase].allocate([request.of_phase for request in requests]))

    def mask(self, request: PhasedRequest[RequestT], draft: PhasedDraft[DraftT], rows: Sequence[int]) -> None:
        """Draws the masks of samples' rows that need no content."""
        self.samplers[request.phase].mask(request.of_phase, draft.of_phase, rows)

    def fill(
        self, request: PhasedRequest[RequestT], draft: PhasedDraft[DraftT], rows: Sequence[int], stats: Stats
    ) -> None:
        """Fills the rows of samples; SampleError if one is unusable."""
        self.samplers[draft.phase].fill(request.of_phase, draft.of_phase, rows, stats)

    def join(self, draft: PhasedDraft[DraftT]) -> HostT:
        """The host batch."""
        return self.samplers[draft.phase].join(draft.of_phase)


@dataclass(frozen=True, kw_only=True)
class PhasedVisible:
    """The visible tokens of a sample at each step, by its phase."""

    starts: tuple[float, ...]
    each: tuple[Visible, ...]

    def __call__(self, steps: int) -> Int64Array:
        """See Visible."""
        counts = np.stack([visible(steps) for visible in self.each])
        progress = [run_progress(step, steps) for step in range(steps)]
        phase = np.searchsorted(np.array(self.starts), np.array(progress), side="right") - 1
        found: Int64Array = counts[phase, np.arange(steps)]
        return found
