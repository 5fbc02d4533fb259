"""Targets: what a frozen teacher or tokenizer makes of samples, read of shards instead of computed in each step.

    maskstream targets RUN DATA --recipe NAME --cycle 4       writes them
    --set data.targets=FOLDER                                 reads them into batch.fields["targets"]

What a teacher makes of a clip depends on its frames and its crop, and no crop of its output is its output of a crop. So
targets are made of clips, crops and colours that repeat: those of an epoch are those of `epoch % cycle`, whatever the
seed of a run. A sample has an array (cycle, views, tokens, channels), or (cycle, views, tokens) of ids, and a batch
takes one row of it. Views that differ in their masks alone have one row together. Masks do not repeat.

The folder is a split of its own, whose samples have the keys of those that it is of. Its dataset.json says of which
weights, clips and samples it is, and a loader with others refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.config import Json, differences
from maskstream.shards.errors import DataError
from maskstream.shards.format.dataset import is_split, read_description
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import TARGETS as TARGETS
from maskstream.shards.format.sample import make_targets_key
from maskstream.shards.stores.base import Range
from maskstream.shards.stores.open import open_store

if TYPE_CHECKING:
    from .split import Split

ARRAY = "npy"
"""The component of a sample that holds its targets."""


_FORMS: Mapping[str, Callable[[Any], bool]] = {
    "weights": lambda value: isinstance(value, str),
    "geometry": lambda value: isinstance(value, dict),
    "cycle": lambda value: type(value) is int and value > 0,
    "dtype": lambda value: value in ("<f4", "<f2", "<i4"),
    "shape": lambda value: (
        isinstance(value, list) and len(value) in (2, 3) and all(type(one) is int and one > 0 for one in value)
    ),
    "fingerprint": lambda value: isinstance(value, str),
    "version": lambda value: type(value) is int,
}
"""What dataset.json of stored targets must say of them."""


def read_targets_facts(info: Mapping[str, Any], location: str) -> Json:
    """What the dataset.json of stored targets says of them; ValueError, which names the folder, for another one."""
    facts = info["settings"].get(TARGETS)
    if info["modality"] != TARGETS or not isinstance(facts, dict):
        raise ValueError(
            f"targets={location!r} holds {info['modality']}, and no targets; make them with `maskstream targets RUN "
            "DATA --out FOLDER`"
        )
    wrong = [f"{name}={facts.get(name)!r:.60}" for name, has_form in _FORMS.items() if not has_form(facts.get(name))]
    if wrong:
        raise ValueError(
            f"targets={location!r}: dataset.json has {', '.join(wrong)}, which no targets have; delete the folder, and "
            "run `maskstream targets` again"
        )
    return facts


def _check_table(manifest: Manifest, shape: list[int], dtype: str, location: str) -> None:
    """ValueError unless all arrays of a split have this shape and type by its manifest."""
    arrays = manifest.components.get(ARRAY)
    if arrays is None or "shape" not in arrays.lists or "dtype" not in arrays.words:
        raise ValueError(f"targets={location!r} has no arrays; run `maskstream targets` again")
    rows = np.flatnonzero(arrays.offset)
    shapes, words = arrays.lists["shape"], arrays.words["dtype"]
    alike = np.diff(shapes.start)[rows] == len(shape)
    is_whole = bool(alike.all()) and all(
        (shapes.values[shapes.start[rows] + at] == side).all() for at, side in enumerate(shape)
    )
    if not is_whole or {words.names[code] for code in np.unique(words.code[rows]).tolist()} != {dtype}:
        raise ValueError(
            f"targets={location!r}: dataset.json has the shape {tuple(shape)} and the type {dtype}, and its manifest "
            "has others; run `maskstream targets` again"
        )


def check_targets(location: str | None, weights: str, model: str) -> None:
    """ValueError for targets at a location, if there are any, that a model with another checksum than `weights` made.

    model: what names it, such as "model.teacher='runs/videomae-tiny'".
    """
    if location is None or not is_split(store := open_store(location)):
        return
    found = read_targets_facts(read_description(store), location)["weights"]
    if found != weights:
        raise ValueError(
            f"targets={location!r} were made by a model with the checksum {found}, and that of {model} has "
            f"{weights or 'none'}; name the model that made them, or make others with `maskstream targets`"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetReader:
    """Reads the targets of the samples of a split.

    manifest: of the targets. rows: int64 (N,), where those of each sample are, -1 for a sample without. cycle: the
    number of clips of a sample. shape: of the targets of one clip, (views, tokens, channels), or (views, tokens) of
    ids. identity: what they were made of, which a resume compares.
    """

    manifest: Manifest
    rows: npt.NDArray[np.int64]
    cycle: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    identity: Json

    @classmethod
    def open(cls, location: str, geometry: Mapping[str, Any], cycle: int | None, split: Split) -> TargetReader:
        """The reader of a folder of targets. geometry: what is seen of samples (`SplitConfig.geometry`).

        ValueError for a folder that holds none, or those of other clips, crops, samples or numbers of clips.
        """
        manifest = Manifest.load(location)
        facts = read_targets_facts(manifest.info, location)
        _check_table(manifest, [facts["cycle"], *facts["shape"]], facts["dtype"], location)
        again = f"make them with `maskstream targets RUN {split.manifest} --out FOLDER`"
        if changes := differences(facts["geometry"], geometry):
            raise ValueError(
                f"targets={location!r} are of other clips and crops ({'; '.join(changes)}); use the settings that they "
                f"were made with, or {again}"
            )
        if cycle not in (None, facts["cycle"]):
            raise ValueError(
                f"targets={location!r} are of {facts['cycle']} clips of a sample, and cycle={cycle}; leave cycle out, "
                f"or {again} and --cycle {cycle}"
            )
        if facts["fingerprint"] != split.manifest.fingerprint:
            raise ValueError(
                f"targets={location!r} are of version {facts['version']} of their split (fingerprint "
                f"{facts['fingerprint']}), and {split.manifest} is open in version {split.manifest.version} "
                f"({split.manifest.fingerprint}); {again}: shards that are the same are not made again"
            )
        found = {key: row for row, key in enumerate(manifest.keys(range(len(manifest))))}
        keys = map(make_targets_key, split.manifest.keys(range(len(split.manifest))))
        return cls(
            manifest=manifest,
            rows=np.fromiter((found.get(key, -1) for key in keys), np.int64, len(split.manifest)),
            cycle=facts["cycle"],
            shape=tuple(facts["shape"]),
            dtype=np.dtype(facts["dtype"]),
            identity=facts,
        )

    def place(self, split: Manifest, index: int, epoch: int) -> Range:
        """Where the targets of sample `index` of a split are in an epoch; SampleError for one without."""
        row = int(self.rows[index])
        if row < 0:
            raise split.sample_error(index, TARGETS, f"{self.manifest} has no targets of it")
        member = self.manifest.member(row, ARRAY)
        size = prod(self.shape) * self.dtype.itemsize
        with split.reading(index, TARGETS):
            begin = int(self.manifest.components[ARRAY].facts["data_offset"][row])
            if begin + self.cycle * size != member.size:
                raise DataError(f"{self.manifest} has {member.size} bytes of it, not {begin + self.cycle * size}")
        return Range(member.name, member.offset + begin + epoch % self.cycle * size, size)

    def read(self, split: Manifest, index: int, place: Range) -> npt.NDArray[Any]:
        """The targets (views, tokens[, channels]) at a place; SampleError where they cannot be read."""
        with split.reading(index, TARGETS), self.manifest.reading(int(self.rows[index]), ARRAY):
            data = self.manifest.store.read(*place)
        return np.frombuffer(data, self.dtype).reshape(self.shape)
