"""Packed rows of several splits, and of sizes and ratios that change: exact at any place and topology, and full."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from maskstream.pipelines import (
    Loader,
    PackedBatch,
    PackedData,
    Split,
    VideoClip,
    augment,
    masks,
    mix,
    packed_loader,
)
from maskstream.pipelines.augment import Native
from maskstream.pipelines.masks import Linear, Piecewise
from maskstream.pipelines.stream.order import GlobalBatch
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.row_mix import RowMix, RowMixOrder
from maskstream.pipelines.stream.row_order import BLOCK_ROWS, Room, RowSizes
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.samples import SplitSamples
from maskstream.pipelines.stream.weights import find_part
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.source import Source as Raw
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.sample import Sample

from ....splits import write_samples
from ...contract import check_relay
from ...small_media import packed_rows
from .small_kinds import sound_sample, video_sample, written

NATIVE = Native(patch=8, least=4, most=Piecewise(points=((0.0, 16.0), (0.5, 16.0), (0.5, 64.0))))
STEPS = 120


class Kind:
    """Samples of t x h x w tokens, of which a share is visible; h and w grow by a factor over the run."""

    def __init__(self, n: int, times: int, share: int, grows: float = 1.0, progress: float = 0.0) -> None:
        self.n, self.times, self.share, self.grows, self.progress = n, times, share, grows, progress

    @property
    def points_of_change(self) -> tuple[float, ...] | None:
        return None if self.grows == 1 else ()

    def at(self, progress: float) -> "Kind":
        return Kind(self.n, self.times, self.share, self.grows, progress)

    def sizes(self, samples: GlobalBatch) -> RowSizes:
        numbers = np.random.default_rng(self.times).random((self.n, 3))[samples.indexes]
        sides = 6 * 4 ** numbers[:, :2] * (1 + (self.grows - 1) * self.progress)
        times = 1 + (numbers[:, 2] * self.times).astype(np.int64)
        shape = np.concatenate([times[:, None], sides.astype(np.int64)], axis=1)
        tokens = shape.prod(axis=1)
        visible = np.maximum(tokens // self.share, 1)
        return RowSizes(shape=shape, visible=visible, target=None, pixels=tokens * 256)


def mixture(weights: Sequence[Any], steps: int | None = STEPS, grows: float = 1.0, **changes: Any) -> RowMixOrder:
    kinds = (Kind(900, 0, 4), Kind(300, 12, 10, grows), Kind(500, 5, 5))
    parts = tuple(SplitSamples(shard_sizes=(kind.n,), seed=i) for i, kind in enumerate(kinds))
    settings: dict[str, Any] = {"room": Room(tokens=2048), "length": STEPS, **changes}
    return RowMix(parts=parts, weights=tuple(weights), sizers=kinds, **settings).order(16, steps)


def taken(order: RowMixOrder, batches: Sequence[GlobalBatch]) -> tuple[np.ndarray, np.ndarray, float]:
    """The part of each sample, its visible tokens, and the share of the rows that is empty."""
    rows = [row for batch in batches for row in batch.packed or ()]
    indexes, visible = (np.concatenate([getattr(row, name) for row in rows]) for name in ("indexes", "visible"))
    of = np.searchsorted(order.samples.starts, indexes, side="right") - 1
    return of, visible, 1 - float(visible.sum()) / (len(rows) * order.samples.room.tokens)


@pytest.mark.parametrize("grows", [1.0, 1.8])
def test_weights_are_shares_of_samples_or_of_tokens_and_rows_are_full(grows: float) -> None:
    for unit in ("samples", "tokens"):
        order = mixture((3, 1, 1), unit=unit, grows=grows)
        of, visible, empty = taken(order, list(order.batches(0)))
        shares = np.bincount(of, weights=None if unit == "samples" else visible) / (
            len(of) if unit == "samples" else visible.sum()
        )
        assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.015)
        assert empty < 0.01


def test_weights_by_schedules_are_followed_row_by_row() -> None:
    order = mixture((Linear(start=1.0, end=0.0), Linear(start=0.0, end=1.0), 1), unit="tokens")
    for at in (0, 30, 60, 90):
        batches = list(islice(order.batches(0, at), 24))
        of, visible, empty = taken(order, batches)
        middle = (at + 12) / STEPS
        shares = np.bincount(of, weights=visible, minlength=3) / visible.sum()
        assert shares == pytest.approx([(1 - middle) / 2, middle / 2, 0.5], abs=0.05)
        assert empty < 0.01


def test_any_position_gives_the_rows_that_a_whole_run_does() -> None:
    order = mixture((Linear(start=1.0, end=0.2), 1, Piecewise(points=((0.3, 1.0), (0.3, 2.0)))), grows=1.5)
    whole = list(order.batches(0))
    assert len({batch.packed[0].progress for batch in whole if batch.packed}) > 20
    for first in (0, 1, 37, 80, 119):
        for mine, theirs in zip(whole[first:], islice(order.batches(0, first), 3), strict=False):
            for a, b in zip(mine.packed or (), theirs.packed or (), strict=True):
                assert all((getattr(a, name) == getattr(b, name)).all() for name in ("indexes", "epochs", "visible"))
                assert (a.progress, a.shape.tolist()) == (b.progress, b.shape.tolist())
    assert [b.packed[0].indexes.tolist() for b in islice(order.batches(1), 2) if b.packed] != [
        b.packed[0].indexes.tolist() for b in whole[:2] if b.packed
    ]


def test_a_split_that_ends_leaves_its_room_to_the_others() -> None:
    order = mixture((1, 1, 1), steps=None, epochs=(None, 2, None))
    batches = list(order.batches(0))
    of, _, empty = taken(order, batches)
    indexes = np.concatenate([row.indexes for b in batches for row in b.packed or ()])
    epochs = np.concatenate([row.epochs for b in batches for row in b.packed or ()])
    assert set(epochs[of == 1].tolist()) == {0, 1}
    assert 590 <= np.count_nonzero(of == 1) <= 600  # a few fit nowhere
    assert len({(i, e) for i, e in zip(indexes.tolist(), epochs.tolist(), strict=True)}) == len(indexes)
    assert empty < 0.01
    assert order.position(0, 100)["positions"][1] == {"epoch": 2, "sample": 0}


def made(folder: Path, prefix: str, n: int, side: Callable[[np.random.Generator], int]) -> Path:
    raw, out = folder / f"raw-{prefix}", folder / prefix
    for one in (raw, out):
        one.mkdir()
    samples = []
    for i in range(n):
        rng = np.random.default_rng([ord(prefix), i])
        pixels = rng.integers(0, 256, (side(rng), side(rng), 3), dtype=np.uint8)
        cv2.imwrite(str(raw / f"{i}.png"), pixels)
        members = ImageEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.png")).members
        samples.append(Sample(key=f"{prefix}{i}", members=members, source=f"{i}", label=i % 3))
    return write_samples(out, samples, "image", dataset=prefix, label_names=("a", "b", "c"))


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two sets of pictures: small ones, and larger ones."""
    folder = tmp_path_factory.mktemp("row-mix")
    small = made(folder, "s", 200, lambda rng: int(rng.integers(17, 50)))
    return small, made(folder, "l", 160, lambda rng: int(rng.integers(40, 120)))


