"""A split is divided by group, by seed and by label, the same way whoever asks and however often."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets import Dataset
from maskstream.preprocess.datasets.division import Division, divide_sources, group_of_id
from maskstream.preprocess.source import Source
from maskstream.preprocess.versions import add_sources, divide
from maskstream.shards.errors import DatasetError, ResumeError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.manifest import Manifest

from ..job.folder_job import contents

SAMPLES = st.lists(st.tuples(st.integers(0, 40).map(str), st.integers(-1, 4)), min_size=2, max_size=300)


@given(samples=SAMPLES, share=st.floats(0.01, 0.9), seed=st.integers(0, 99))
def test_a_label_keeps_a_group_and_the_order_of_samples_does_not_matter(
    samples: list[tuple[str, int]], share: float, seed: int
) -> None:
    division = Division(share=share, seed=seed)
    try:
        held = division.held_out(samples, of="toy")
    except DatasetError:
        return
    assert division.held_out(random.Random(seed).sample(samples, len(samples)), of="toy") == held
    of_group: dict[str, Counter[int]] = {}
    for group, label in samples:
        of_group.setdefault(group, Counter())[label] += 1
    stratum = {group: min(counts, key=lambda one: (-counts[one], one)) for group, counts in of_group.items()}
    for label in {*stratum.values()}:
        assert {group for group in stratum if stratum[group] == label} - held


@pytest.mark.parametrize(("per_label", "share"), [(20, 0.05), (4, 0.05), (100, 0.13), (3, 0.3)])
def test_the_share_is_met_over_all_labels_and_nearly_in_each(per_label: int, share: float) -> None:
    samples = [(f"{label}/{n}", label) for label in range(50) for n in range(per_label)]
    held = Division(share=share).held_out(samples, of="toy")
    assert abs(len(held) - share * len(samples)) <= 1
    of_label = Counter(label for group, label in samples if group in held)
    assert all(abs(of_label[label] - share * per_label) <= 1 for label in range(50))
    assert Division(share=share, seed=1).held_out(samples, of="toy") != held


@given(
    first=st.lists(st.integers(0, 500), min_size=20, unique=True),
    more=st.lists(st.integers(501, 900), unique=True),
)
def test_what_was_decided_stays(first: list[int], more: list[int]) -> None:
    division = Division(share=0.2)
    old = [(str(n), n % 3) for n in first]
    held = division.held_out(old, of="toy")
    decided = {group: group in held for group, _ in old}
    both = old + [(str(n), n % 3) for n in more]
    again = division.held_out(both, decided, of="toy")
    assert again & decided.keys() == held
    new = {group: group in again for group, _ in both}
    assert division.held_out(both, new, of="toy") == again


def test_the_samples_of_a_file_stay_together() -> None:
    windows = [
        Source(id=f"{clip}#{n}", path=Path(f"/raw/{clip}.mp4"), window=(n, n + 1)) for clip in range(20) for n in (0, 1)
    ]
    raw = Dataset(name="toy", label_names=(), splits={"train": windows, "test": []})
    found = divide_sources(raw, Division(share=0.2)).splits
    train, val = ({one.path for one in found[name]} for name in ("train", "val"))
    assert len(train) == 16
    assert len(val) == 4
    assert not train & val
    assert len(found["train"]) + len(found["val"]) == 40
    assert found["test"] == []
    alone = divide_sources(raw, Division(share=0.2, by="sample")).splits
    assert {one.path for one in alone["train"]} & {one.path for one in alone["val"]}


@pytest.mark.parametrize(
    "row",
    [
        lambda n: Source(id=f"a.parquet:{n}", path=Path(f"/raw/a.parquet!/image/{n}.jpg")),
        lambda n: Source(id=f"a.jsonl:{n}", path=Path("/raw/a.jsonl"), window=(n, n + 1)),
        lambda n: Source(id=f"document {n}", path=Path("/raw/a.parquet"), window=(n, n + 1)),
    ],
)
def test_rows_of_one_file_are_files_of_their_own(row: Callable[[int], Source]) -> None:
    sources = [row(n) for n in range(100)]
    found = divide_sources(Dataset(name="toy", label_names=(), splits={"train": sources}), Division(share=0.2)).splits
    assert [len(found[name]) for name in ("train", "val")] == [80, 20]
    held = Division(share=0.2).held_out(((group_of_id(one.id, "source"), -1) for one in sources), of="toy")
    assert {one.id for one in found["val"]} == held  # as `maskstream split` chooses, which knows ids alone


def test_groups_are_those_of_a_field() -> None:
    sources = [Source(id=str(n), path=Path(f"/raw/{n}"), meta={"speaker": n % 10}) for n in range(100)]
    raw = Dataset(name="toy", label_names=(), splits={"train": sources})
    found = divide_sources(raw, Division(share=0.2, by="speaker")).splits
    held = {one.meta["speaker"] for one in found["val"]}
    assert len(held) == 2
    assert held.isdisjoint(one.meta["speaker"] for one in found["train"])
    with pytest.raises(DatasetError, match=r"'0' has no field 'talker' .*\('speaker'\), or source"):
        divide_sources(raw, Division(share=0.2, by="talker"))


@pytest.mark.parametrize(
    ("name", "by", "group"),
    [
        ("a/clip.mp4:12.5-30", "source", "a/clip.mp4"),
        ("a/clip.mp4#3", "source", "a/clip.mp4"),
        ("a/2:30.mp4", "source", "a/2:30.mp4"),
        ("a/clip.mp4#3", "sample", "a/clip.mp4#3"),
        ("a/clip.mp4#3", "folder", "a"),
        ("train-00000-of-00001.parquet:12", "source", "train-00000-of-00001.parquet:12"),
        ("a/train.jsonl:12", "source", "a/train.jsonl:12"),
    ],
)
def test_the_group_of_an_id(name: str, by: str, group: str) -> None:
    assert group_of_id(name, by) == group


def test_what_cannot_be_divided_says_what_can() -> None:
    sources = [Source(id=str(n), path=Path(f"/raw/{n}")) for n in range(8)]
    plain = Dataset(name="toy", label_names=(), splits={"train": sources})
    with pytest.raises(DatasetError, match=r"none of 8 samples in 8 groups; use a fraction of at least 0.0625"):
        divide_sources(plain, Division(share=0.05))
    assert len(divide_sources(plain, Division(share=0.0625)).splits["val"]) == 1
    with pytest.raises(
        DatasetError, match=r"none of 8 samples in 1 group; each label has only one group, .*; use another grouping"
    ):
        divide_sources(plain, Division(share=0.05, by="folder"))
    with pytest.raises(DatasetError, match=r"cannot divide a single sample\. Cut its file into parts"):
        divide_sources(Dataset(name="toy", label_names=(), splits={"train": sources[:1]}), Division(share=0.5))
    own = Dataset(name="toy", label_names=(), splits={"train": sources, "valid": sources})
    with pytest.raises(DatasetError, match=r"already has a validation split, 'valid'. Remove --val \(val=\)"):
        divide_sources(own, Division(share=0.5))
    with pytest.raises(DatasetError, match=r"--val .* divides the split 'train', but toy has the splits 'test'"):
        divide_sources(Dataset(name="toy", label_names=(), splits={"test": sources}), Division(share=0.5))
    with pytest.raises(ValueError, match=r"val=1.0 must be a fraction .* between 0 and 1"):
        Division(share=1.0)


def draw(raw: Path, *numbers: int) -> None:
    for i in numbers:
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        (raw / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (raw / "ab"[i % 2] / f"p{i:02d}.png").write_bytes(bytes(cv2.imencode(".png", pixels)[1]))


GIVEN: dict[str, Any] = {"workers": 0, "pauses_s": (), "samples_per_shard": 5, "val": 0.2}


def names(split: Path) -> list[str]:
    return sorted(Manifest.load(split).sources().to_pylist())


def test_a_job_divides_the_same_in_parts_and_appends_to_both(tmp_path: Path) -> None:
    raw, whole, parts = tmp_path / "raw", tmp_path / "whole", tmp_path / "parts"
    draw(raw, *range(20))
    made = make_shards("image-folder", raw, whole, **GIVEN)
    assert {name: one.counts["samples"] for name, one in made.splits.items()} == {"train": 16, "val": 4}
    assert Counter(Manifest.load(whole / "val").label.tolist()) == {0: 2, 1: 2}
    assert read_dataset_json(whole / "val")["settings"]["val"] == {"share": 0.2, "by": "source", "seed": 0}
    for n in (2, 1):
        make_shards("image-folder", raw, parts, **GIVEN, part=(n, 2))
    make_shards("image-folder", raw, parts, **GIVEN, finish=True)
    for split in ("train", "val"):
        assert contents(parts / split) == contents(whole / split)
    assert make_shards("image-folder", raw, whole, **GIVEN).splits["val"].state == "already finished"
    with pytest.raises(ResumeError, match=r"val.seed: saved 0, here 1"):
        make_shards("image-folder", raw, whole, **GIVEN, val_seed=1)
    with pytest.raises(DatasetError, match=r"written with different settings \(val: saved .*, here nothing\)"):
        add_sources("image-folder", raw, whole, **{**GIVEN, "val": None, "splits": ["train"]})
    before = {split: names(whole / split) for split in ("train", "val")}
    draw(raw, *range(20, 40))
    shutil.copytree(whole, tmp_path / "other")
    add_sources("image-folder", raw, whole, **GIVEN)
    after = {split: names(whole / split) for split in ("train", "val")}
    assert {split: len(found) for split, found in after.items()} == {"train": 32, "val": 8}
    assert all({*before[split]} <= {*after[split]} for split in after)
    add_sources("image-folder", raw, tmp_path / "other", **GIVEN, splits=["val"])  # as a run that is killed between
    add_sources("image-folder", raw, tmp_path / "other", **GIVEN)
    assert {split: names(tmp_path / "other" / split) for split in after} == after


def test_a_split_is_divided_afterwards_as_when_it_is_made(tmp_path: Path) -> None:
    raw, before, after = tmp_path / "raw", tmp_path / "before", tmp_path / "after"
    draw(raw, *range(20))
    make_shards("image-folder", raw, before, **GIVEN)
    make_shards("image-folder", raw, after, **{**GIVEN, "val": None})
    divide(after / "train", 0.2)
    assert {split: names(after / split) for split in ("train", "val")} == {
        split: names(before / split) for split in ("train", "val")
    }


def test_the_options_of_a_division_belong_together(tmp_path: Path) -> None:
    alone: list[dict[str, Any]] = [{"val_by": "folder"}, {"val_seed": 3}]
    for options in alone:
        with pytest.raises(
            ValueError, match="val_by and val_seed set how train is divided; also pass the fraction as val"
        ):
            make_shards("image-folder", tmp_path, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
