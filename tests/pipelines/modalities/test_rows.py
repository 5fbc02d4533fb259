"""The sampler of all modalities, by one that is made up: the size of a member of a sample, in each of its views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from maskstream.pipelines.masks import Cues, Draw, Mask, MaskBatch, TokenGrid
from maskstream.pipelines.modalities.data import RowConfig
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.rows import BatchRows, Items, Masked, Memory, SampleRows, Traits
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import DataError
from maskstream.shards.stores.base import Range

from ..every_modality import write_split

GRID = TokenGrid(axes=("token",), shape=(8,), patch=(1,))
BAD = ("s2", "s7")
CALLS: list[str] = []


@dataclass(frozen=True, kw_only=True, slots=True)
class Lot(Mask):
    """Hides four tokens at random."""

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        CALLS.append(f"mask {draw.key} {draw.view} {draw.part}")
        return draw.rng.permutation(grid.size) < 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked(Mask):
    """Hides the four tokens that its cue marks."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"occupied"})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        CALLS.append(f"mask {draw.key} {draw.view} {draw.part}")
        return np.array(draw.cues.need("occupied", "Marked"), dtype=np.bool_)


@dataclass(frozen=True, kw_only=True, slots=True)
class SizePlan:
    ranges: tuple[Range]


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeBatch(Batch):
    """size: int64 (B, 2), the bytes of the member and a number that the view draws."""

    size: Tensor
    early: MaskBatch | None
    late: MaskBatch | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeData(RowConfig[SizePlan, SizeBatch]):
    modality: ClassVar[str] = "image"
    alike: ClassVar[tuple[str, ...]] = ()

    views: int = 2
    bad: tuple[str, ...] = ()
    fields: Fields = ("width",)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        return {"tokens": GRID}

    @property
    def masks(self) -> tuple[Masked, ...]:
        return Masked("early", Lot(), GRID, "a"), Masked("late", Marked(), GRID, "b")

    def plan(self, items: Items) -> list[SizePlan]:
        CALLS.append(f"plan {' '.join(items.keys)}")
        return [SizePlan(ranges=(item.manifest.member(item.index, "jpg"),)) for item in items]

    def layout(self, memory: Memory[SizePlan]) -> SizeBatch:
        CALLS.append(f"layout {len(memory.plans)} {memory.rows}")
        return SizeBatch(size=memory(np.int64, 2), early=None, late=None, key=memory.key, label=memory.label)

    def fill(self, rows: BatchRows[SizePlan], batch: SizeBatch, stats: Stats) -> None:
        CALLS.append(f"fill {' '.join(rows.items.keys)}")
        for item, plan, own in rows:
            (data,) = item.read(plan.ranges, stats)
            own.of(batch.size)[:] = -1
            with item.manifest.reading(item.index, "jpg"):
                if item.key in self.bad:
                    raise DataError("is not wanted here")
            own.of(batch.size)[:, 0] = len(data)
            own.of(batch.size)[:, 1] = [int(rng.integers(1000)) for rng in item.rngs("number")]

    def cues(
        self, rows: BatchRows[SizePlan], batch: SizeBatch, n: int, view: int, part: str, needs: frozenset[str]
    ) -> Cues:
        CALLS.append(f"cues {rows.items.keys[n]} {part}")
        drawn = int(batch.size[rows.starts[n] + view, 1])
        return Cues(occupied=np.roll(np.arange(8) < 4, drawn))

    def join(self, batch: SizeBatch, plans: Iterable[SizePlan], made: Mapping[str, Any]) -> SizeBatch:
        CALLS.append(f"join {len(list(plans))} {' '.join(made)}")
        return replace(batch, **made)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split("image", tmp_path_factory.mktemp("rows"))


def split_of(folder: Path) -> Split:
    return Split.open(folder, "image", device="cpu", seed=3, shuffle=False)


def test_the_calls_of_a_batch_and_their_order(images: Path) -> None:
    sampler = SizeData().sampler(split_of(images))
    CALLS.clear()
    stats = Stats()
    batch = batch_of(sampler, Wanted.of((0, 4)), stats)

    def of(key: str) -> list[str]:
        early = [f"mask {key} {view} a" for view in range(2)]
        return [*early, f"fill {key}", *(one for view in range(2) for one in (f"cues {key} b", f"mask {key} {view} b"))]

    assert ["plan s0", "plan s4", "layout 2 4", *of("s0"), *of("s4"), "join 2 early late fields"] == CALLS
    assert batch.key == ["s0", "s0", "s4", "s4"]
    manifest = sampler.manifest
    assert batch.label.tolist() == np.repeat(manifest.label[[0, 4]], 2).tolist()
    sizes = [manifest.member(index, "jpg").size for index in (0, 4)]
    assert batch.size[:, 0].tolist() == np.repeat(sizes, 2).tolist()
    fields = [manifest.member(index, "json").size for index in (0, 4)]
    assert stats.read_bytes == sum(sizes) + sum(fields)
    assert len(batch.fields["width"]) == 4


