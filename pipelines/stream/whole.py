"""Samplers that still make samples one by one, as samplers with stages; gone when the last modality has its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from ...shards.stores.base import Range
from .place import Place
from .sampler import BatchT_co, Wanted
from .stats import Stats


class SampleMaker(Protocol[BatchT_co]):
    """`make` raises SampleError for a sample that cannot be used."""

    @property
    def seed(self) -> int: ...

    @property
    def needs_progress(self) -> bool: ...

    def make(self, index: int, epoch: int, place: Place) -> Any: ...

    def collate(self, samples: list[Any]) -> BatchT_co: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeRequest:
    """A sample; where its bytes lie is not known."""

    wanted: Wanted
    ranges: Sequence[Range] = ()


@dataclass(frozen=True, slots=True)
class Whole(Generic[BatchT_co]):
    """The stages of `of`, which does all of them in `fill`."""

    of: SampleMaker[BatchT_co]

    @property
    def seed(self) -> int:
        """The maker's."""
        return self.of.seed

    @property
    def needs_progress(self) -> bool:
        """As the maker's."""
        return self.of.needs_progress

    def request(self, wanted: Wanted) -> WholeRequest:
        """Nothing is drawn yet."""
        return WholeRequest(wanted=wanted)

    def allocate(self, rows: int) -> list[Any]:
        """A place for each sample."""
        return [None] * rows

    def mask(self, request: WholeRequest, draft: list[Any], row: int) -> None:
        """Masks are drawn in `fill`."""

    def fill(self, request: WholeRequest, draft: list[Any], row: int, stats: Stats) -> None:
        """Makes the sample."""
        wanted = request.wanted
        draft[row] = self.of.make(wanted.index, wanted.epoch, wanted.place)
        own: Stats = draft[row].stats
        own.samples = 0
        stats.add(own)

    def join(self, draft: list[Any]) -> BatchT_co:
        """Joins them."""
        return self.of.collate(draft)
