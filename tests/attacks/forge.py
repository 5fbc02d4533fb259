"""Forges splits: members, numbers of the manifest and values of dataset.json change, and every checksum is right.

A forger can write any file. So what a loader reads of a forged split may be anything that the format can hold, and each
change is written by the package's own writer, which computes offsets, indexes and sums anew.

    samples = few_samples("mesh", raw_folder)
    forged = Forger(samples, seed=7, number=0).write(folder)
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipelines import image_text_loader, mesh_loader
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.preprocess.encode.mesh.encoder import encode_surface
from maskstream.preprocess.encode.mesh.surfaces import check_surface
from maskstream.shards.checksummed import add_checksum
from maskstream.shards.format.dataset import DATASET_JSON, finish_split
from maskstream.shards.format.records import Placed, Row
from maskstream.shards.format.sample import Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.media.mesh_members import encode_mesh
from maskstream.shards.members.text import json_member

from ..pipelines.every_modality import IMAGE_TEXT, MODALITIES, Modality, described

SIZES = (2, 2)
"""The samples of each shard; the first sample of the first shard is never changed."""
INTEGERS = (0, 1, -1, 2, 7, 255, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, -(2**31), -(2**63))
FLOATS = (0.0, -0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"), 1e9, 0.5)
WORDS = ("", "h264", "hevc", "av1", "<f4", ">f8", "|O", "../x", "mp4", "\x1b[31m", "x" * 300)
VALUES: tuple[Any, ...] = (None, True, *INTEGERS, -1.5, 1e308, "", "x", "../../x", [], {}, [None], {"a": []}, [1e308])


def _surfaces(raw: Path) -> list[Sample]:
    samples = []
    for i in range(sum(SIZES)):
        rng = np.random.default_rng(i)
        faces = np.stack([rng.permutation(20)[:3] for _ in range(40)])
        made = encode_surface(check_surface(rng.normal(size=(20, 3)), faces))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", sums=made.sums))
    return samples


_ALONE = {**IMAGE_TEXT, "pairs": False}
FORGED: dict[str, Modality] = {
    **MODALITIES,
    "image-text": replace(
        MODALITIES["image-text"],
        loader=partial(image_text_loader, **_ALONE),
        source=ImageTextData(**_ALONE).source,
    ),
    "surface": Modality(samples=_surfaces, loader=mesh_loader, component="mesh.npz", source=MeshData().source),
}
"""The splits that are forged, by name; `mesh` has simulations. A sample is compared by itself, so none has the texts of
others.
"""


def modality_of(name: str) -> str:
    """The modality of a split."""
    return "mesh" if name == "surface" else name


def few_samples(name: str, raw: Path) -> list[Sample]:
    """The samples that are forged, with raw files in `raw`."""
    samples = FORGED[name].samples(raw)[: sum(SIZES)]
    return [replace(sample, label=i % 2) for i, sample in enumerate(samples)]


def write_forged(
    name: str, samples: Sequence[Sample], folder: Path, change: Callable[[dict[str, Row]], None] = lambda rows: None
) -> None:
    """Writes a finished split; `change` may change the columns of a sample's members, by the sample's key."""
    left = iter(samples)
    shards = [[next(left) for _ in range(size)] for size in SIZES]
    records = [write_shard(folder / f"t-{n:06d}.tar", shard) for n, shard in enumerate(shards)]
    change({row.key: row for record in records for row in record.rows})
    finish_split(folder, described(modality_of(name), folder), records, [])


@dataclass(kw_only=True)
class Forged:
    """What was written: the folder of the split, what was changed, and the keys of the samples that are as before.

    largest: the size of the largest member, in bytes.
    """

    folder: Path
    changes: list[str]
    unchanged: set[str]
    largest: int


@dataclass(kw_only=True)
class Forger:
    """Draws changes for forgery `number` of `seed`, and writes the forged split."""

    name: str
    samples: list[Sample]
    seed: int
    number: int
    changes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, self.number, *self.name.encode()])

    def write(self, folder: Path) -> Forged:
        """The forged split in an empty folder."""
        samples, touched, of_split = list(self.samples), set[int](), False
        columns: list[Callable[[dict[str, Row]], str]] = []
        for _ in range(int(self.rng.integers(1, 4))):
            at = int(self.rng.integers(1, len(samples)))
            what = self.rng.choice(["member", "column", "label", "dataset"], p=[0.5, 0.38, 0.02, 0.1])
            if what == "dataset":
                of_split = True
                continue
            touched.add(at)
            key, component = samples[at].key, str(self.rng.choice(list(samples[at].members)))
            if what == "member":
                samples[at] = self._with_member(samples[at], component)
            elif what == "label":
                samples[at] = replace(samples[at], label=self._integer(0))
                self.changes.append(f"{key}: label {samples[at].label}")
            else:
                columns.append(self._column(key, component))
        write_forged(self.name, samples, folder, lambda rows: self.changes.extend(change(rows) for change in columns))
        if of_split:
            self._change_dataset(folder / DATASET_JSON)
        unchanged = set() if of_split else {s.key for n, s in enumerate(samples) if n not in touched}
        largest = max(len(member.data) for sample in samples for member in sample.members.values())
        return Forged(folder=folder, changes=self.changes, unchanged=unchanged, largest=largest)

    # The bytes of members.

    def _with_member(self, sample: Sample, component: str) -> Sample:
        member = sample.members[component]
        arrays = self.rng.random() < 0.5
        if component.endswith(".npz") and arrays:
            data, how = self._forged_mesh(member.data)
        elif component.endswith(".npy") and arrays:
            data, how = self._forged_array(member.data)
        else:
            data, how = self._forged_bytes(member.data)
        self.changes.append(f"{sample.key}.{component}: {how}")
        return replace(sample, members={**sample.members, component: replace(member, data=data)})

    def _forged_bytes(self, data: bytes) -> tuple[bytes, str]:
        rng, size = self.rng, len(data)
        near = int(rng.choice([64, 512, 4096, size or 1]))
        at = int(rng.integers(max(min(near, size), 1)))
        how = str(rng.choice(["bits", "number", "cut", "zeros", "again", "noise", "longer", "all", "empty"]))
        if how == "bits":
            changed = bytearray(data)
            places = rng.integers(max(min(near, size), 1), size=int(rng.integers(1, 9)))
            for place in places.tolist() if size else ():
                changed[place] ^= 1 << int(rng.integers(8))
            return bytes(changed), f"bits at {places.tolist()}"
        if how == "number":
            form = str(rng.choice(["<H", ">H", "<I", ">I", "<Q", ">Q"]))
            value = self._integer(0) % (1 << 8 * struct.calcsize(form))
            return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :], f"{value} at {at}"
        if how == "empty":
            return b"", how
        if how == "all":
            return rng.bytes(size), "noise"
        end = int(rng.integers(at, size + 1))
        changed_to = {
            "cut": data[:at],
            "zeros": data[:at] + bytes(end - at) + data[end:],
            "again": data[:at] + data[at:end] * 3 + data[end:],
            "noise": data[:at] + rng.bytes(end - at) + data[end:],
            "longer": data + rng.bytes(int(rng.integers(1, 5000))),
        }
        return changed_to[how], f"{how} from {at} to {end}"

    def _forged_mesh(self, data: bytes) -> tuple[bytes, str]:
        with np.load(io.BytesIO(data)) as file:
            arrays = {name: file[name] for name in file.files}
        name = str(self.rng.choice(list(arrays)))
        how = str(self.rng.choice(["packed", "gone", "value", "form"]))
        if how == "packed":
            file_ = io.BytesIO()
            np.savez_compressed(file_, **{**arrays, name: np.zeros((1 << 24, 3), arrays[name].dtype)})
            return file_.getvalue(), f"a bomb in {name}"
        if how == "gone":
            del arrays[name]
        else:
            arrays[name] = self._array(arrays[name], how)
        try:
            return encode_mesh(**arrays), f"{how} of {name}"
        except (ValueError, zipfile.LargeZipFile):
            return data, "nothing"

    def _forged_array(self, data: bytes) -> tuple[bytes, str]:
        array, how = np.load(io.BytesIO(data)), str(self.rng.choice(["value", "form", "header"]))
        file = io.BytesIO()
        if how == "header":
            text = (
                f"{{'descr': '{self.rng.choice(WORDS)}', 'fortran_order': True, 'shape': ({self._integer(3)}, 3), }}\n"
            )
            return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data[128:], "header"
        np.save(file, self._array(array, how), allow_pickle=False)
        return file.getvalue(), how

    def _array(self, array: np.ndarray, how: str) -> np.ndarray:
        if how == "form":
            forms: list[Callable[[np.ndarray], np.ndarray]] = [
                lambda a: a[:0],
                lambda a: a[: len(a) // 2],
                lambda a: a.ravel(),
                lambda a: a.astype(np.float64),
                lambda a: a.astype(np.int64),
                lambda a: a.astype(">f4"),
                lambda a: a.astype("U4"),
                lambda a: a[..., :1],
                lambda a: np.repeat(a, 2, axis=-1),
                lambda a: np.asfortranarray(a),
            ]
            return forms[int(self.rng.integers(len(forms)))](array)
        changed = array.copy()
        whole = changed.dtype.kind in "iu"
        value: float = self._integer(0) if whole else float(self.rng.choice(FLOATS))
        with np.errstate(all="ignore"):
            place = int(self.rng.integers(max(changed.size, 1)))
            stop = place + int(self.rng.choice([1, 5, changed.size]))
            flat = changed.reshape(-1)
            flat[place:stop] = np.array(value).astype(np.int64).astype(changed.dtype) if whole else value
        return changed

    # The columns of the manifest.

    def _column(self, key: str, component: str) -> Callable[[dict[str, Row]], str]:
        def change(rows: dict[str, Row]) -> str:
            return f"{key}.{component}: {self._change_columns(rows[key].members, component)}"

        return change

    def _change_columns(self, members: dict[str, Placed], component: str) -> str:
        placed = members[component]
        choices = [("place", "offset"), ("place", "size"), ("gone", ""), ("kind", "")]
        choices += [("fact", name) for name in placed.facts for _ in range(3)]
        choices += [("word", name) for name in placed.words] + [("list", n) for n in placed.lists for _ in range(3)]
        what, name = choices[int(self.rng.integers(len(choices)))]
        if what == "gone" and len(members) > 1:
            del members[component]
        elif what == "place":
            members[component] = replace(placed, **{name: self._integer(getattr(placed, name))})
        elif what == "fact":
            old = placed.facts[name]
            new = self._integer(old) if isinstance(old, int) else float(self.rng.choice([*FLOATS, -old, old * 1.1]))
            members[component] = replace(placed, facts={**placed.facts, name: new})
            return f"{name} from {old} to {new}"
        elif what == "word":
            members[component] = replace(placed, words={**placed.words, name: str(self.rng.choice(WORDS))})
        elif what == "list":
            members[component] = replace(placed, lists={**placed.lists, name: self._list(placed.lists[name])})
        return f"{what} {name}"

    def _integer(self, old: int) -> int:
        near = [old + 1, old - 1, 2 * old, -old, old // 2, old + 512, int(self.rng.integers(1 << 40))]
        value = [*INTEGERS, *near][int(self.rng.integers(len(INTEGERS) + len(near)))]
        return max(min(value, 2**63 - 1), -(2**63))

    def _list(self, values: np.ndarray) -> np.ndarray:
        how = int(self.rng.integers(6))
        if how == 0 or not len(values):
            return values[:0] if how else np.append(values, self._integer(0))
        if how == 1:
            return values[:-1]
        if how == 2:
            return values[::-1].copy()
        changed = values.copy()
        at = int(self.rng.integers(len(values)))
        changed[at] = self._integer(int(changed[at]))
        return changed

    # dataset.json.

    def _change_dataset(self, path: Path) -> None:
        """One value anywhere in dataset.json, or none at all; the seal is right."""
        fields = json.loads(path.read_bytes())
        places: list[tuple[Any, Any]] = []

        def walk(value: Any) -> None:
            for at in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
                places.append((value, at))
                walk(value[at])

        walk(fields)
        holder, at = places[int(self.rng.integers(len(places)))]
        if isinstance(holder, dict) and self.rng.random() < 0.2:
            del holder[at]
            self.changes.append(f"dataset.json: without {at}")
        else:
            holder[at] = VALUES[int(self.rng.integers(len(VALUES)))]
            self.changes.append(f"dataset.json: {at} is {holder[at]!r}")
        fields.pop("xxh3_128", None)
        path.write_bytes(add_checksum(fields))
