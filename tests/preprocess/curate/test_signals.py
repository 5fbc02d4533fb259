"""Signals, measured while samples are written, stand in the manifest and not in the tars, and loaders weigh by them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile as sf

from maskstream.pipelines import image_loader
from maskstream.pipelines.modalities.split import sample_weights
from maskstream.preprocess import make_shards
from maskstream.preprocess.curate import KeepRule, Signals, measure
from maskstream.preprocess.curate.signals import measure_text
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from ..job.folder_job import FAST
from ..job.test_clips import film, scene


def run(dataset: str, raw: Path, out: Path, **given: object) -> Path:
    made = {"workers": 0, "as_is": True, "max_rejects": 0.9, "measure": Signals(), **given}
    make_shards(dataset, raw, out, **made)  # type: ignore[arg-type]
    return out / "train"


def signals_of(split: Path) -> dict[str, dict[str, float]]:
    """Of each source, by name; a signal that was not measured is 0."""
    manifest = Manifest.load(split)
    facts = manifest.components["json"].facts
    sources = manifest.sources().to_pylist()
    return {source: {name: float(of[n]) for name, of in facts.items()} for n, source in enumerate(sources)}


def contents(split: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in split.iterdir() if path.is_file()}


def test_of_pictures_they_are_what_curate_measures(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for n in range(6):
        pixels = np.random.default_rng(n).integers(0, 40 * n + 10, (40, 32, 1 if n == 1 else 3))
        cv2.imwrite(str(tmp_path / f"raw/{n}.png"), pixels.astype(np.uint8))
    split = run("image-folder", tmp_path / "raw", tmp_path / "out")
    assert verify(split).ok
    whole, found = measure(split, kept=tmp_path / "kept"), signals_of(split)
    names = ("brightness", "contrast", "saturation", "entropy", "sharpness", "borders", "dark")
    for place, source in enumerate(whole.manifest.sources().to_pylist()):
        assert found[source] == {name: whole.signals[name][place] for name in names}
    plain = contents(run("image-folder", tmp_path / "raw", tmp_path / "plain", measure=None))
    assert all(plain[name] == data for name, data in contents(split).items() if name.endswith((".tar", ".idx")))
    for number in (2, 1):
        run("image-folder", tmp_path / "raw", tmp_path / "parts", part=(number, 2))
    assert contents(run("image-folder", tmp_path / "raw", tmp_path / "parts", finish=True)) == contents(split)
    weights = sample_weights(whole.manifest, "brightness")
    assert weights is not None
    assert image_loader(split, weights="brightness", batch_size=2, seed=0).state_dict()


def test_of_clips_they_tell_cuts_black_and_frozen_spans(tmp_path: Path) -> None:
    black = [np.zeros((64, 96, 3), np.uint8)] * 60
    (tmp_path / "raw").mkdir()
    lively = [one for seed in range(3) for one in scene(seed, 40)]
    film(tmp_path / "raw/lively.mp4", [lively])
    film(tmp_path / "raw/dull.mp4", [scene(1, 40), black, scene(1, 1) * 80], crf="10")
    how = {"profile": FAST, "samples_per_shard": 1}
    found = signals_of(run("folder", tmp_path / "raw", tmp_path / "out", **how))
    assert found["lively.mp4"]["cuts"] == 2
    assert found["lively.mp4"]["black_s"] == found["lively.mp4"]["still"] == 0
    assert found["dull.mp4"]["black_s"] == pytest.approx(60 / 25, abs=0.17)
    assert found["dull.mp4"]["frozen_s"] == pytest.approx(80 / 25, abs=0.5)
    assert found["dull.mp4"]["dark"] > 0.2
    kept = run("folder", tmp_path / "raw", tmp_path / "kept", **how, keep=KeepRule("dark<0.2 and motion>0.01"))
    assert [*signals_of(kept)] == ["lively.mp4"]
    assert signals_of(kept)["lively.mp4"] == found["lively.mp4"]
    with pytest.raises(DatasetError, match="none of 2 sources was kept"):
        run("folder", tmp_path / "raw", tmp_path / "none", **how, keep=KeepRule("motion>0.9"))


def test_of_sounds_they_tell_level_clipping_and_silence(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    wave = 0.5 * np.sin(np.arange(16000) * 0.1)
    wave[:8000] = 0
    sf.write(tmp_path / "raw/half.wav", wave, 16000)
    sf.write(tmp_path / "raw/loud.wav", np.sign(np.sin(np.arange(16000) * 0.1)), 16000)
    found = signals_of(run("audio-folder", tmp_path / "raw", tmp_path / "out"))
    assert found["half.wav"]["silent"] == pytest.approx(0.5, abs=0.03)
    assert found["half.wav"]["loudness_db"] == pytest.approx(20 * np.log10(0.25), abs=0.05)
    assert found["half.wav"]["clipped"] == 0
    assert found["loud.wav"]["clipped"] > 0.99
    assert found["loud.wav"]["silent"] == 0


def test_of_texts_they_tell_symbols_and_repetition(tmp_path: Path) -> None:
    assert measure_text("") == {"characters": 0, "symbols": 0, "repetition": 0}
    assert measure_text("a b c d a b c d")["repetition"] == pytest.approx(1 / 5)
    assert measure_text("a, b! _")["symbols"] == pytest.approx(3 / 7)
    assert measure_text("ä, b! _é¿")["symbols"] == pytest.approx(4 / 9)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.txt").write_text("one two three four five. " * 8)
    found = signals_of(run("txt", tmp_path / "raw", tmp_path / "out", settings=("tokenizer=train:bpe:300",)))
    assert found["a.txt"]["characters"] == 25 * 8
    assert found["a.txt"]["repetition"] == pytest.approx(1 - 5 / 37)
