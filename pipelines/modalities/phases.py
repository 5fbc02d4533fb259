"""Settings that change over the run: their values in each phase, and batches that follow them.

All samples of a batch are drawn at its progress, so each batch belongs to one phase, which follows from its number and
the length of the run. Thus ranks, workers and a resume agree, and any batch can be created without the previous ones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np

from maskstream.pipelines.stream.rng import run_progress
from maskstream.pipelines.stream.sampler import DraftT, HostT, RequestT, Sampler, Visible, Wanted
from maskstream.pipelines.stream.shares import Schedule
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Int64s
from maskstream.shards.config import Config
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Announcement, Range

ConfigT = TypeVar("ConfigT", bound=Config)
OverRun = Mapping[str, Schedule]
"""Schedules of settings that change over the run, by name, such as "clip.frames"."""


def split_phases(config: ConfigT, over_run: OverRun, legal: Sequence[str]) -> list[tuple[float, ConfigT]]:
    """Return the settings of each phase and the progress at which it starts; the first starts at 0.

    Args:
        config: Settings at the end of the run, without `over_run`.
        over_run: Schedules of the settings that change.
        legal: Names of the settings that may change.

    Raises:
        ValueError: A setting may not change, a schedule is not piecewise constant, or a value is not allowed.
    """
    for name, schedule in over_run.items():
        if name not in legal:
            raise ValueError(
                f"over_run contains {name!r}, which cannot change during a run; expected {', '.join(legal)}"
            )
        own, last = _read(config, name), schedule.at(1.0)
        if own != last:
            raise ValueError(
                f"over_run: {name} ends at {last:g}, but {name}={own:g} is the value at the end of the run; "
                "set both to the same value"
            )
    starts = sorted({0.0, *(place for one in over_run.values() for place in one.points_of_change if place < 1)})
    found = []
    for start, stop in zip(starts, [*starts[1:], 1.0], strict=True):
        made = config
        for name, schedule in over_run.items():
            value = schedule.at(start)
            if any(schedule.at(start + (stop - start) * part) != value for part in (0.25, 0.5, 0.75, 0.999)):
                raise ValueError(
                    f"over_run: {name} follows {schedule}, which is not piecewise constant; use steps such as "
                    "masks.Piecewise(points=((0, 8), (0.75, 8), (0.75, 16)))"
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
    """Return the config with one nested field changed; the value becomes an int if the field is one."""
    first, *rest = path
    own = getattr(config, first)
    if rest:
        return replace(config, **{first: _set_at_path(own, rest, value)})
    if isinstance(own, float):
        return replace(config, **{first: float(value)})
    return replace(config, **{first: value})


class PhasedRequest(NamedTuple, Generic[RequestT]):
    """Request of samples in a phase."""

    phase: int
    of_phase: RequestT

    @property
    def keys(self) -> Sequence[str]:
        """Keys of the samples."""
        return self.of_phase.keys

    @property
    def ranges(self) -> Sequence[Range]:
        """Byte ranges that are read from the split."""
        return self.of_phase.ranges


class PhasedDraft(NamedTuple, Generic[DraftT]):
    """Draft of a batch in a phase."""

    phase: int
    of_phase: DraftT


@dataclass(frozen=True, kw_only=True)
class PhasedSampler(Generic[RequestT, DraftT, HostT]):
    """Creates each batch with the sampler of its phase."""

    starts: tuple[float, ...]
    """Progress at which each phase starts."""
    samplers: tuple[Sampler[RequestT, DraftT, HostT], ...]

    @property
    def splits(self) -> tuple[Manifest, ...]:
        """The split, shared by all phases."""
        return self.samplers[0].splits

    def with_labels(self, names: Sequence[str]) -> Self:
        """Return the same sampler with labels from another name table."""
        return replace(self, samplers=tuple(sampler.with_labels(names) for sampler in self.samplers))

    @property
    def seed(self) -> int:
        """Seed of all draws."""
        return self.samplers[0].seed

    @property
    def needs_progress(self) -> bool:
        """Always true: the phase depends on the progress of the run."""
        return True

    @property
    def needs_torch(self) -> bool:
        """True if any phase needs torch."""
        return any(sampler.needs_torch for sampler in self.samplers)

    @property
    def together(self) -> int:
        """Smallest number of rows over the phases."""
        return min(sampler.together for sampler in self.samplers)

    def request(self, wanted: Wanted) -> PhasedRequest[RequestT]:
        """Plan samples of one batch."""
        phase = bisect_right(self.starts, wanted.first.progress) - 1
        return PhasedRequest(phase, self.samplers[phase].request(wanted))

    def announce(self, request: PhasedRequest[RequestT]) -> Announcement:
        """Announce that the ranges of a request will be read soon."""
        return self.samplers[request.phase].announce(request.of_phase)

    def allocate(self, requests: Sequence[PhasedRequest[RequestT]]) -> PhasedDraft[DraftT]:
        """Allocate the batch of some requests."""
        phase = requests[0].phase if requests else 0
        return PhasedDraft(phase, self.samplers[phase].allocate([request.of_phase for request in requests]))

    def mask(self, request: PhasedRequest[RequestT], draft: PhasedDraft[DraftT], rows: Sequence[int]) -> None:
        """Draw the masks that do not depend on the samples' content."""
        self.samplers[request.phase].mask(request.of_phase, draft.of_phase, rows)

    def fill(
        self, request: PhasedRequest[RequestT], draft: PhasedDraft[DraftT], rows: Sequence[int], stats: Stats
    ) -> None:
        """Fill the rows of samples.

        Raises:
            SampleError: A sample is unusable.
        """
        self.samplers[draft.phase].fill(request.of_phase, draft.of_phase, rows, stats)

    def join(self, draft: PhasedDraft[DraftT]) -> HostT:
        """Finish the host batch."""
        return self.samplers[draft.phase].join(draft.of_phase)


@dataclass(frozen=True, kw_only=True)
class PhasedVisible:
    """Visible tokens of a sample at each step, by phase."""

    starts: tuple[float, ...]
    each: tuple[Visible, ...]

    def __call__(self, steps: int) -> Int64s:
        """See Visible."""
        counts = np.stack([visible(steps) for visible in self.each])
        progress = [run_progress(step, steps) for step in range(steps)]
        phase = np.searchsorted(np.array(self.starts), np.array(progress), side="right") - 1
        found: Int64s = counts[phase, np.arange(steps)]
        return found
