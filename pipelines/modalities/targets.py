"""Targets: outputs of a frozen teacher or tokenizer, read from shards instead of computed in every step.

    maskstream targets RUN DATA --recipe NAME --cycle 4       writes them
    --set data.targets=FOLDER                                 reads them into batch.fields["targets"]

The teacher's output depends on a clip's frames and crop, and cropping the output is not equivalent to cropping the
input. Targets are therefore computed for clips, crops and colours that repeat: an epoch uses the draws of `epoch %
cycle`, whatever the run's seed. A sample has one array (cycle, views, tokens, channels), or (cycle, views, tokens) of
ids, and a batch reads one row of it. Views that differ only in their masks share a row. Masks do not repeat.

The folder is a separate split with the keys of the original samples. Its `dataset.json` records the teacher's weights
and the clips and samples; a loader refuses targets that do not match them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from maskstream.shards.arrays import Int64s
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
"""Component of a sample that contains its targets."""


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
"""Required entries of dataset.json for stored targets, with their checks."""


def read_targets_facts(info: Mapping[str, Any], location: str) -> Json:
    """Read the description of stored targets from dataset.json.

    Raises:
        ValueError: The folder, named in the message, does not contain targets.
    """
    facts = info["settings"].get(TARGETS)
    if info["modality"] != TARGETS or not isinstance(facts, dict):
        raise ValueError(
            f"targets={location!r} contains {info['modality']}, not targets; create them with `maskstream "
            "targets RUN DATA --out FOLDER`"
        )
    wrong = [f"{name}={facts.get(name)!r:.60}" for name, has_form in _FORMS.items() if not has_form(facts.get(name))]
    if wrong:
        raise ValueError(
            f"targets={location!r}: dataset.json has {', '.join(wrong)}, which targets never have; delete the "
            "folder and run `maskstream targets` again"
        )
    return facts


def _check_table(manifest: Manifest, shape: list[int], dtype: str, location: str) -> None:
    """Raise ValueError unless the manifest lists this shape and dtype for all arrays."""
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
            f"targets={location!r}: dataset.json lists the shape {tuple(shape)} and the type {dtype}, but the "
            "manifest differs; run `maskstream targets` again"
        )


def check_targets(location: str | None, weights: str, model: str) -> None:
    """Check that stored targets, if any, were computed with these model weights.

    Args:
        location: Folder of targets; None skips the check.
        weights: Checksum of the model's weights.
        model: Name of the model for the message, such as "model.teacher='runs/videomae-tiny'".

    Raises:
        ValueError: The targets were computed with other weights.
    """
    if location is None or not is_split(store := open_store(location)):
        return
    found = read_targets_facts(read_description(store), location)["weights"]
    if found != weights:
        raise ValueError(
            f"targets={location!r} were created by a model with the checksum {found}, but {model} has "
            f"{weights or 'none'}; specify the model that created them, or create new targets with `maskstream "
            "targets`"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetReader:
    """Reads the targets of the samples of a split."""

    manifest: Manifest
    """Manifest of the targets."""
    rows: Int64s
    """int64 (N,): row of each sample's targets; -1 for samples without."""
    cycle: int
    """Number of stored clips per sample."""
    shape: tuple[int, ...]
    """Shape of one clip's targets: (views, tokens, channels), or (views, tokens) for ids."""
    dtype: np.dtype[Any]
    identity: Json
    """Origin of the targets, compared on resume."""
    checked: set[int] = field(default_factory=set)
    """Numbers of the shards whose arrays were compared with the manifest."""

    @classmethod
    def open(cls, location: str, geometry: Mapping[str, Any], cycle: int | None, split: Split) -> TargetReader:
        """Open a folder of targets.

        Args:
            location: Folder or URL.
            geometry: Settings that determine the visible pixels of samples (`SplitConfig.geometry`).
            cycle: Expected number of clips per sample; None accepts any.
            split: Split that the targets belong to.

        Raises:
            ValueError: The folder has no targets, or targets for other clips, crops, samples or numbers of clips.
        """
        manifest = Manifest.load(location)
        facts = read_targets_facts(manifest.info, location)
        _check_table(manifest, [facts["cycle"], *facts["shape"]], facts["dtype"], location)
        again = f"make them with `maskstream targets RUN {split.manifest} --out FOLDER`"
        if changes := differences(facts["geometry"], geometry):
            raise ValueError(
                f"targets={location!r} were made for different clips and crops ({'; '.join(changes)}); use "
                f"the settings that they were made with, or {again}"
            )
        if cycle not in (None, facts["cycle"]):
            raise ValueError(
                f"targets={location!r} have {facts['cycle']} clips per sample, but cycle={cycle}; leave cycle "
                f"out, or {again} and --cycle {cycle}"
            )
        if facts["fingerprint"] != split.manifest.fingerprint:
            raise ValueError(
                f"targets={location!r} were made for version {facts['version']} of their split (fingerprint "
                f"{facts['fingerprint']}), but {split.manifest} is open in version {split.manifest.version} "
                f"({split.manifest.fingerprint}); {again}: targets of unchanged shards are reused"
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
        """Locate the targets of sample `index` in an epoch.

        Raises:
            SampleError: The sample has no targets.
        """
        row = int(self.rows[index])
        if row < 0:
            raise split.sample_error(index, TARGETS, f"{self.manifest} has no targets for it")
        member = self.manifest.member(row, ARRAY)
        size = prod(self.shape) * self.dtype.itemsize
        with split.reading(index, TARGETS):
            begin = int(self.manifest.components[ARRAY].facts["data_offset"][row])
            if begin + self.cycle * size != member.size:
                raise DataError(f"{self.manifest} has {member.size} bytes for it, not {begin + self.cycle * size}")
        return Range(member.name, member.offset + begin + epoch % self.cycle * size, size)

    def read(self, split: Manifest, index: int, place: Range) -> npt.NDArray[Any]:
        """Read targets, (views, tokens[, channels]).

        Raises:
            SampleError: They cannot be read.
        """
        row = int(self.rows[index])
        with split.reading(index, TARGETS), self.manifest.reading(row, ARRAY):
            self._check_shard(row)
            data = self.manifest.store.read(*place)
        return np.frombuffer(data, self.dtype).reshape(self.shape)

    def _check_shard(self, row: int) -> None:
        """Compare the first array that is read of each shard with the manifest, and raise DataError if it differs.

        Jobs of other teachers write tars of the same sizes, whose block checksums match.
        """
        shard = int(self.manifest.shard[row])
        if shard in self.checked:
            return
        found = xxhash.xxh3_128_digest(self.manifest.store.read(*self.manifest.member(row, ARRAY)))
        if found != self.manifest.components[ARRAY].digest[row].tobytes():
            raise DataError(f"{self.manifest.shard_name(row)} is not listed in the manifest of {self.manifest}")
        self.checked.add(shard)
