"""The weights of samples that a loader takes.

    weights="balanced"             every label as often
    weights="quality"              the number `quality` in the `json` of each sample, all of which are read once
    weights="weights.csv"          the columns key and weight; a sample without a line has the weight 0
    weights="weights.npy"          float (N,), in the order of the split
    weights=numbers                the same as an array or a sequence

A sample of weight w comes w N / sum times in an epoch of N samples; see stream/weights.py.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.stream.weights import Weights
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.npy import NpyError, read_npy
from maskstream.shards.named import nearest

SampleWeights = str | Path | Sequence[float] | npt.NDArray[np.floating] | None
"""What `weights=` takes."""
BALANCED = "balanced"
_JSON = "json"
_AT_ONCE = 1024


def sample_weights(manifest: Manifest, given: SampleWeights) -> Weights | None:
    """The weights of a split's samples. Raises ValueError for what gives none, ShardError if a field cannot be read."""
    if given is None:
        return None
    if not isinstance(given, str | Path):
        return Weights(np.asarray(given, np.float64))
    suffix = Path(given).suffix.lower()
    if suffix == ".npy":
        return Weights(_of_array(Path(given)))
    if suffix == ".csv":
        return Weights(_of_table(manifest, Path(given)))
    return Weights(_balanced(manifest) if given == BALANCED else _of_field(manifest, str(given)))


def _balanced(manifest: Manifest) -> npt.NDArray[np.float64]:
    """One over the number of samples that have the sample's label; 0 for a sample without a label."""
    label = manifest.label
    if not (label >= 0).any():
        raise ValueError(f"weights={BALANCED!r}: no sample has a label; give the weights themselves")
    counts = np.bincount(label[label >= 0])
    return np.where(label >= 0, 1.0 / counts[np.maximum(label, 0)].clip(1), 0.0)


def _of_array(path: Path) -> npt.NDArray[np.float64]:
    try:
        return read_npy(path.read_bytes()).astype(np.float64)
    except (OSError, NpyError, ValueError) as error:
        raise ValueError(f"weights={str(path)!r} is no file of numbers ({error})") from error


def _of_table(manifest: Manifest, path: Path) -> npt.NDArray[np.float64]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(row["key"], float(row["weight"])) for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"weights={str(path)!r} is no csv file with the columns key and weight ({type(error).__name__}: {error})"
        ) from error
    found = dict(rows)
    if twice := [key for key, lines in Counter(key for key, _ in rows).items() if lines > 1][:1]:
        raise ValueError(f"weights={str(path)!r} has the key {twice[0]!r} in several lines; leave one of them")
    keys = manifest.keys(range(len(manifest)))
    if unknown := sorted(found.keys() - {*keys})[:1]:
        raise ValueError(f"weights={str(path)!r} has the key {unknown[0]!r}, which the split does not; take it out")
    return np.array([found.get(key, 0.0) for key in keys])


def _of_field(manifest: Manifest, name: str) -> npt.NDArray[np.float64]:
    if _JSON not in manifest.components:
        raise ValueError(f"weights={name!r}: the samples have no json; give a file of weights (.csv or .npy)")
    values = np.empty(len(manifest))
    for first in range(0, len(values), _AT_ONCE):
        some = range(first, min(first + _AT_ONCE, len(values)))
        read = manifest.store.read_many([manifest.member(index, _JSON) for index in some])
        for index, data in zip(some, read, strict=True):
            try:
                values[index] = float(json.loads(data)[name])
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ShardError(
                    f"weights={name!r}{nearest(name, [BALANCED])}: the json of sample {manifest.key(index)!r} has no "
                    f"such number ({type(error).__name__}: {error}); give {BALANCED!r}, a field that all samples have, "
                    "a .csv or .npy file, or an array"
                ) from error
    return values
