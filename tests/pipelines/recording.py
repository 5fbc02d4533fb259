"""A store that notes what is read, and the promise that all of it was announced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskstream.pipelines.modalities.rows import Elsewhere
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Range, ShardFile, Store
from maskstream.shards.stores.local import LocalStore


class RecordingStore(LocalStore):
    """Reads a folder and notes each range that is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read_ranges: list[Range] = []

    def read(self, name: str, offset: int, size: int) -> bytes:
        self.read_ranges.append(Range(name, offset, size))
        return super().read(name, offset, size)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        return [self.read(*one) for one in ranges]

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> Store:
        return self


def recorded(folder: Path, modality: str) -> tuple[Split, RecordingStore]:
    """The split in a folder, and the store that it is read through."""
    store = RecordingStore(folder)
    opened = Split.open(folder, modality, device="cpu", seed=4)
    return replace(opened, manifest=Manifest.open(store)), store


def lies_within(read: Range, announced: Iterable[Range]) -> bool:
    """Whether every byte of a range is in one of the announced ones."""
    at, end = read.offset, read.offset + read.size
    for name, begin, size in sorted(announced):
        if name == read.name and begin <= at < begin + size:
            at = begin + size
    return at >= end


def check_what_is_read(sampler: Any, store: RecordingStore, n: int, *others: RecordingStore) -> None:
    """Every byte that `fill` reads of the first n samples, in two epochs, lies in the ranges of its request.

    others: the stores of other datasets, whose ranges the request names apart.
    """
    for index in range(n):
        for epoch in range(2):
            for each in (store, *others):
                each.read_ranges.clear()
            request = sampler.request(Wanted.of([index], epoch))
            draft = sampler.allocate([request])
            sampler.mask(request, draft, [0])
            assert not any(each.read_ranges for each in (store, *others)), "nothing is read before a row is filled"
            sampler.fill(request, draft, [0], Stats())
            (plan,) = request.plans
            elsewhere = [plan.elsewhere] if isinstance(plan, Elsewhere) and plan.elsewhere is not None else []
            assert [each for each, _ in elsewhere] == [*others]
            for each, announced in ((store, request.ranges), *elsewhere):
                assert each.read_ranges
                outside = [read for read in each.read_ranges if not lies_within(read, announced)]
                assert not outside, (each.location, outside, announced)
