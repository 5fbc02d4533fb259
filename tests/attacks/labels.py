"""Label tables that differ: files, splits and mixtures that number their classes otherwise, or lack names.

    python -m tests.attacks labels -n 250 --seed 0

The name of each sample's class stands in its key or its row. "right": all samples have that class, by the number and
the names that are given. "refused": an error that says why. "wrong": a sample has another class.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.pipelines import Loader, masks, mix
from maskstream.pipelines.augment import Native
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.pipelines.modalities.split import Split
from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.source import Source
from maskstream.preprocess.versions.appending import append
from maskstream.preprocess.versions.merging import merge
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.train.evaluate.features import match_labels

CLASSES = ("cat", "dog", "cow", "owl", "bee", "7")
NONE = "none"
PIXELS = cv2.imencode(".png", np.full((16, 16, 3), 90, np.uint8))[1].tobytes()


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Reads `count` sets of files or splits with tables of their own; returns how many ended in which way."""
    ends: Counter[str] = Counter()
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kind = (_parquet, _texts, _list, _mixture, _rows, _versions, _test)[int(rng.integers(7))]
        place = folder / f"{number}"
        place.mkdir()
        try:
            end = "right" if kind(rng, place) else "wrong"
        except (MaskstreamError, ValueError) as error:
            end = "refused" if str(error) else "foreign"
        except Exception as error:
            end = "foreign"
            print(f"{error!r:.300}")
        if end not in ("right", "refused"):
            print(f"{end}: seed {seed}, number {number}, {kind.__name__}")
        ends[end] += 1
        shutil.rmtree(place)
    return ends


def _table(rng: np.random.Generator) -> list[str]:
    """Some of the classes in any order, two at least."""
    return [str(name) for name in rng.permutation(CLASSES)[: rng.integers(2, len(CLASSES) + 1)]]


def _drawn(rng: np.random.Generator, table: list[str], n: int = 6) -> list[str]:
    """The classes of `n` samples; a few have none."""
    return [NONE if rng.random() < 0.1 else str(rng.choice(table)) for _ in range(n)]


def _parquet(rng: np.random.Generator, folder: Path) -> bool:
    """Parquet files whose labels are names, or numbers of their own ClassLabel, or numbers without names."""
    _write_parquet(rng, folder, ["class", "class", "class", "names", "numbers"], "image", PIXELS)
    dataset = DATASETS["parquet-image"](folder)
    found = [source for sources in dataset.splits.values() for source in sources]
    return _named([(source.meta["id"].partition("/")[0], source.label) for source in found], dataset.label_names)


def _texts(rng: np.random.Generator, folder: Path) -> bool:
    """The same of texts, whose numbers stay as they are: one number is one class in all files."""
    _write_parquet(rng, folder, ["class", "class", "names"], "text", "x")
    dataset = DATASETS["parquet-text"](folder)
    found = [source for sources in dataset.splits.values() for source in sources]
    pairs = [(source.id.partition("/")[0], source.label) for source in found]
    if {*dataset.label_names} <= {*CLASSES}:
        return _named(pairs, dataset.label_names)
    return len({*pairs}) == len({label for _, label in pairs})


def _write_parquet(rng: np.random.Generator, folder: Path, ways: list[str], column: str, media: Any) -> None:
    """Files of a column of media, whose ids begin with the class of the row, which numbers alone call by the number."""
    shared = _table(rng) if rng.random() < 0.3 else None
    for number in range(rng.integers(2, 5)):
        table, way = shared or _table(rng), str(rng.choice(ways))
        classes = _drawn(rng, table)
        own = [None if one == NONE else one if way == "names" else table.index(one) for one in classes]
        told = [NONE if label is None else str(label) for label in own] if way == "numbers" else classes
        ids = [f"{one}/{number}/{n}" for n, one in enumerate(told)]
        features = {"label": {"names": table, "_type": "ClassLabel"}} if way == "class" else {}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        made = pa.table({column: [media] * len(own), "label": own, "id": ids}).replace_schema_metadata(metadata)
        pq.write_table(made, folder / f"{rng.choice(['train', 'test'])}-{number}.parquet")


def _list(rng: np.random.Generator, folder: Path) -> bool:
    """A list for each split, of which each has names."""
    for split in ("train", "val"):
        rows = ["path,label"]
        for n, name in enumerate(_drawn(rng, _table(rng))):
            (folder / f"{name}-{split}{n}.png").write_bytes(PIXELS)
            rows.append(f"{name}-{split}{n}.png,{'' if name == NONE else name}")
        (folder / f"{split}.csv").write_text("\n".join(rows))
    dataset = DATASETS["image-folder"](folder)
    found = [source for sources in dataset.splits.values() for source in sources]
    return _named([(source.path.name.partition("-")[0], source.label) for source in found], dataset.label_names)


