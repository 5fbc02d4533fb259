"""Number of samples that each part of a mixture has contributed before any point, with scheduled weights, in integers.

The rates of the parts are sampled at points of the run and interpolated linearly. A part's count before any point is
then an integral in closed form, and points are found by bisection. All arithmetic uses integers, so it is the same on
every machine, and nothing is counted from the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice, pairwise
from math import ceil, nextafter

import numpy as np

from maskstream.shards.arrays import Int64s
from maskstream.shards.config import Config

_UNIT = 1 << 40  # for rates; sums have one bit more, for the mean of two rates
_LONGEST = 1 << 30  # cycle of integer weights
_POINTS = 2048  # points of a run at which rates are evaluated, in addition to the schedules' points


class Schedule(Config, ABC):
    """Base class of numbers that follow the progress of the run, such as `masks.Linear` and `masks.Piecewise`."""

    __slots__ = ()

    @property
    def points_of_change(self) -> tuple[float, ...]:
        """Progress values at which the schedule bends or jumps."""
        return ()

    @abstractmethod
    def at(self, progress: float) -> float:
        """Return the value at `progress` in [0, 1], 0 at the first batch and 1 at the last; at a jump, the value after
        it.
        """


def find_schedules(config: Config) -> list[Schedule]:
    """Find the schedules in a config at any depth; a schedule itself is one."""
    if isinstance(config, Schedule):
        return [config]
    found, left = list[Schedule](), [getattr(config, f.name) for f in fields(config)]
    while left:
        value = left.pop()
        if isinstance(value, Config):
            found += find_schedules(value)
        elif isinstance(value, tuple | list):
            left += value
        elif isinstance(value, Mapping):
            left += value.values()
    return found


def list_points(schedules: Sequence[Schedule]) -> tuple[float, ...] | None:
    """Return the progress values at which any schedule bends or jumps; None without schedules."""
    return tuple(p for one in schedules for p in one.points_of_change) if schedules else None


Rates = Callable[[float, Sequence[bool]], Sequence[float]]
"""Returns each part's samples per time unit at a progress; the second argument marks the parts that
are not exhausted.
"""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Time span from `start` in which rates change linearly from `first` to `last` over `length` units; it may end
    earlier.

    `before` is the count of each part at its start, in 1 / (2 _UNIT); with `length` None, rates are constant.
    """

    start: int
    length: int | None
    before: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]

    def given(self, part: int, units: int) -> int:
        """Return a part's count `units` after the start: the integral of a linear function, rounded down."""
        first = self.first[part]
        bend = 0 if self.length is None else (self.last[part] - first) * units * units // self.length
        return self.before[part] + 2 * first * units + bend


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """Counts of several parts before any time, with rates that change over `length` units of time and then stay
    constant.

    Raises:
        ValueError: Rates are negative, not finite, or all 0.
    """

    rates: Rates
    """Rates of the parts; see `Rates`."""
    points: tuple[float, ...] | None
    """Progress values at which rates bend, in addition to `n_points` others; None if they are constant."""
    length: int | None
    """Time over which rates change."""
    limits: tuple[int | None, ...]
    """Maximum count of each part; None for no limit."""
    whole: bool = True
    """True if the parts together contribute one sample per time unit, so that `counts` can be used."""
    n_points: int = _POINTS
    grain: int = 1
    """Rates change only at multiples of it; `length` is one."""
    _pieces: tuple[_Piece, ...] = field(init=False, repr=False, compare=False)
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pieces = tuple(self._made())
        object.__setattr__(self, "_pieces", pieces)
        object.__setattr__(self, "_starts", tuple(piece.start for piece in pieces))

    def given(self, time: int) -> list[int]:
        """Return each part's count before a time, rounded to the nearest integer."""
        piece = self._pieces[bisect_right(self._starts, time) - 1]
        units = time - piece.start
        counts = [(piece.given(part, units) + _UNIT) // (2 * _UNIT) for part in range(len(self.limits))]
        return [n if most is None else min(n, most) for n, most in zip(counts, self.limits, strict=True)]

    def counts(self, samples: int) -> Int64s:
        """Return how many of the first `samples` samples come from each part, int64 (parts,)."""
        time, counts = self._time(samples)
        for part in islice(self._find_due(counts, time), samples - sum(counts)):
            counts[part] += 1
        return np.array(counts, np.int64)

    def parts(self, begin: int, end: int) -> Int64s:
        """Return the part of each of the samples [begin, end), int64 (end - begin,)."""
        time, counts = self._time(begin)
        skipped, parts = begin - sum(counts), list[int]()
        while len(parts) < end - begin + skipped:
            parts += self._find_due(counts, time)
            time, counts = time + 1, self.given(time + 1)
        return np.array(parts[skipped : skipped + end - begin], np.int64)

    def _time(self, samples: int) -> tuple[int, list[int]]:
        """Return the last time before which at most `samples` samples are due, and the count of each part then."""
        # Sample i of a part is due when its count reaches i + 1/2. The number of due samples equals the time up to half
        # a sample per part, so the time is close to the number.
        low, high = max(samples - len(self.limits), 0), samples + len(self.limits) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if sum(self.given(middle)) <= samples else (low, middle)
        return low, self.given(low)

    def _find_due(self, counts: Sequence[int], time: int) -> Iterator[int]:
        """Yield the parts whose next sample is due in the unit after `time`, in order."""
        after = self.given(time + 1)
        return (part for part, (old, new) in enumerate(zip(counts, after, strict=True)) if new > old)

    def _made(self) -> Iterator[_Piece]:
        alive = [most is None or most > 0 for most in self.limits]
        before: tuple[int, ...] = (0,) * len(self.limits)
        for start, end, begin, until in self._spans():
            while end is None or start < end:
                first = self._round_rates(begin, alive)
                length = None if end is None else end - start
                last = first
                if length is not None:  # a jump at `until` belongs to the next span
                    last = self._round_rates(nextafter(until, 0.0) if until in (self.points or ()) else until, alive)
                piece = _Piece(start, length, before, first, last)
                yield piece
                stop = self._stop(piece, alive)
                if stop is None:
                    if length is None:
                        return
                    stop = length
                before = tuple(piece.given(part, stop) for part in range(len(before)))
                alive = [
                    is_alive and (most is None or before[part] < (2 * most - 1) * _UNIT)
                    for part, (is_alive, most) in enumerate(zip(alive, self.limits, strict=True))
                ]
                start += stop
                begin = until if length is None or self.length is None else start / self.length

    def _spans(self) -> Iterator[tuple[int, int | None, float, float]]:
        """Yield the spans of time between points: start, end, and the progress there; the last one has no end."""
        if self.length is None or self.points is None:
            yield 0, None, 0.0, 0.0
            return
        grid = (k / self.n_points for k in range(self.n_points + 1))
        for begin, until in pairwise(sorted({*grid, *(p for p in self.points if 0 < p < 1)})):
            yield self._round_to_tick(begin), self._round_to_tick(until), begin, until
        yield self.length, None, 1.0, 1.0

    def _round_to_tick(self, progress: float) -> int:
        """Return the multiple of `grain` nearest to a progress; the earlier of two."""
        return max(ceil(progress * (self.length or 0) / self.grain - 0.5), 0) * self.grain

    def _stop(self, piece: _Piece, alive: Sequence[bool]) -> int | None:
        """Return the units after which the first part reaches its limit; None if none does within the piece."""
        found = None if piece.length is None else piece.length + 1
        for part, most in enumerate(self.limits):
            if most is None or not alive[part]:
                continue
            goal = (2 * most - 1) * _UNIT
            if piece.length is None:
                rate = 2 * piece.first[part]
                units = -(-(goal - piece.before[part]) // rate) if rate else None
            else:
                units = _find_first_unit(piece, part, goal)
            if units is not None:
                found = units if found is None else min(found, units)
        return None if piece.length is not None and found is not None and found > piece.length else found

    def _round_rates(self, progress: float, alive: Sequence[bool]) -> tuple[int, ...]:
        """Return the rates at a progress in 1 / _UNIT."""
        rates = list(self.rates(progress, alive))
        if not all(np.isfinite(rate) and rate >= 0 for rate in rates) or not sum(rates) > 0:
            raise ValueError(
                f"at progress {progress:.6g} of the run, the weights of the parts with samples left result in the "
                f"rates {rates}; weights must be finite numbers of at least 0, and not all 0"
            )
        # Rounded, since the last bit of a power or cosine may differ between machines, and counts must not.
        units = [int(round(rate, 12) * _UNIT) for rate in rates]
        if self.whole:
            units[int(np.argmax(units))] += _UNIT - sum(units)
        return tuple(units)


def _find_first_unit(piece: _Piece, part: int, goal: int) -> int | None:
    """Return the first number of units after which a part's count reaches `goal`; None if that is after the piece."""
    low, high = -1, piece.length or 0
    if piece.given(part, high) < goal:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if piece.given(part, middle) >= goal else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class Cycle:
    """Constant weights: of every sum(weights) samples, weights[k] come from part k, evenly spread."""

    weights: tuple[int, ...]
    cycle: Int64s = field(init=False, repr=False, compare=False)
    """int64 (sum of weights,): part of each sample in one period."""

    def __post_init__(self) -> None:
        if sum(self.weights) > _LONGEST:
            raise ValueError(
                f"integer weights must sum to at most {_LONGEST:,}, because samples are dealt one by one; "
                "divide them by a common factor, or use fractions such as 0.7 and 0.3"
            )
        # Sample i of a part is due at (i + 0.5) / weight.
        due = np.concatenate([(np.arange(w) + 0.5) / w for w in self.weights])
        cycle = np.repeat(np.arange(len(self.weights)), self.weights)[np.argsort(due, kind="stable")]
        object.__setattr__(self, "cycle", cycle)

    def counts(self, samples: int) -> Int64s:
        """Return how many of the first `samples` samples come from each part, int64 (parts,)."""
        rounds, rest = divmod(samples, len(self.cycle))
        return rounds * np.asarray(self.weights) + np.bincount(self.cycle[:rest], minlength=len(self.weights))

    def parts(self, begin: int, end: int) -> Int64s:
        """Return the part of each of the samples [begin, end), int64 (end - begin,)."""
        return np.take(self.cycle, np.arange(begin, end), mode="wrap")
