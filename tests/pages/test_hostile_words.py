"""Hostile names of runs, splits and labels are text on the pages of replay, report and curate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maskstream.modalities import modality_of
from maskstream.pages.curated import writing_curated
from maskstream.pages.replay import write_replay
from maskstream.preprocess.curate import curate
from maskstream.shards.format.manifest import Manifest
from maskstream.train import read_metrics, replay, train

from ..pipelines.small_media import image_samples
from ..splits import write_samples
from ..train.core.test_data_version import CUTS
from .pages import complete_in_itself, write_report

NAMES = {
    "tags": "<script>alert(1)<script><style><img src=x onerror=alert(1)>",
    "quotes": '"\' onload=alert(1) x="&lt;{{ 7 * 7 }}{% raw %}',
    "direction": "a\u202egpj.exe\u2066b\u200f",
    "control": "a\x01\x1b[31mb\x7f",
    "long": "w" * 180,
}


@pytest.mark.parametrize("words", NAMES.values(), ids=NAMES)
def test_names_are_text_on_every_page(words: str, tmp_path: Path) -> None:
    label = f"{words}</style></script></title>"
    raw, split, run = tmp_path / "raw", tmp_path / words, tmp_path / f"run {words}"
    raw.mkdir()
    split.mkdir()
    samples = [replace(one, source=f"{i} {label}") for i, one in enumerate(image_samples(raw))]
    write_samples(split, samples, "image", label_names=(label, f"{label}2"))
    train("mae-tiny", split, run, steps=2, device="cpu", threads=1, progress=False, set=CUTS, seed=3)
    metrics = {one.step: one for one in read_metrics(run)}
    modality = modality_of(Manifest.load(split))
    found = curate(split, keep="sharpness > 5", dry_run=True, max_removed=1)
    with writing_curated(found, tmp_path / "curated.html"):
        pass
    pages = [
        write_replay(modality, run, [replay(run, 1)], metrics, tmp_path / "replay.html"),
        write_report(run, split, tmp_path / "report.html"),
        tmp_path / "curated.html",
    ]
    assert len(Manifest.load(split)) == len(samples)
    for path in pages:
        page = complete_in_itself(path.read_text(encoding="utf-8"))
        assert sum(tag in ("script", "style") for tag, _ in page.tags) == 2, path.name
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")], path.name
        assert " ".join(words.split()) in page.text, path.name
