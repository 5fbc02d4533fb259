"""Numbers of every type and size in HDF5 trajectories, float sounds and TIFF pictures.

    python -m tests.attacks numbers -n 2000 --seed 0

A sample has the numbers of its source: whole numbers exactly, real ones rounded to float32, and its sums are finite.
"sample", "rejected"; "wrong" for a sample with other numbers, "foreign" for an exception that is not a RejectError.
"""

from __future__ import annotations

import io
import json
import warnings
from collections import Counter
from math import isfinite
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import soundfile as sf
from PIL import Image, TiffImagePlugin

from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.mesh.encoder import MeshEncoder
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.media.mesh_members import read_mesh

from ..preprocess.encode.test_mesh_shards import META, trajectory

TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "?")
ODD = (0.7, -1, 3, 4, 9, 2**31, 2**32, 2**32 + 1, 2**33, 2**53 + 1, 1e30, 1e39, 1e300, float("nan"), float("inf"))
STATIC = ("cells", "mesh_pos", "node_type")


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Encodes `count` sources with odd numbers; returns how many ended in which way."""
    ends: Counter[str] = Counter()
    (folder / "meta.json").write_text(json.dumps(META))
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kind = (_hdf5, _sound, _tiff)[int(rng.choice(3, p=[0.7, 0.2, 0.1]))]
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                end = kind(rng, folder)
        except RejectError:
            end = "rejected"
        except Exception as error:
            end = "foreign"
            print(f"{error!r:.300}")
        if end not in ("sample", "rejected"):
            print(f"{end}: seed {seed}, number {number}, {kind.__name__}")
        ends[end] += 1
    return ends


def _hdf5(rng: np.random.Generator, folder: Path) -> str:
    """A trajectory of which one or two arrays have another type, and perhaps an odd number."""
    arrays: dict[str, npt.NDArray[Any]] = trajectory(int(rng.integers(100)))
    for name in rng.choice(list(arrays), size=rng.integers(1, 3), replace=False):
        changed = arrays[name].astype(str(rng.choice(TYPES)))
        if rng.random() < 0.5:
            changed.flat[rng.integers(changed.size)] = np.float64(ODD[rng.integers(len(ODD))]).astype(changed.dtype)
        arrays[name] = changed
    with h5py.File(folder / "train.h5", "w") as file:
        for name, values in arrays.items():
            file[f"0/{name}"] = values
    (source,) = DATASETS["meshgraphnets"](folder).splits["train"]
    made = MeshEncoder().encode(source)
    mesh = read_mesh(made.members["mesh.npz"].data)
    found = {"cells": mesh["cells"], "mesh_pos": mesh["positions"], "node_type": mesh["node_type"]}
    for name, values in found.items():
        wanted = arrays[name].reshape(values.shape)
        same = wanted.astype(np.float32) == values if name == "mesh_pos" else wanted == values
        if not same.all():
            return "wrong"
    return "sample" if all(isfinite(one) for some in made.sums.values() for one in some) else "wrong"


def _sound(rng: np.random.Generator, folder: Path) -> str:
    """A float WAV of any loudness."""
    peak = 10.0 ** rng.uniform(-40, 38)
    samples = np.random.default_rng(0).normal(size=8000) * peak
    sf.write(folder / "a.wav", samples, 16000, subtype=str(rng.choice(["FLOAT", "DOUBLE"])))
    made = AudioEncoder().encode(Source(id="a", path=folder / "a.wav"))
    return "sample" if all(isfinite(one) for some in made.sums.values() for one in some) else "wrong"


def _tiff(rng: np.random.Generator, folder: Path) -> str:
    """A TIFF of one to three pages, some of them overviews, in any colours that pillow writes."""
    image = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
    mode = str(rng.choice(["RGB", "L", "LAB", "CMYK", "P", "1", "YCbCr"]))
    kinds = [0, *rng.choice([0, 1, 4, 5], size=rng.integers(3)).tolist()]
    data = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(data) as pages:
        for kind in kinds:
            image.convert(mode).save(pages, "TIFF", tiffinfo={254: kind})
            pages.newFrame()
    (folder / "a.tif").write_bytes(data.getvalue())
    made = ImageEncoder().encode(Source(id="a", path=folder / "a.tif"))
    if mode == "LAB" or kinds[1:].count(0):
        return "wrong"
    with Image.open(io.BytesIO(made.members["png"].data)) as stored, Image.open(folder / "a.tif") as first:
        pair = [np.asarray(one.convert("RGB"), np.int16) for one in (stored, first)]
    return "sample" if np.abs(pair[0] - pair[1]).max() <= (3 if mode in ("CMYK", "YCbCr") else 0) else "wrong"
