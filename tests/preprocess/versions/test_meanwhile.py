"""A split changes while a loader reads it: what is left goes on as if nothing had been, what was erased is replaced."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from maskstream.pipelines import Loader, Split, mix
from maskstream.preprocess.versions import append, divide, erase, remove
from maskstream.shards.errors import MovedError, RemovedError, SampleError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.writer import write_shard
from maskstream.shards.stores.base import Range

from ...pipelines.every_modality import LOADERS, described, write_split
from .other_keys import with_other_keys

SEED, BATCH, BATCHES, BEFORE = 3, 2, 24, 1
"""Batches of some epochs, of which some are taken before the split changes; workers and threads make more ahead."""


@pytest.fixture(params=["image", "text", "packed"])
def modality(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def split(modality: str, tmp_path: Path) -> Path:
    """Each sample has a tar of its own, so that most tars are opened after the change."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "split").mkdir()
    samples = LOADERS[modality].samples(tmp_path / "raw")
    records = [write_shard(tmp_path / f"split/t-{i:06d}.tar", [sample]) for i, sample in enumerate(samples)]
    finish_split(tmp_path / "split", described(modality, tmp_path / "split"), records, [])
    return tmp_path / "split"


def opened(modality: str, split: Path, mixed: bool, **options: Any) -> Loader[Any]:
    """A loader of the split, or of a mixture of it and a copy with other keys."""
    settings = {
        "seed": SEED,
        "device": "cpu",
        "threads": 2,
        "rank": 0,
        "world_size": 1,
        "max_bad_fraction": 0.0,
    } | options
    if not mixed:
        return LOADERS[modality].loader(split, batch_size=BATCH, **settings)  # type: ignore[no-any-return]
    other = split.parent / "other"
    if not other.exists():
        shutil.copytree(split, other)
        with_other_keys(other)
        described(modality, other)  # its tokenizer
    source, seed = LOADERS[modality].source, settings.pop("seed")
    kind = Manifest.load(split).info["modality"]
    parts = [(source(Split.open(one, kind, seed=seed, device="cpu", threads=2)), 1) for one in (split, other)]
    return Loader(mix(parts, seed=seed), batch_size=BATCH, **settings)


def rows(modality: str, batches: Iterator[Any]) -> list[list[str]]:
    return [[str(row) for row in LOADERS[modality].rows(batch)] for batch in islice(batches, BATCHES)]


@pytest.mark.parametrize("mixed", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["alone", "mixed"])
@pytest.mark.parametrize(
    ("change", "workers"),
    [
        *(("append", 0), ("remove", 0), ("erase", 0), ("erase", 1)),
        *(pytest.param(change, 1, marks=pytest.mark.slow) for change in ("append", "remove")),
    ],
)
def test_a_running_loader_goes_on(
    modality: str,
    split: Path,
    change: str,
    workers: int,
    mixed: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with closing(opened(modality, split, mixed)) as undisturbed:
        wanted = rows(modality, undisturbed.repeat())
    # One sample that is shown late, and one that is shown at once.
    gone = [key for key in Manifest.load(split).keys(range(15)) if key in ("s2", "s9", "2", "9")]
    assert len(gone) == 2
    with closing(opened(modality, split, mixed, workers=workers, prefetch=1)) as loader:
        batches = loader.repeat()
        found = [[str(row) for row in LOADERS[modality].rows(next(batches))] for _ in range(BEFORE)]
        if change == "append":
            other = shutil.copytree(split, tmp_path / "appended")
            with_other_keys(other, "Y")
            described(modality, other)
            append(split, other)
        else:
            (remove if change == "remove" else erase)(split, gone)
        found += rows(modality, batches)[: BATCHES - BEFORE]
        assert loader.stats()["bad"] == 0
    said = capfd.readouterr().err + caplog.text
    assert "replaced sample" not in said
    if change != "erase":
        assert found == wanted
        return
    assert found != wanted
    assert "2 samples were erased" in said
    with closing(opened(modality, split, mixed)) as afterwards:
        without = rows(modality, afterwards.repeat()) if modality != "packed" else [[]] * BATCHES
    for batch, before, after in zip(found, wanted, without, strict=True):
        for number, (row, whole) in enumerate(zip(batch, before, strict=True)):
            if row != whole:
                assert row == after[number] if after else any(f"['{key}'" in whole for key in gone)


def test_the_manifest_of_a_running_loader_never_finds_the_zeros_of_an_erased_sample(tmp_path: Path) -> None:
    split = write_split("image", tmp_path)
    for gone, names in ((3, None), (4, ("c", "b", "a"))):
        manifest = Manifest.load(split)
        manifest = manifest.with_labels(names) if names else manifest
        before = manifest.member(0, "jpg")
        left = manifest.store.read(*before)
        manifest.store._files.clear()  # another process would open the files anew
        erase(split, [manifest.key(gone)])
        with pytest.raises(MovedError), manifest.reading(0, "jpg"):
            manifest.store.read(*before)
        assert manifest.store.read(*manifest.member(0, "jpg")) == left
        assert manifest.member(0, "jpg")[1:] == before[1:]
        with pytest.raises(RemovedError):
            manifest.member(gone, "jpg")
        with pytest.raises(SampleError, match="cannot be opened") as caught, manifest.reading(0, "jpg"):
            manifest.store.read("t-000009.tar", 0, 1)
        assert type(caught.value) is SampleError
        assert pickle.loads(pickle.dumps(manifest)).removed.tolist() == manifest.removed.tolist()


def test_a_tar_that_is_gone_for_good_is_a_bad_sample(tmp_path: Path) -> None:
    split = write_split("image", tmp_path)
    manifest = Manifest.load(split)
    place = manifest.member(0, "jpg")
    (split / place.name).unlink()
    with pytest.raises(SampleError, match="No such file") as caught, manifest.reading(0, "jpg"):
        manifest.store.read(*place)
    assert type(caught.value) is SampleError


@pytest.mark.parametrize("which", ["split", "val"])
def test_a_divided_split_goes_on_after_an_erasure_from_the_whole(which: str, tmp_path: Path) -> None:
    split = write_split("image", tmp_path)
    divide(split, 0.4, by="sample")
    manifest = Manifest.load(tmp_path / which)
    key, left = manifest.key(0), [manifest.member(number, "jpg") for number in range(1, len(manifest))]
    names = {place.name for place in left}
    read = Manifest.load(tmp_path / which).store
    wanted = [read.read(*place) for place in left]
    erase(split, [key])
    with pytest.raises(MovedError), manifest.reading(0, "jpg"):
        manifest.store.read(*Range(manifest.shard_name(0), 0, 1))
    found = [manifest.store.read(*manifest.member(number, "jpg")) for number in range(1, len(manifest))]
    assert found == wanted
    assert {manifest.shard_name(number) for number in range(len(manifest))} != names
    with pytest.raises(RemovedError):
        manifest.member(0, "jpg")