def test_the_rows_of_a_sample_are_views_of_the_arrays_that_its_batch_keeps() -> None:
    memory = Memory([SizePlan(ranges=()), SizePlan(ranges=())], 4)
    tensor, part = memory(np.int64, 2), memory.of([None, None])(np.float32)  # type: ignore[list-item]
    own = SampleRows(2, 4, memory.arrays)
    for one in (tensor, part):
        one.zero_()
        assert own.whole(one) is own.whole(one)
        own.of(one)[:] = 7
        assert one.reshape(4, -1)[:, 0].tolist() == [0, 0, 7, 7]
    other = torch.zeros(4)
    own.of(other)[:] = 7
    assert other.tolist() == [0, 0, 7, 7]


def test_masks_that_need_content_follow_the_row_that_was_filled(images: Path) -> None:
    batch = batch_of(SizeData().sampler(split_of(images)), Wanted.of([1], 5))
    assert batch.early is not None
    assert batch.late is not None
    for row, drawn in enumerate(batch.size[:, 1].tolist()):
        assert batch.late.masked[row].tolist() == np.roll(np.arange(8) < 4, drawn).tolist()
    assert batch.size[0, 1] != batch.size[1, 1]
    assert not torch.equal(batch.early.masked[0], batch.early.masked[1])


def test_nothing_is_left_of_a_bad_sample(images: Path) -> None:
    options = {"batch_size": 5, "threads": 1, "device": "cpu", "shuffle": False, "max_bad_fraction": 1.0}
    shown = [own for batch in SizeData(bad=BAD).loader(images, **options) for own in rows_of(batch)]
    assert len(shown) == 30
    assert not {key for key, _ in shown} & set(BAD)
    sampler = SizeData().sampler(Split.open(images, "image", device="cpu"))
    for at in range(0, len(shown), 2):
        alone = batch_of(sampler, Wanted.of([int(shown[at][0][1:])]))
        assert shown[at : at + 2] == rows_of(alone)


@dataclass(frozen=True, kw_only=True, slots=True)
class SizesTogether(SizeData):
    @property
    def traits(self) -> Traits:
        """Four samples at once."""
        return Traits(together=4)


def test_samples_that_are_filled_together_are_replaced_one_by_one(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"batch_size": 6, "threads": 2, "device": "cpu", "seed": 2, "max_bad_fraction": 1.0}
    alone, together = (data(bad=BAD).loader(images, **options) for data in (SizeData, SizesTogether))
    assert [rows_of(batch) for batch in together] == [rows_of(batch) for batch in alone]
    for name in ("samples", "bad", "read_bytes"):
        assert together.stats()[name] == alone.stats()[name]
    assert alone.stats()["bad"] >= len(BAD)
    filled: list[int] = []
    fill = SizeData.fill
    monkeypatch.setattr(
        SizeData, "fill", lambda self, rows, *rest: (filled.append(len(rows.plans)), fill(self, rows, *rest))
    )
    for _ in together:
        pass
    assert {*filled} == {1, 2, 4}


def rows_of(batch: SizeBatch) -> list[tuple[str, list[object]]]:
    assert batch.early is not None
    assert batch.late is not None
    columns = (batch.label, batch.size, batch.early.masked, batch.late.masked, batch.fields["width"])
    return [(key, [list(map(str, column))[n] for column in columns]) for n, key in enumerate(batch.key)]


@pytest.mark.slow
def test_a_worker_makes_the_same_batches(images: Path) -> None:
    options = {"batch_size": 4, "device": "cpu", "seed": 6}
    here = SizeData().loader(images, threads=1, **options)
    there = SizeData().loader(images, workers=1, **options)
    try:
        pairs = list(islice(zip(here, there, strict=True), 2))
        assert [rows_of(one) for one, _ in pairs] == [rows_of(other) for _, other in pairs]
    finally:
        there.close()


def test_masks_of_a_budget_are_those_of_all_parts(images: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a token budget requires masks that need no inputs, but Marked\(\) needs occupied"
    ):
        SizeData().loader(images, batch_size=1, device="cpu", token_budget=100, steps=5)
