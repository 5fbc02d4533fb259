"""Exports from outside: raw files of odd sizes and lengths become a split, a run and an export, and what the lines of
its model card give of the files, in a process without maskstream, is compared with `maskstream embed`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import wave
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.shards.format.manifest import Manifest
from maskstream.train import load_model, train
from maskstream.train.core.run_folder import run_recipe
from maskstream.train.embed import read_features
from maskstream.train.evaluate.features import drop_augmentation, from_middle
from maskstream.train.export.run import export_run
from maskstream.train.finetune_run import finetune

from ..videos import write_frames

Draws = np.random.Generator
RUN = """
import importlib.abc, json, os, re, sys

class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "maskstream":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Without())
import numpy as np

for folder in sys.argv[2:]:
    os.chdir(folder)
    code, *own = re.findall("```python\\n(.*?)```", open("README.md").read(), re.DOTALL)
    names = {}
    exec(code, names)
    samples = json.load(open(sys.argv[1]))
    call = names["scores" if "scores" in names else "features"]
    found = {"card": [call([one]) for one in samples[:3]] + [call(samples[3:])]}
    found["classes"] = [[str(one) for one in names.get("classes", [])]]
    for lines in own:
        exec(lines, names)
        found["own"] = [names["by_processor"](samples)]
    np.savez("../found.npz", **{name: np.concatenate([np.asarray(one) for one in own]) for name, own in found.items()})