def opened(splits: tuple[Path, Path], **changes: Any) -> Loader[PackedBatch]:
    pairs = [(splits[0], Linear(start=0.9, end=0.1)), (splits[1], 1)]
    chosen: dict[str, Any] = {
        "native": NATIVE,
        "mask": masks.Random(ratio=Linear(start=0.7, end=0.5)),
        "row_tokens": 64,
        "rows": 6,
        "steps": 60,
        "unit": "tokens",
        "device": "cpu",
        "threads": 1,
    }
    return packed_loader(pairs, **(chosen | changes))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_mixture_that_changes_resumes_at_any_topology(splits: tuple[Path, Path], workers: int) -> None:
    legs = ((2, workers, 3), (3, 0, 6), (6, 0, 9))
    state = check_relay(partial(opened, splits), packed_rows, batch_size=6, legs=legs, size="rows")
    for changes, says in [
        ({"steps": 61}, "steps: saved 60, here 61"),
        ({"unit": "samples"}, "unit: saved tokens, here samples"),
        ({"native": replace(NATIVE, most=16)}, r"data\.native\.most"),
        ({"mask": masks.Random(ratio=Linear(start=0.6, end=0.5))}, "start: saved 0.7, here 0.6"),
        ({"balance": 1}, "balance: saved 8, here nothing.* Pass balance=8"),
    ]:
        with pytest.raises(ResumeError, match=says):
            opened(splits, **changes).load_state_dict(state)
    without = {name: value for name, value in state.items() if name != "balance"}  # as before there were windows
    with pytest.raises(ResumeError, match=r"balance: saved nothing, here 8.* Pass balance=1"):
        opened(splits).load_state_dict(without)
    opened(splits, balance=1).load_state_dict(without)