def _named(pairs: list[tuple[str, int]], names: tuple[str, ...]) -> bool:
    """Whether each label is that of its sample's class."""
    return all((NONE if label < 0 else names[label]) == name for name, label in pairs)


def _split(rng: np.random.Generator, folder: Path, table: list[str] | None = None, number: int = 0) -> Path:
    """A split of pictures whose keys say their classes, and whose json has lists of them, by name or number."""
    table = _table(rng) if table is None else table
    encoded, samples = ImageEncoder().encode(Source(id="a", path=_picture(folder))), []
    for n, name in enumerate(_drawn(rng, table)):
        also = [str(one) for one in rng.permutation(table)[: rng.integers(1, len(table) + 1)]]
        lists = [table.index(one) if rng.random() < 0.5 else one for one in also]
        members = {**encoded.members, "json": json_member({**encoded.meta, "labels": lists, "own": " ".join(also)})}
        label = -1 if name == NONE else table.index(name)
        samples.append(Sample(key=f"{name}-{number}-{n}", members=members, source=f"{number}/{n}", label=label))
    split = folder / f"split-{number}"
    split.mkdir()
    info = DatasetInfo(dataset="t", split="train", modality="image", profile="image", label_names=tuple(table))
    finish_split(split, info, [write_shard(split / f"t-{number:06d}.tar", samples)], [])
    return split


def _picture(folder: Path) -> Path:
    (folder / "a.png").write_bytes(PIXELS)
    return folder / "a.png"


def _shown(made: Loader[Any]) -> bool:
    """Whether all rows of an epoch have the classes of their keys, and of their lists."""
    with_lists, names = True, made.label_names
    for batch in made:
        for key, label, own, hot in zip(
            batch.key, batch.label.tolist(), batch.fields["own"], batch.fields["labels"], strict=True
        ):
            name = NONE if label < 0 else names[label]
            with_lists &= {names[n] for n in hot.nonzero()[:, 0].tolist()} == {*str(own).split()}
            if name != key.partition("-")[0]:
                return False
    made.close()
    return with_lists


def _mixture(rng: np.random.Generator, folder: Path) -> bool:
    """A mixture of splits, perhaps of mixtures."""
    data = ImageData(size=16, patch=4, mask=masks.Random(ratio=0.5), fields=("labels", "own"))
    parts: list[Any] = []
    for number in range(rng.integers(2, 5)):
        split = Split.open(_split(rng, folder, number=number), "image", device="cpu", seed=number)
        parts.append((data.source(split), int(rng.integers(1, 4))))
        if len(parts) > 1 and rng.random() < 0.3:
            parts = [(mix(parts), 1)]
    workers = int(rng.random() < 0.05)
    return _shown(Loader(mix(parts), batch_size=4, device="cpu", workers=workers, threads=1))


def _rows(rng: np.random.Generator, folder: Path) -> bool:
    """Packed rows of several splits."""
    native = Native(patch=4, least=4, most=16)
    data = PackedData(native=native, row_tokens=64, mask=masks.Random(ratio=0.5), fields=("labels", "own"))
    splits = [_split(rng, folder, number=number) for number in range(rng.integers(2, 4))]
    parts = [(data.source(Split.open(split, "image", device="cpu")), 1) for split in splits]
    return _shown(Loader(mix(parts), batch_size=1, device="cpu", threads=1))


def _versions(rng: np.random.Generator, folder: Path) -> bool:
    """Splits that are merged, or appended to each other."""
    same = _table(rng) if rng.random() < 0.3 else None
    one, other = (_split(rng, folder, same, number) for number in range(2))
    if rng.random() < 0.5:
        append(one, other)
    else:
        merge(folder / "merged", [one, other])
        one = folder / "merged"
    return _keyed(Manifest.load(one))


def _test(rng: np.random.Generator, folder: Path) -> bool:
    """A test whose labels are numbered as those of the training split, or refused."""
    train, test = (Manifest.load(_split(rng, folder, number=number)) for number in range(2))
    more = [*train.label_names, *(name for name in test.label_names if rng.random() < 0.8)]
    return _keyed(match_labels(test, train.label_names, str(train)) if rng.random() < 0.5 else test.with_labels(more))


def _keyed(split: Manifest) -> bool:
    """Whether the labels of a split are those of its keys."""
    keys = [key.partition("-")[0] for key in split.keys(range(len(split)))]
    return _named(list(zip(keys, split.label.tolist(), strict=True)), split.label_names)