assert not any(name.partition(".")[0] == "maskstream" for name in sys.modules)
"""
"""Runs cards as a user does: three samples by themselves, then the others at once."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A recipe with its sizes cut, the kind of its raw samples and the targets that have its model. tuned: those that
    have its fine-tuned classifier.
    """

    recipe: str
    kind: str
    cuts: tuple[str, ...]
    targets: tuple[str, ...]
    tuned: tuple[str, ...] = ()


SIZES = ("batch_size=4", "model.width=48", "model.depth=2", "model.heads=3")
DECODER = ("model.decoder_width=48", "model.decoder_depth=1", "model.decoder_heads=3")
CLIP = ("clip.frames=4", "clip.stride=4", "clip.size=48", "data.patch=8", *SIZES)
PICTURE = ("data.size=48", "data.patch=16", *SIZES)
TEXT = ("data.length=48", "model.vocabulary=320", *SIZES)
EVERY = ("hf", "timm", "torch", "onnx")
FAMILIES = {
    "VideoMAE": Family(
        recipe="videomae-base",
        kind="clip",
        cuts=(*CLIP, *DECODER),
        targets=("hf", "torch", "onnx"),
        tuned=("hf", "torch", "onnx"),
    ),
    "MGMAE": Family(recipe="mgmae-base", kind="clip", cuts=(*CLIP, *DECODER), targets=("hf", "torch", "onnx")),
    "V-JEPA 2": Family(
        recipe="vjepa2-large",
        kind="clip",
        cuts=(*CLIP, "model.predictor_width=24", "model.predictor_depth=1", "model.predictor_heads=2"),
        targets=("hf", "torch", "onnx"),
        tuned=("torch", "onnx"),
    ),
    "MAE": Family(recipe="mae-base", kind="picture", cuts=(*PICTURE, *DECODER), targets=EVERY, tuned=EVERY),
    "MAE without a class token": Family(
        recipe="mae-tiny",
        kind="picture",
        cuts=(*PICTURE, *DECODER),
        targets=("timm", "torch", "onnx"),
        tuned=EVERY,
    ),
    "I-JEPA": Family(
        recipe="ijepa-base",
        kind="picture",
        cuts=(*PICTURE, "model.predictor_width=24", "model.predictor_depth=1", "model.predictor_heads=2"),
        targets=EVERY,
        tuned=("torch", "onnx"),
    ),
    "Audio-MAE": Family(
        recipe="audiomae-tiny",
        kind="sound",
        cuts=("seconds=0.64", *SIZES, *DECODER),
        targets=("timm", "torch", "onnx"),
        tuned=("timm", "torch", "onnx"),
    ),
    "BERT": Family(
        recipe="bert-base", kind="text", cuts=TEXT, targets=("hf", "torch", "onnx"), tuned=("torch", "onnx")
    ),
    "ModernBERT": Family(
        recipe="modernbert-base",
        kind="text",
        cuts=(*TEXT, "model.hidden=64", "model.window=16"),
        targets=("hf", "torch", "onnx"),
        tuned=("hf", "torch", "onnx"),
    ),
}


def spots(width: int, height: int, draws: Draws) -> npt.NDArray[np.uint8]:
    """A picture of soft spots of all colours, uint8 (height, width, 3)."""
    small = Image.fromarray(draws.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def write_picture(path: Path, draws: Draws) -> Path:
    """A JPEG, PNG or WebP of 10 to 260 pixels, grey or in colours."""
    short, aspect = draws.uniform(10, 90), draws.uniform(1, 3)
    width, height = draws.permutation([round(short), round(short * aspect)]).tolist()
    form = str(draws.choice(["jpg", "jpg", "png", "webp"]))
    picture = Image.fromarray(spots(width * 2, height * 2, draws))
    if form != "webp" and draws.random() < 0.2:
        picture = picture.convert("L")
    options = {"jpg": {"quality": int(draws.integers(30, 99))}, "webp": {"lossless": True}}.get(form, {})
    picture.save(path.with_suffix(f".{form}"), **options)
    return path.with_suffix(f".{form}")


def write_clip(path: Path, draws: Draws) -> Path:
    """An H.264 or VP9 of 16 to 200 pixels and 1 to 60 frames."""
    width, height = (2 * round(side / 2) for side in draws.uniform(16, 200, 2))
    count, (codec, form) = int(draws.integers(1, 60)), [("libx264", "mp4"), ("libvpx-vp9", "mkv")][draws.integers(2)]
    levels, path = spots(width + count, height, draws), path.with_suffix(f".{form}")
    return write_frames(path, (levels[:, n : n + width] for n in range(count)), codec, rate=25)


def write_sound(path: Path, draws: Draws) -> Path:
    """A WAV of 0.05 to 2 seconds, of one or two channels at one of five rates."""
    rate, channels = int(draws.choice([8000, 11025, 16000, 22050, 48000])), int(draws.integers(1, 3))
    time = np.arange(int(rate * draws.uniform(0.05, 2)))[:, None] / rate
    tones = sum(np.sin(2 * np.pi * hertz * time + np.arange(channels)) for hertz in draws.uniform(60, 3000, 6))
    levels = np.int16(2500 * tones + draws.normal(0, 250, (len(time), channels)))
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(levels.tobytes())
    return path.with_suffix(".wav")


def make_text(draws: Draws) -> str:
    """One to some hundred words of ASCII and other letters."""
    letters = "eetaoinshrdlu\u00e9\u00df\u00e5\u65e5\u672c.,-'0123ABC"
    words = ["".join(draws.choice(list(letters), draws.integers(1, 9))) for _ in range(int(3 ** draws.uniform(0, 5.3)))]
    return " ".join(words)


def write_split(kind: str, folder: Path, count: int, draws: Draws) -> tuple[Path, dict[str, str]]:
    """A split of `count` odd raw samples of two classes, and the samples by their keys: paths, or texts."""
    raw, given = folder / "raw", dict[str, str]()
    for label in ("ants", "bees"):
        (raw / label).mkdir(parents=True)
    out = folder / "shards"
    if kind == "text":
        texts = [make_text(draws) for _ in range(count)]
        lines = [{"id": f"t{n}", "text": text, "label": ("ants", "bees")[n % 2]} for n, text in enumerate(texts)]
        (raw / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
        run(["shards", "jsonl", "--root", str(raw), "--out", str(out), "--set", "tokenizer=train:bpe:320"])
        given = {f"t{n}": text for n, text in enumerate(texts)}
        return out / "train", by_key(out / "train", given)
    write = {"picture": write_picture, "clip": write_clip, "sound": write_sound}[kind]
    paths = [write(raw / ("ants", "bees")[n % 2] / f"{n:03d}", draws) for n in range(count)]
    if kind == "clip":  # a video that is converted has other pixels; tars have it as it is
        out.mkdir()
        with tarfile.open(out / "a.tar", "w") as tar:
            for path in paths:
                tar.add(path, path.name)
        lines = ["key,label", *(f"{path.stem},{path.parent.name}" for path in paths)]
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        run(["index", str(out), "--labels", str(folder / "labels.csv")])
        return out, {path.stem: str(path) for path in paths}
    layout = {"picture": "image-folder", "sound": "audio-folder"}[kind]
    run(["shards", layout, "--root", str(raw), "--out", str(out)])
    return out / "train", by_key(out / "train", {path.stem: str(path) for path in paths})


def by_key(split: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Raw samples by their keys in a split, of the samples by the stems of their sources."""
    found = {}
    for path in split.glob("manifest-*.parquet"):
        for row in pq.read_table(path, columns=["key", "source"]).to_pylist():
            found[row["key"]] = given[Path(row["source"]).stem]
    return found