def test_sizes_and_ratios_are_those_of_the_phase(splits: tuple[Path, Path]) -> None:
    loader = opened(splits)
    order = loader.order
    assert isinstance(order, RowMixOrder)
    epochs = chain.from_iterable(map(order.batches, count()))
    progress = [[row.progress for row in batch.packed or ()] for batch in islice(epochs, 60)]
    loader.seek(0)
    sizes = {False: 0, True: 0}
    for batch, rows in zip(islice(loader.repeat(), 60), progress, strict=True):
        assert batch.mask is not None
        counts = batch.cu_seqlens.diff().tolist()
        seen = batch.mask.cu_visible.diff().tolist()
        of = torch.bucketize(torch.arange(len(counts)), batch.cu_rows[1:], right=True).tolist()
        for n, visible, row in zip(counts, seen, of, strict=True):
            where = rows[row]
            assert where is not None
            late = where >= 0.5
            assert n <= (64 if late else 16)
            sizes[late] = max(sizes[late], n)
            kept = n * (0.3 + 0.2 * where)
            assert abs(visible - kept) <= kept * 0.1 + 1
    assert sizes == {False: 16, True: 64}
    blocks = sorted({where for rows in progress for where in rows if where is not None})
    assert len(blocks) == -(-60 * 6 // BLOCK_ROWS)
    assert float(str(loader.stats()["empty"])) < 0.04  # a tenth of so few tokens is less than one


def test_masks_may_draw_their_ratio_for_each_sample(splits: tuple[Path, Path]) -> None:
    mask = masks.Random(ratio=masks.Uniform(low=0.3, high=0.9))
    native = Native(patch=8, least=4, most=64)
    loader = opened(splits, mask=mask, native=native, scaling=0.0)
    batch = next(iter(loader))
    assert batch.mask is not None
    shares = batch.mask.cu_visible.diff() / batch.cu_seqlens.diff()
    assert shares.min() < 0.25 < 0.5 < shares.max()
    # With no scaling, counts are those that the mask draws for the sample alone, wherever it is shown.
    data = PackedData(native=native, mask=mask, row_tokens=64, scaling=0.0)
    alone = data.source(Split.open(splits[1], "image")).sampler
    large = {f"l{i}": i for i in range(160)}
    for i, key in enumerate(batch.key):
        if key in large:
            row = alone.request(Wanted.of([large[key]]))
            assert row.slots[0].visible == int(batch.mask.cu_visible.diff()[i])
            assert list(row.slots[0].shape) == batch.grid_thw[i].tolist()


@pytest.fixture(scope="module")
def kinds(splits: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Pictures, clips and sounds."""
    raw = tmp_path_factory.mktemp("raw")
    clips = written(tmp_path_factory.mktemp("clips"), "video", [video_sample(raw, i) for i in range(22)])
    sounds = written(tmp_path_factory.mktemp("sounds"), "audio", [sound_sample(i) for i in range(34)])
    return splits[1], clips, sounds


KINDS_SETTINGS: dict[str, Any] = {
    "native": Native(patch=16, tubelet=2, least=4, most=96),
    "mask": masks.Random(ratio=0.7),
    "clip": VideoClip(seconds=(0.5, 2.0), fps=8),
    "row_tokens": 128,
    "device": "cpu",
    "threads": 1,
    "max_bad_fraction": 0.0,
}


def of_kinds(kinds: tuple[Path, ...], **changes: Any) -> Loader[PackedBatch]:
    parts = [(where, weight) for where, weight in zip(kinds, (1, Linear(start=0.3, end=1.0), 1), strict=True)]
    chosen = {"rows": 6, "unit": "tokens", "steps": 30, **KINDS_SETTINGS} | changes
    return packed_loader(parts, **chosen)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_pictures_clips_and_sounds_share_rows(kinds: tuple[Path, Path, Path], workers: int) -> None:
    """Each sample shows what its own loader shows of it in the same epoch; rows are the same at any ranks."""
    whole = list(islice(of_kinds(kinds).repeat(), 9))
    assert all(set(batch.kind.tolist()) == {0, 1, 2} for batch in whole)
    order = of_kinds(kinds).order
    assert isinstance(order, RowMixOrder)
    data = PackedData(
        **{name: value for name, value in KINDS_SETTINGS.items() if name in PackedData.__dataclass_fields__}
    )
    alone = [
        data.source(Split.open(where, kind)).sampler
        for where, kind in zip(kinds, ("image", "video", "audio"), strict=True)
    ]
    rows = [row for planned in islice(order.batches(0), 1) for row in planned.packed or ()]
    drawn = [one for row in rows for one in zip(row.indexes.tolist(), row.epochs.tolist(), strict=True)]
    for (index, epoch), mine in zip(drawn, rows_of(whole[0]), strict=True):
        part, own = find_part(order.samples.starts, index)
        assert rows_of(batch_of(alone[part], Wanted.of([own], epoch))) == [mine]
    legs = ((2, 0, 4), (3, 0, 6), (1, workers, 9))
    check_relay(partial(of_kinds, kinds), rows_and_masks, batch_size=6, legs=legs, size="rows")


def rows_of(batch: PackedBatch) -> list[tuple[str, bytes]]:
    """The key and the tokens of each sample."""
    sounds, found = batch.is_sound, []
    assert batch.sounds is not None or not sounds.any()
    places = torch.where(sounds, sounds.cumsum(0), (~sounds).cumsum(0)) - 1
    for key, start, end in zip(batch.key, batch.cu_seqlens[:-1].tolist(), batch.cu_seqlens[1:].tolist(), strict=True):
        of = batch.sounds if bool(sounds[start]) else batch.tokens
        assert of is not None
        found.append((key, of[places[start:end]].numpy().tobytes()))
    return found


def rows_and_masks(batch: PackedBatch) -> list[tuple[object, ...]]:
    assert batch.mask is not None
    hidden = batch.mask.masked.split(batch.cu_seqlens.diff().tolist())
    return [(*row, own.tolist()) for row, own in zip(rows_of(batch), hidden, strict=True)]


def test_clips_and_sounds_grow_longer_over_the_run(kinds: tuple[Path, Path, Path]) -> None:
    phases = Piecewise(points=((0.0, 0.5), (0.5, 0.5), (0.5, 2.0)))
    loader = of_kinds(kinds, seconds=phases, steps=64, mask=None, scaling=0.0)
    order = loader.order
    assert isinstance(order, RowMixOrder)
    longest: dict[tuple[int, bool], int] = {}
    for number in (0, 10, 40, 41, 42, 43, 60):
        epoch, batch = divmod(number, len(loader))
        loader.seek(epoch, batch)
        rows = next(order.batches(epoch, batch)).packed or ()
        late = {row.progress is not None and row.progress >= 0.5 for row in rows}
        assert len(late) == 1
        made_ = next(iter(loader))
        for kind, times in zip(made_.kind.tolist(), made_.grid_thw[:, 0].tolist(), strict=True):
            place = kind, next(iter(late))
            longest[place] = max(longest.get(place, 0), times)
    assert longest[1, False] == 2  # 0.5 s of 8 frames a second in tokens of 2
    assert longest[1, True] > 4
    assert longest[2, False] == 3  # 48 frames of 10 ms
    assert longest[2, True] > 6


def test_validation_sees_samples_as_the_run_ends(kinds: tuple[Path, Path, Path]) -> None:
    changing = Native(patch=8, least=4, most=Linear(start=4.0, end=64.0))
    mask = masks.Random(ratio=Linear(start=0.5, end=0.75))
    shown = [
        list(packed_loader(kinds[0], native=native, mask=own, row_tokens=64, shuffle=False, device="cpu", threads=1))
        for native, own in ((changing, mask), (replace(changing, most=64), masks.Random(ratio=0.75)))
    ]
    for mine, theirs in zip(*shown, strict=True):
        assert rows_of(mine) == rows_of(theirs)
        assert mine.mask is not None
        assert theirs.mask is not None
        assert torch.equal(mine.mask.masked, theirs.mask.masked)


def test_what_cannot_share_rows_is_refused(splits: tuple[Path, Path]) -> None:
    data = PackedData(native=Native(patch=8, least=4, most=64), mask=masks.Random(ratio=0.75), row_tokens=64)
    small, large = (Split.open(where, "image") for where in splits)

    def source(split: Split, **changes: Any) -> Any:
        return replace(data, **changes).source(split)

    one = source(small)
    for other, says in [
        (source(large, row_tokens=65), "row_tokens: 64 and 65"),
        (source(large, native=replace(data.native, patch=16)), "native.patch: 8 and 16"),
        (source(large, mask=None), "mask: yes and no"),
        (source(large, balance=1), "balance: 8 and 1"),
        (source(replace(large, shuffle=False)), "shuffle=True"),
        (mix([(one, 1), (one, 1)]), "with one split each"),
    ]:
        with pytest.raises(ValueError, match=says):
            mix([(one, 1), (other, 1)])
    with pytest.raises(ValueError, match="cannot be empty"):
        mix([])
    with pytest.raises(ValueError, match="all sources end"):
        mix([(one, 1), (one, 1)], epochs=(1, 1))
    with pytest.raises(ValueError, match="unit='rows'"):
        mix([(one, 1)], unit="rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batches=0"):
        mix([(one, 1)], batches=0)
    with pytest.raises(ValueError, match=r"\(folder, weight\) pairs"):
        packed_loader(["a", "b"], native=data.native)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="the run's length: pass steps="):
        next(iter(opened(splits, steps=None)))


def test_the_mixtures_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path, "b", 60, lambda rng: int(rng.integers(250, 350)))
    (tmp_path / "data/shards/imagefolder").mkdir(parents=True)
    for name in ("train", "val"):
        (tmp_path / "data/shards/imagefolder" / name).symlink_to(folder)
    page = (Path(__file__).parents[4] / "docs/packed.md").read_text()
    names: dict[str, Any] = {"augment": augment, "masks": masks, "native": Native(patch=16, least=16, most=1024)}
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        if "[(small" in block or "phases" in block:
            exec(block, names)
    for name in ("mixed", "growing"):
        batch = next(iter(names[name]))
        assert batch.empty < 0.05
        assert int(batch.grid_thw.prod(dim=1).max()) <= (1024 if name == "mixed" else 256)
