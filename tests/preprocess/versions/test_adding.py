"""Only sources that a split lacks are encoded; they are appended, and a killed run ends in the same bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.job.shards import make_shards
from maskstream.preprocess.source import Source
from maskstream.preprocess.versions import add_sources, adding, divide, erase, remove
from maskstream.preprocess.versions.adding import ADDING
from maskstream.shards.errors import DatasetError, ResumeError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.local import LocalStore

from ...s3_double import BUCKET, s3_double
from .killed_forks import check_every_kill
from .small_splits import contents


def draw(raw: Path, *numbers: int, folder: str = "a") -> None:
    (raw / folder).mkdir(parents=True, exist_ok=True)
    for i in numbers:
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24, 3), np.uint8)
        (raw / folder / f"p{i:02d}.png").write_bytes(bytes(cv2.imencode(".png", pixels)[1]))


def add(raw: Path, out: Path | str, **options: Any) -> Any:
    given = {"workers": 0, "max_rejects": 1.0, "pauses_s": (), "as_is": True, **options}
    return add_sources("image-folder", raw, out, **given)


def sources(split: Path | str) -> list[str]:
    return [Path(name).stem for name in Manifest.load(split).sources().to_pylist()]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    draw(raw, *range(7))
    (raw / "a" / "broken.png").write_bytes(b"no image")
    given: dict[str, Any] = {"workers": 0, "max_rejects": 1.0, "pauses_s": (), "as_is": True}  # all have one label
    make_shards("image-folder", raw, tmp_path / "out", samples_per_shard=3, **given)
    return raw


def test_only_new_sources_are_encoded_and_appended(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, split = tmp_path / "out", tmp_path / "out" / "train"
    first = sources(split)
    assert add(raw, out).splits["train"].state == "has all sources"
    assert Manifest.load(split).version == 1
    draw(raw, 20, 21, 22, 23)
    draw(raw, 30, folder="new")
    (raw / "a" / "p00.png").touch()
    encoded, real = list[str](), ImageEncoder.encode

    def noted(self: ImageEncoder, source: Source) -> Any:
        encoded.append(source.path.stem)
        return real(self, source)

    monkeypatch.setattr(ImageEncoder, "encode", noted)
    report = add(raw, out)
    assert sorted(encoded) == ["p20", "p21", "p22", "p23", "p30"]
    assert report.splits["train"].state == "version 2, 5 samples added"
    assert report.n_sources == 5
    found = Manifest.load(split)
    assert sources(split)[:7] == first
    assert sorted(sources(split)[7:]) == ["p20", "p21", "p22", "p23", "p30"]
    assert found.info["label_names"] == ["a", "new"]
    assert verify(split).problems == []
    assert not list(out.glob(".adding*"))
    encoded.clear()
    draw(raw, 40)
    draw(raw, 99)
    (raw / "a" / "p99.png").rename(raw / "a" / "broken.png")
    (raw / "a" / "p01.png").unlink()
    assert add(raw, out).splits["train"].state == "version 3, 2 samples added"
    assert sorted(encoded) == ["broken", "p40"]
    assert read_rejects(LocalStore(split), read_dataset_json(split)) == []
    assert verify(split).problems == []
    remove(split, [Manifest.load(split).key(0)])
    assert add(raw, out).splits["train"].state == "has all sources"
    draw(raw, 20 + 100)
    (raw / "a" / "p120.png").rename(raw / "a" / "p20.png")
    with pytest.raises(ResumeError, match=r"1 of its sources changed after they were encoded: 'a/p20.png'"):
        add(raw, out)
    erase(split, [Manifest.load(split).key(sources(split).index("p20"))])
    (raw / "a" / "p20.png").unlink()
    assert add(raw, out).splits["train"].state == "has all sources"


def test_what_cannot_be_added_to_is_refused_before_any_work(raw: Path, tmp_path: Path) -> None:
    draw(raw, 20)
    before = contents(tmp_path / "out")
    with pytest.raises(DatasetError, match="not a finished split, so nothing can be appended"):
        add(raw, tmp_path / "other")

    def smaller(root: Path) -> Any:
        return replace(DATASETS["image-folder"](root), encoder=ImageEncoder(short_side=16))

    with pytest.raises(DatasetError, match=r"written with different settings \(encoder.short_side"):
        add_sources(smaller, raw, tmp_path / "out", workers=0, as_is=True)
    words = ["shards", "image-folder", "--root", str(raw), "--out", str(tmp_path / "out"), "--as-is"]
    assert CliRunner().invoke(app, [*words, "--append", "--overwrite"]).exit_code != 0
    assert contents(tmp_path / "out") == before
    done = CliRunner().invoke(app, [*words, "--append", "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert "version 2, 1 samples added" in done.output


def test_in_an_object_store(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_double() as double:
        for name, value in double.env.items():
            monkeypatch.setenv(name, value)
        double.objects |= {f"set/{name}": data for name, data in contents(tmp_path / "out").items()}
        draw(raw, 20, 21, 22, 23)
        assert add(raw, f"s3://{BUCKET}/set").splits["train"].state == "version 2, 4 samples added"
        assert verify(f"s3://{BUCKET}/set/train").problems == []
        add(raw, tmp_path / "out")
        here = {name: data for name, data in contents(tmp_path / "out").items() if ".records" not in name}
        there = {name.removeprefix("set/"): data for name, data in double.objects.items() if ".records" not in name}
        assert there == here


def test_what_a_killed_run_has_left_is_erased_too(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(raw, 20, 21)
    out = tmp_path / "out"

    def killed(output: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adding, "remove_added", killed)
    with pytest.raises(KeyboardInterrupt):
        add(raw, out)
    mine = out / f"{ADDING}notes" / "train"  # no folder of a run
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("p20")
    manifest = Manifest.load(out / "train")
    row = sources(out / "train").index("p20")
    data = bytes(manifest.store.read(*manifest.member(row, "png")))
    (left,) = (path for path in out.glob(f"{ADDING}*") if path != mine.parent)
    erase(out / "train", [manifest.key(0)])
    assert left.exists()  # it has nothing of that sample
    erase(out / "train", [manifest.key(row)])
    assert not left.exists()
    assert [name for name, held in contents(out).items() if data in held or b"p20.png" in held] == []
    assert (mine / "thesis.txt").read_text() == "p20"
    assert verify(out / "train").problems == []


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_step_it_ends_in_the_same_bytes(every: int, raw: Path, tmp_path: Path) -> None:
    def check(out: Path) -> None:
        assert Manifest.load(out / "train").version in (1, 2)

    draw(raw, 20, 21, 22, 23)
    add_all = partial(add, raw)
    check_every_kill(tmp_path / "out", add_all, steps=17, every=every, read=_without_times, after_kill=check)


def _without_times(out: Path) -> dict[str, bytes]:
    """The files, but for what records tell of times."""
    return {name: data for name, data in contents(out).items() if ".records" not in name} | {
        name: b"" for name in contents(out) if ".records" in name
    }


def test_what_was_held_out_is_no_new_source(raw: Path, tmp_path: Path) -> None:
    out, split = tmp_path / "out", tmp_path / "out" / "train"
    divide(split, 0.3)
    both = {one: sources(out / one) for one in ("train", "val")}
    assert len(both["val"]) == 2
    assert add(raw, out).splits["train"].state == "has all sources"
    draw(raw, *range(20, 30))
    assert add(raw, out).splits["train"].state == "version 3, 10 samples added"
    assert sources(out / "val") == both["val"]
    divide(split, 0.3)
    now = {one: sources(out / one) for one in ("train", "val")}
    assert all({*both[one]} < {*now[one]} for one in now)
    assert sorted([*now["train"], *now["val"]]) == sorted(f"p{i:02d}" for i in (*range(7), *range(20, 30)))
    assert add(raw, out).splits["train"].state == "has all sources"