def run(words: Sequence[str]) -> None:
    """A command, which must end well."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, (words, done.output, done.exception)


@dataclass(frozen=True)
class Found:
    """Of an export, the largest differences of raw samples from what the run gives, as shares of the norms: with the
    lines of the card, and with the target's own processor (None where it has none).
    """

    family: str
    target: str
    samples: int
    card: float
    own: float | None
    distances: npt.NDArray[np.float64]


def measure(families: Mapping[str, Family], folder: Path, count: int, seed: int) -> list[Found]:
    """The exports of some families to all their targets, measured on `count` raw samples."""
    splits: dict[str, tuple[Path, dict[str, str]]] = {}
    found = []
    for name, family in families.items():
        if family.kind not in splits:
            splits[family.kind] = write_split(family.kind, folder / family.kind, count, np.random.default_rng(seed))
        split, given = splits[family.kind]
        base = folder / name.replace(" ", "")
        train(family.recipe, split, base, steps=2, set=family.cuts, device="cpu", threads=1, progress=False, seed=seed)
        if family.targets:
            run(["embed", str(base), str(split), "--out", str(base / "features.parquet")])
            keys, ours, _ = read_features(base / "features.parquet")
            found += _exported(name, base, family.targets, dict(zip(keys, ours, strict=True)), given)
        if family.tuned:
            tuned = base.with_name(f"{base.name}-tuned")
            finetune(base, split, split, tuned, steps=2, device=torch.device("cpu"), same_split=True, progress=False)
            found += _exported(f"{name}, fine-tuned", tuned, family.tuned, list_scores(tuned, split), given)
    return found


def list_scores(tuned: Path, split: Path) -> dict[str, torch.Tensor]:
    """The scores of a classifier's run by the keys of a split."""
    model: Any = load_model(tuned / "model.safetensors")
    config = from_middle(drop_augmentation(run_recipe(tuned).data, Manifest.load(split)))
    scores = {}
    with (
        torch.no_grad(),
        closing(config.loader(Manifest.load(split), batch_size=8, shuffle=False, device="cpu")) as all_,
    ):
        for batch in all_:
            scores |= dict(zip(batch.key, model.scores(batch), strict=True))
    return scores


def _exported(
    name: str, base: Path, targets: Sequence[str], ours: Mapping[str, torch.Tensor], given: Mapping[str, str]
) -> list[Found]:
    keys = sorted(ours)
    assert keys == sorted(given)
    folders = [base / f"to-{to}" / "out" for to in targets]
    for to, out in zip(targets, folders, strict=True):
        export_run(base, out, to=to)
    samples = base / "samples.json"
    samples.write_text(json.dumps([given[key] for key in keys]))
    words = [sys.executable, "-I", "-W", "ignore", "-c", RUN, str(samples.resolve()), *map(str, folders)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    mine, found = np.stack([ours[key].numpy() for key in keys]).astype(np.float64), []
    for to, out in zip(targets, folders, strict=True):
        with np.load(out.parent / "found.npz") as arrays:
            values = dict(arrays)
        assert values["classes"].tolist() == (["ants", "bees"] if "fine-tuned" in name else [])
        assert not re.search(r"/tmp/|maskstream\.", (out / "README.md").read_text())

        def distances(theirs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            norms = np.linalg.norm(mine, axis=1)
            far: npt.NDArray[np.float64] = np.linalg.norm(theirs - mine, axis=1)
            return far / (norms.mean() if "fine-tuned" in name else norms)  # scores may all be near 0

        card = distances(values["card"])
        own = float(distances(values["own"]).max()) if "own" in values else None
        found.append(Found(name, to, len(keys), float(card.max()), own, card))
    return found
