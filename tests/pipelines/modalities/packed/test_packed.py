"""The packed loader: its tokens are the pixels of the pictures, its masks are packed, and bad settings are refused."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from maskstream.pipelines import PackedBatch, PackedData, image_text_loader, masks, packed_loader
from maskstream.pipelines.augment import Native
from maskstream.pipelines.masks.core import mask_batch
from maskstream.pipelines.modalities.fields import Field
from maskstream.pipelines.stream.loader import Loader
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.source import Source as Raw
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member

from ....splits import write_samples
from ...every_modality import write_split
from ...small_texts import image_text_source

NATIVE = Native(patch=8, least=4, most=64)
MASK = masks.Random(ratio=0.75)
N = 60


def picture(i: int) -> np.ndarray:
    """RGB uint8, of another size for each i."""
    rng = np.random.default_rng(i)
    width, height = rng.integers(17, 120, 2).tolist()
    return cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNGs, so that pixels are exact."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("split")
    samples = []
    for i in range(N):
        cv2.imwrite(str(raw / f"{i}.png"), cv2.cvtColor(picture(i), cv2.COLOR_RGB2BGR))
        made = ImageEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.png"))
        members = {**made.members, "json": json_member({"height": picture(i).shape[0]})}
        samples.append(Sample(key=f"{i}", members=members, source=f"{i}", label=i % 3))
    return write_samples(out, samples, "image", sizes=(20, 20, 20), label_names=("a", "b", "c"))


def opened(split: Path, **settings: Any) -> Loader[PackedBatch]:
    chosen: dict[str, Any] = {
        "native": NATIVE,
        "mask": MASK,
        "row_tokens": 64,
        "rows": 2,
        "device": "cpu",
        "threads": 1,
    }
    return packed_loader(split, **(chosen | settings))


def samples_of(batch: PackedBatch) -> Iterator[tuple[int, slice]]:
    """The number of each sample, and where its tokens are."""
    for key, ends in zip(batch.key, pairwise(batch.cu_seqlens.tolist()), strict=True):
        yield int(key), slice(*ends)


def pixels_of(batch: PackedBatch, own: slice, grid: list[int], tubelet: int = 1) -> np.ndarray:
    """The tokens of a sample put together at their places, the slow way: uint8 (tubelet, height, width, 3)."""
    whole = np.zeros((tubelet, grid[1] * 8, grid[2] * 8, 3), np.uint8)
    for token, (t, y, x) in zip(batch.tokens[own].numpy(), batch.place[own].tolist(), strict=True):
        assert t == 0
        whole[:, y * 8 : y * 8 + 8, x * 8 : x * 8 + 8] = token.reshape(tubelet, 8, 8, 3)
    return whole


def lies_in(source: np.ndarray, part: np.ndarray) -> bool:
    """Whether a picture has these very pixels somewhere."""
    x, y = cv2.minMaxLoc(cv2.matchTemplate(source, part, cv2.TM_SQDIFF))[2]
    return bool((source[y : y + len(part), x : x + part.shape[1]] == part).all())


def test_tokens_are_pixels_of_native_scale(split: Path) -> None:
    native, seen = replace(NATIVE, tubelet=2, most=400), 0
    for batch in opened(split, native=native, row_tokens=128):
        for (key, own), grid in zip(samples_of(batch), batch.grid_thw.tolist(), strict=True):
            assert own.stop - own.start == grid[1] * grid[2]
            first, second = pixels_of(batch, own, grid, tubelet=2)
            assert (first == second).all()
            source = picture(key)
            if min(source.shape[:2]) < 60:  # a small crop has fewer than `least` patches, and is resized
                continue
            assert any(lies_in(source, np.ascontiguousarray(one)) for one in (first, first[:, ::-1]))
            seen += 1
    assert seen > 10


def test_a_validation_shows_whole_pictures_once(split: Path) -> None:
    keys = []
    for batch in opened(split, shuffle=False):
        for (key, own), grid in zip(samples_of(batch), batch.grid_thw.tolist(), strict=True):
            keys.append(key)
            source = picture(key)
            wanted = Image.fromarray(source).resize((grid[2] * 8, grid[1] * 8), Image.Resampling.BICUBIC)
            assert np.abs(pixels_of(batch, own, grid)[0].astype(int) - np.asarray(wanted)).max() <= 2
    assert sorted(keys) == list(range(N))


def test_masks_are_packed_and_fill_the_rows(split: Path) -> None:
    loader = opened(split, row_tokens=80)
    for batch in loader:
        mask = batch.mask
        assert mask is not None
        assert mask.visible.tolist() == (~mask.masked).nonzero().flatten().tolist()
        assert mask.target.tolist() == mask.masked.nonzero().flatten().tolist()
        assert (mask.weight == 1).all()
        for s, (_, own) in enumerate(samples_of(batch)):
            for places, ends in ((mask.visible, mask.cu_visible), (mask.target, mask.cu_target)):
                mine = places[ends[s] : ends[s + 1]]
                assert len(mine)
                assert mine.min() >= own.start
                assert mine.max() < own.stop
            size = own.stop - own.start
            natural = size - masks.hidden_count(size, 0.75, "floor_visible")
            assert abs(int(mask.cu_visible[s + 1] - mask.cu_visible[s]) - natural) <= 0.1 * natural
        assert batch.cu_rows[-1] == len(batch) == len(batch.label) == len(batch.grid_thw)
        by_row = mask.cu_visible[batch.cu_rows.long()].diff()
        assert (by_row <= 80).all()
        assert batch.label.tolist() == [int(key) % 3 for key in batch.key]
        assert batch.empty == pytest.approx(1 - len(mask.visible) / 160)
    assert 0 <= loader.stats()["empty"] < 0.1  # type: ignore[operator]
    assert loader.stats()["samples"] > 40  # type: ignore[operator]


def test_a_mask_with_targets_of_its_own_keeps_them(split: Path) -> None:
    class Shown(masks.Mask):
        """Every token is reconstructed, also those that the encoder sees."""

        def hide(self, grid: masks.TokenGrid, draw: masks.Draw) -> np.ndarray:
            return MASK.hide(grid, draw)

        def maps(self, grid: masks.TokenGrid, draw: masks.Draw) -> masks.Maps:
            return masks.Maps(hidden=self.hide(grid, draw), target=np.ones(grid.size, np.bool_))

    batch = next(iter(opened(split, mask=Shown(), row_targets=300)))
    assert batch.mask is not None
    assert batch.mask.target.tolist() == list(range(len(batch.tokens)))
    assert batch.mask.cu_target.tolist() == batch.cu_seqlens.tolist()
    assert (batch.mask.weight == batch.mask.masked).all()
    assert (batch.mask.cu_target[batch.cu_rows.long()].diff() <= 300).all()


@pytest.mark.parametrize(
    "name", [s.name for s in masks.SCHEMES if s.name and s.grid.axes == ("h", "w") and not s.make().needs]
)
def test_masks_of_pictures_that_fix_their_counts_can_be_packed(split: Path, name: str) -> None:
    mask = masks.MASKS[name]()
    try:
        batch = next(iter(opened(split, mask=mask, native=replace(NATIVE, least=9), row_tokens=130, steps=9)))
    except ValueError as error:
        refused = ("draws the number", "changes over the run", "hides all", "needs a plane")
        assert any(word in str(error) for word in refused)
        return
    assert batch.mask is not None
    assert 0 < len(batch.mask.visible) <= 260


def test_without_a_mask_all_tokens_are_visible(split: Path) -> None:
    batch = next(iter(opened(split, mask=None, row_tokens=200)))
    assert batch.mask is None
    assert (batch.cu_seqlens[batch.cu_rows.long()].diff() <= 200).all()
    assert batch.empty == pytest.approx(1 - len(batch.tokens) / 400)


def test_parts_are_concatenated_and_weighted(split: Path) -> None:
    whole = next(iter(opened(split, rows=4)))
    parts = [next(iter(opened(split, rows=2, rank=rank, world_size=2))) for rank in range(2)]
    made = PackedBatch.concatenated(parts)
    assert made.key == whole.key
    for name in ("tokens", "cu_seqlens", "cu_rows", "grid_thw", "place", "label"):
        assert torch.equal(getattr(made, name), getattr(whole, name)), name
    assert made.mask is not None
    assert whole.mask is not None
    for name in ("masked", "visible", "target", "weight", "cu_visible", "cu_target"):
        assert torch.equal(getattr(made.mask, name), getattr(whole.mask, name)), name
    weighted = whole.weighted(torch.tensor([1.0, 0.0, 1.0, 1.0]))
    start, stop = whole.cu_rows[1:3].tolist()
    assert weighted.weight is not None
    assert (weighted.weight == 0).nonzero().flatten().tolist() == list(range(start, stop))
    assert weighted.mask is not None
    of_row = slice(int(whole.mask.cu_target[start]), int(whole.mask.cu_target[stop]))
    assert (weighted.mask.weight == 0).nonzero().flatten().tolist() == list(range(of_row.start, of_row.stop))
    assert whole.pixel_values().shape == whole.tokens.shape


def test_fields_are_those_of_samples(split: Path) -> None:
    batch = next(iter(opened(split, fields=(Field(name="height"),))))
    assert batch.fields["height"].tolist() == [picture(int(key)).shape[0] for key in batch.key]  # type: ignore[union-attr]


def test_a_bad_sample_is_replaced_in_its_shape_and_nothing_else_changes(
    split: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(split, tmp_path / "split")
    manifest = Manifest.load(split)
    before = list(opened(split))
    bad = int(before[0].key[3])
    name, offset, size = manifest.member(manifest.keys(range(N)).index(str(bad)), "png")
    with (tmp_path / "split" / name).open("r+b") as file:
        file.seek(offset + size // 2)
        file.write(bytes(64))
    with caplog.at_level(logging.WARNING):
        loader = opened(tmp_path / "split", max_bad_fraction=0.5)
        after = list(loader)
    assert f"{str(bad)!r}" in caplog.text
    assert loader.stats()["bad"] == len(caplog.records) >= 1
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one.grid_thw, other.grid_thw)
        assert torch.equal(one.cu_seqlens, other.cu_seqlens)
        assert str(bad) not in other.key
        for (key, own), (second, _) in zip(samples_of(one), samples_of(other), strict=True):
            same = torch.equal(one.tokens[own], other.tokens[own])
            assert same == (key == second)


def test_samples_without_a_usable_picture_are_replaced(tmp_path: Path) -> None:
    """One has no picture, two have sizes beyond the limits in the manifest."""
    raw, out = tmp_path / "raw", tmp_path / "split"
    raw.mkdir()
    out.mkdir()
    samples = [Sample(key="none", members={"json": json_member({})}, source="none")]
    for i in range(12):
        cv2.imwrite(str(raw / f"{i}.png"), picture(i))
        members = ImageEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.png")).members
        samples.append(Sample(key=f"{i}", members=members, source=f"{i}"))
    write_samples(out, samples, "image")
    manifest = Manifest.load(out)
    facts = manifest.components["png"].facts
    for name, index, value in (("width", 3, -5), ("height", 4, 1 << 40)):
        facts[name] = facts[name].astype(np.int64)
        facts[name][index] = value
    loader = PackedData(native=NATIVE, mask=MASK, row_tokens=32).loader(
        manifest, batch_size=2, shuffle=False, device="cpu", threads=1, max_bad_fraction=0.5
    )
    shown = [key for batch in loader for key in batch.key]
    wanted = {f"{i}" for i in range(12)} - {"2", "3"}
    assert set(shown) == wanted
    assert len(shown) >= 13
    assert loader.stats()["bad"] >= 3  # type: ignore[operator]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"row_tokens": 10}, r"row_tokens=10 is less than one sample needs: of 1 x 8 x 8 tokens 16 .*lower `most`"),
        ({"row_targets": 20}, r"row_targets=20 is less than one sample needs: of 1 x 8 x 8 tokens 48 are targets"),
        ({"row_tokens": 100_000}, "row_tokens=100000: 60 samples do not fill one row"),
        ({"rows": 1000}, r"60 samples fill \d+ rows of 64 visible tokens.* lower rows or row_tokens"),
        (
            {"mask": masks.Random(ratio=masks.Uniform(scope="batch"))},
            "draws the number of visible tokens per batch",
        ),
        ({"mask": masks.Random(ratio=masks.MultiRatio())}, "per batch; use a fixed ratio"),
        (
            {"mask": masks.Random(ratio=masks.Uniform()), "row_tokens": 50},
            "row_tokens=50 is less than one sample needs",
        ),
        (
            {"native": replace(NATIVE, most=masks.Linear(start=64.0, end=300.0)), "steps": 9},
            "row_tokens=64 is less than",
        ),
        ({"native": replace(NATIVE, most=masks.Linear(start=64.0, end=2.0)), "steps": 9}, "got least=4, most="),
        ({"mask": masks.Random(ratio=1.0)}, "hides all .* raise `least` in Native, or hide fewer"),
        ({"mask": masks.MotionGuided()}, "needs flow, but packed rows, except with masks.ByEnergy, have no cues"),
    ],
)
def test_impossible_settings_are_refused_before_training_starts(
    split: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        opened(split, **settings)


def test_options_of_batches_of_samples_name_those_of_rows(split: Path) -> None:
    with pytest.raises(TypeError, match="no parameter 'batch_size': it is rows= here"):
        opened(split, batch_size=4)
    with pytest.raises(TypeError, match="no parameter 'token_budget': packed rows are already batches; row_tokens="):
        opened(split, token_budget=100)


def test_the_packed_mask_is_the_rectangular_one(split: Path) -> None:
    """What `mask_batch` makes of each sample alone."""
    batch = next(iter(opened(split)))
    assert batch.mask is not None
    for s, (_, own) in enumerate(samples_of(batch)):
        grid = masks.TokenGrid(axes=("h", "w"), shape=tuple(batch.grid_thw[s, 1:].tolist()), patch=(8, 8))
        alone = mask_batch(batch.mask.masked[own].numpy()[None], grid=grid)
        seen, wanted = (slice(*ends[s : s + 2].tolist()) for ends in (batch.mask.cu_visible, batch.mask.cu_target))
        assert torch.equal(alone.visible[0], batch.mask.visible[seen] - own.start)
        assert torch.equal(alone.target[0], batch.mask.target[wanted] - own.start)
        assert torch.equal(alone.weight[0], batch.mask.weight[wanted])


def test_captioned_pictures_come_with_their_texts(tmp_path: Path) -> None:
    """One text of a list is drawn when shuffled, and an answer stays with its question, despite class names."""
    captioned = write_split("image-text", tmp_path)
    assert Manifest.load(captioned).label_names
    wanted = ("caption", "question", "answer", Field(name="passage", default="none"))
    shown = set()
    for shuffle in (False, True):
        loader = opened(captioned, fields=wanted, shuffle=shuffle)
        for _ in range(4 if shuffle else 1):
            for batch in loader:
                assert batch.kind.tolist() == [0] * len(batch.key)
                assert set(batch.fields["passage"]) == {"none"}
                texts = zip(batch.key, *(batch.fields[name] for name in ("caption", "question", "answer")), strict=True)
                for key, caption, question, answer in texts:
                    meta = image_text_source(int(key[1:]), Path()).meta
                    number = meta["answer"].index(answer)
                    assert (caption, question) == (meta["caption"], meta["question"][number])
                    shown.add((shuffle, number))
    assert shown == {(False, 0), (True, 0), (True, 1), (True, 2)}
    one = image_text_loader(captioned, size=16, patch=8, text=("question",), length=16, fields=("question",), seed=5)
    batch = next(iter(one))
    packed = {
        key: question
        for batch in opened(captioned, fields=("question",), seed=5)
        for key, question in zip(batch.key, batch.fields["question"], strict=True)
    }
    drawn = dict(zip(batch.key, batch.fields["question"], strict=True))
    common = drawn.keys() & packed.keys()
    assert common
    assert all(packed[key] == drawn[key] for key in common)


def test_the_config_survives_json() -> None:
    data = PackedData(native=NATIVE, mask=MASK, row_tokens=100, row_targets=300, scaling=0.2)
    assert PackedData.from_dict(data.to_dict()) == data
