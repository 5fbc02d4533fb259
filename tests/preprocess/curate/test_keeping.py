"""Samples that a rule leaves out are not written, and listed with their signals; the others are as without it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.curate import KeepRule, measure
from maskstream.preprocess.versions import add_sources
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.local import LocalStore


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Six pictures, from dark to bright, and one that is none."""
    (tmp_path / "raw").mkdir()
    for n in range(6):
        pixels = np.random.default_rng(n).integers(0, 40 * n + 10, (32, 32, 3))
        cv2.imwrite(str(tmp_path / f"raw/{n}.png"), pixels.astype(np.uint8))
    (tmp_path / "raw/bad.png").write_bytes(b"\x89PNG")
    return tmp_path / "raw"


def run(raw: Path, out: Path, **given: object) -> Path:
    make_shards("image-folder", raw, out, **{"workers": 0, "as_is": True, "max_rejects": 0.2, **given})  # type: ignore[arg-type]
    return out / "train"


def test_a_rule_keeps_what_curate_would(raw: Path, tmp_path: Path) -> None:
    whole = measure(run(raw, tmp_path / "whole"), kept=tmp_path / "kept")
    bright = dict(zip(whole.manifest.sources().to_pylist(), whole.signals["brightness"].tolist(), strict=True))
    least = sorted(bright.values())[2]
    split = run(raw, tmp_path / "out", keep=KeepRule(f"brightness>{least}"))
    manifest = Manifest.load(split)
    assert {*manifest.sources().to_pylist()} == {name for name, value in bright.items() if value > least}
    assert [one.source for one in read_rejects(LocalStore(split), manifest.info)] == ["bad.png"]
    listed = pq.read_table(split / "unkept.parquet").to_pylist()
    assert [one["source"] for one in listed] == ["0.png", "1.png", "2.png"]
    assert listed[0]["reason"] == f"brightness={bright['0.png']:.6g}, not brightness>{least}"
    assert verify(split).ok
    before = {path.name: path.read_bytes() for path in split.iterdir() if path.is_file()}
    run(raw, tmp_path / "out", keep=KeepRule(f"brightness>{least}"), repair=True)
    for number in (2, 1):
        run(raw, tmp_path / "parts", keep=KeepRule(f"brightness>{least}"), part=(number, 2))
    run(raw, tmp_path / "parts", keep=KeepRule(f"brightness>{least}"), finish=True)
    for own in (split, tmp_path / "parts/train"):
        assert {path.name: path.read_bytes() for path in own.iterdir() if path.is_file()} == before


def test_what_is_no_rule_before_writing(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="p5, a percentile, which is not known"):
        KeepRule("sharpness>=p5")
    with pytest.raises(DatasetError, match=r"none of 7 sources was kept|none of 6"):
        run(raw, tmp_path / "out", keep=KeepRule("brightness>2"))
    with pytest.raises(ValueError, match="--append writes all samples"):
        add_sources("image-folder", raw, tmp_path / "out", keep=KeepRule("brightness>2"))
