"""One source that crashes or hangs its decoder costs one reject; the others are encoded as always."""

import hashlib
import importlib
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from maskstream.preprocess import PROFILES, Limits, make_shards
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

FAST = replace(PROFILES["train"], preset="ultrafast")


@pytest.fixture
def poison(monkeypatch):
    """poison.py, as processes can import it."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("poison")


@pytest.fixture
def raw(make_video, tmp_path):
    for number in range(12):
        make_video(f"raw/train/a/{number:02d}.mp4", 4 + number)
    return tmp_path / "raw"


def made(dataset, raw, out, workers):
    report = make_shards(
        dataset,
        raw,
        out,
        profile=FAST,
        workers=workers,
        samples_per_shard=12,
        limits=Limits(time_s=2, time_per_s=1),
        max_rejects=0.1,
        as_is=True,
    )
    return report.splits["train"].folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"), [("segfault", "killed its process by SIGSEGV, twice"), ("hang", "took longer than 2 s, twice")]
)
def test_one_poison_clip_of_twelve_costs_one_reject(raw, tmp_path, poison, fault, reason):
    folder = made(poison.poisoned(fault), raw, tmp_path / "out", 2)
    assert pq.read_table(folder / "rejects.parquet").to_pylist() == [
        {"source": "train/a/05.mp4", "stage": "decode", "reason": reason}
    ]
    (raw / "train/a/05.mp4").unlink()
    whole = made(poison.poisoned("none"), raw, tmp_path / "whole", 0)
    assert verify(folder, decode=True).ok
    assert len(Manifest.load(folder)) == 11
    for name in ("folder-000000.tar", "folder-000000.idx", "folder-000000.sums"):
        assert _sha256(folder / name) == _sha256(whole / name)
    assert not list(folder.glob(".*.tmp"))


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
