"""Fields: values from a sample's `json` or `.npy` members, returned with its media in `batch.fields`.

    video_loader(data, fields=("labels", "caption", "action"))
    video_loader(data, fields=(Field(name="caption", default=""), Field(name="speed", per_frame=True)))

A field is read from the member NAME.npy if the split has one, from the text of the member NAME (such as txt), or from
the entry NAME of `json`. The values of a batch are combined by type:

    value                                  in batch.fields[NAME]
    a number, true or false                int64 (B,), or float64 if any has a fraction
    text                                   list of B strings
    a list of texts                        list of B strings: one drawn per sample when shuffled, else the first
    a list of names in label_names         float32 (B, classes), 1 for each class of the sample
    "labels" as a list of class numbers    the same
    an array or list of numbers            (B, longest, ...), padded with zeros, and NAME.length int64 (B,)
    an array with a row for each frame     (B, T, ...): the rows of the clip's frames; NAME.length is T
    the same, with `delta_timestamps`      (B, T, K, ...): the rows around each frame, and NAME_is_pad bool (B, T, K)

A list of strings holds texts in a split without class names, and under the roles of an image-text split. All lists of a
sample are drawn at the same index, so that a question keeps its answer; `image_text_loader` draws from these texts,
too.

An array with two or more axes that is as long as its video has one row per frame; for other arrays, set `per_frame`.

Arrays keep their dtype; lists of numbers become int64 or float64. With several views, each row repeats the sample's
fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.tensors import wrap_tensor
from maskstream.shards.arrays import Float64s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.errors import SampleError, ShardError, StoreError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.npy import read_npy
from maskstream.shards.members.text import ROLES, TEXTS
from maskstream.shards.stores.base import Range

if TYPE_CHECKING:
    from torch import Tensor

    from .rows import Item
    from .split import Split

JSON, TEXT = "json", "text"
LABELS = "labels"
PAD = "_is_pad"
TOLERANCE_S = 1e-4
"""Largest distance in seconds between a time of `delta_timestamps` and a frame; LeRobot's default."""

Array = npt.NDArray[Any]
Anchor = Literal["frames", "first", "last"]
Value = int | float | str | Array | frozenset[int]
"""Value of a sample: a number, text, an array, or its class numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field(Config):
    """A field of `batch.fields`, by name. Source of `delta_timestamps` and `anchor`: LeRobotDataset(delta_timestamps=).

    Attributes:
        name: Name of the member or `json` entry.
        default: Value for samples without the field; None raises an error for them.
        per_frame: Whether the array has one row per video frame, from which the clip's rows are selected; None decides
            by its shape.
        delta_timestamps: K times in seconds, before (negative) and after each frame of the clip, whose rows are
            returned instead of the frame's; multiples of the frame interval, to within 0.1 ms. Beyond the ends of the
            episode, the first or last row is repeated and NAME_is_pad, bool, is True.
        anchor: Frames that the times refer to: each of the clip's T "frames", (B, T, K, ...), or its "first" or "last"
            frame, (B, K, ...).
    """

    name: str
    default: bool | int | float | str | tuple[float, ...] | tuple[str, ...] | None = None
    per_frame: bool | None = None
    delta_timestamps: tuple[float, ...] | None = None
    anchor: Anchor = "frames"

    def validate(self) -> None:
        what = f"Field(name={self.name!r}"
        if self.delta_timestamps is None:
            if self.anchor != "frames":
                raise ValueError(f"{what}, anchor={self.anchor!r}): anchor needs delta_timestamps=; pass both")
            return
        object.__setattr__(self, "delta_timestamps", tuple(map(float, self.delta_timestamps)))
        if not self.delta_timestamps or not np.isfinite(self.delta_timestamps).all():
            raise ValueError(
                f"{what}, delta_timestamps={self.delta_timestamps}): pass offsets from a frame in seconds, "
                "such as (-0.1, 0, 0.1)"
            )
        if self.per_frame is False:
            raise ValueError(f"{what}, per_frame=False, delta_timestamps=...): delta_timestamps needs per_frame=True")

    @property
    def names(self) -> tuple[str, ...]:
        """Names in `batch.fields`."""
        return (self.name,) if self.delta_timestamps is None else (self.name, f"{self.name}{PAD}")

    def steps(self, fps: float) -> Int64s:
        """Convert `delta_timestamps` to frames, int64 (K,), for a video with `fps` frames per second.

        Raises:
            ValueError: A time is more than 0.1 ms from a frame.
        """
        wanted = np.array(self.delta_timestamps or ())
        steps = np.rint(wanted * fps)  # round half to even, as LeRobot does with Python's round
        if (odd := wanted[np.abs(wanted - steps / fps) > TOLERANCE_S]).size:
            near = np.unique([np.floor(odd[0] * fps), np.ceil(odd[0] * fps)])
            raise ValueError(
                f"Field(name={self.name!r}): {odd[0]:g} in delta_timestamps is not a multiple of 1/{fps:g} s, the "
                f"frame interval; the nearest are {' and '.join(f'{step:.0f}/{fps:g}' for step in near)}"
            )
        return steps.astype(np.int64)


Fields = tuple[str | Field, ...]
"""Fields to load: names, or `Field`s with defaults."""


@runtime_checkable
class OverTime(Protocol):
    """Request of a clip: its frame numbers int64 (T,), of `n_frames` frames at `fps` frames per second."""

    @property
    def numbers(self) -> Int64s: ...

    @property
    def n_frames(self) -> int: ...

    @property
    def fps(self) -> float: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldReader:
    """Reads the fields of samples and combines them into batches."""

    manifest: Manifest
    fields: tuple[Field, ...]
    draws: bool = False
    """Draw one of several texts instead of returning the first."""

    @classmethod
    def of(cls, split: Split, fields: Fields, fps: Float64s | None = None) -> FieldReader:
        """Create a reader of some fields.

        Args:
            split: Split with the samples.
            fields: Fields to read.
            fps: float64 (N,), frames per second of each sample, 0 if unknown; None if samples have no frames.

        Raises:
            ValueError: A field is named twice, or no sample can have it.
        """
        manifest = split.manifest
        wanted = tuple(Field(name=f) if isinstance(f, str) else f for f in fields)
        names = [name for f in wanted for name in f.names]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"fields={names}: {', '.join(twice)} is listed more than once")
        if nowhere := [f.name for f in wanted if _find_member(manifest, f.name) not in manifest.components]:
            raise ValueError(
                f"fields={names}: no sample has {', '.join(nowhere)}, since there is neither a json member "
                f"nor {nowhere[0]}.npy; the components are {', '.join(manifest.components)}"
            )
        for f in wanted:
            if f.delta_timestamps is not None:
                if fps is None:
                    raise ValueError(f"field {f.name!r} has delta_timestamps, but these samples have no frames")
                for one in np.unique(fps[fps > 0]).tolist():
                    f.steps(one)
        return cls(manifest=manifest, fields=wanted, draws=split.shuffle)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields in a batch."""
        return tuple(name for f in self.fields for name in f.names)

    def check(self, kept: Int64s | None) -> None:
        """Check before a run that the first sample has all fields.

        A field that cannot be decoded is handled later, by replacing the sample.

        Args:
            kept: int64 (n,), samples that are loaded; None for all.

        Raises:
            ShardError: The sample lacks a field.
        """
        wanted = [f for f in self.fields if f.default is None and _find_member(self.manifest, f.name) == JSON]
        numbers = range(len(self.manifest)) if kept is None else kept.tolist()
        gone = {*self.manifest.removed.tolist()} if wanted else set()
        index = next((number for number in numbers if number not in gone), None) if wanted else None
        if index is None:
            return
        with suppress(SampleError, StoreError):
            found = self.manifest.store.read_many([*self.members(index).values()])
            described = self._described(index, dict(zip(self.members(index), found, strict=True)).get(JSON))
            if lacking := next((f for f in wanted if described.get(f.name) is None), None):
                raise self._make_lacking_error(lacking, index, ", ".join(described))

    def members(self, index: int) -> dict[str, Range]:
        """Return the members of a sample that contain the fields."""
        if not self.fields:
            return {}
        components = self.manifest.components
        names = {_find_member(self.manifest, f.name) for f in self.fields}
        there = [name for name in sorted(names) if name in components and components[name].offset[index]]
        return {name: self.manifest.member(index, name) for name in there}

    def collated(self, rows: Sequence[Mapping[str, Value]], views: int) -> dict[str, Tensor | list[str]]:
        """Combine the fields of a batch; each of a sample's `views` rows repeats its values."""
        classes = len(self.manifest.label_names)
        collated: dict[str, Tensor | list[str]] = {}
        for f in self.fields:
            for name in f.names:
                made = _join_rows(name, [values[name] for values in rows for _ in range(views)], classes)
                collated |= made if f.delta_timestamps is None else {name: made[name]}
        return collated

    def read(self, item: Item, plan: object, members: Mapping[str, Range], stats: Stats) -> dict[str, Value]:
        """Read the fields of a sample.

        Raises:
            SampleError: A value cannot be read.
            ShardError: A value is missing.
        """
        if not self.fields:
            return {}
        index = item.index
        names, wanted = list(members), list(members.values())
        with stats.stage("read"):
            with self.manifest.reading(index, ", ".join(names)):
                found = dict(zip(names, self.manifest.store.read_many(wanted), strict=True))
            described = self._described(index, found.get(JSON))
            for f in self.fields:
                texts = described.get(f.name)
                if isinstance(texts, list) and self._has_texts(f.name, texts):
                    draw = item.rng("text").random() if self.draws else 0.0
                    described[f.name] = texts[int(draw * len(texts))] if texts else None
            each = (self._values(f, index, plan, described, found) for f in self.fields)
            values = dict(chain.from_iterable(one.items() for one in each))
        stats.read_bytes += sum(one.size for one in wanted)
        return values

    def _has_texts(self, name: str, values: Sequence[object]) -> bool:
        """Return whether a list holds texts of a field rather than class names or numbers."""
        kinds = {component.kind for component in self.manifest.components.values()}
        is_role = name in ROLES and TEXTS.name in kinds
        if not is_role and (not values or name == LABELS or self.manifest.label_names):
            return False
        return all(isinstance(value, str) for value in values)

    def _described(self, index: int, data: bytes | None) -> dict[str, Any]:
        """Parse a sample's json."""
        if data is None:
            return {}
        try:
            described = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._bad(index, JSON, f"is not valid JSON ({error})") from error
        if not isinstance(described, dict):
            raise self._bad(index, JSON, "is not a JSON object, so it has no fields")
        return described

    def _values(
        self, f: Field, index: int, plan: object, described: Mapping[str, Any], found: Mapping[str, bytes]
    ) -> dict[str, Value]:
        """Return the values of a field by name."""
        member = _find_member(self.manifest, f.name)
        raw: Any = None
        if member != JSON and member in found:
            is_text = self.manifest.components[member].kind == TEXT
            raw = (self._text if is_text else self._array)(index, member, found[member])
        elif member == JSON:
            raw = described.get(f.name)
        if raw is None:
            raw = f.default
        if raw is None:
            legal = ", ".join(described) if member == JSON else f"{member} in other samples"
            raise self._make_lacking_error(f, index, legal)
        value = self._of(f.name, raw, index)
        if isinstance(value, np.ndarray):
            return self._of_clip(f, value, index, plan, member)
        if f.delta_timestamps is not None:
            raise self._bad(index, member, f"{f.name} must be an array with a row per frame for delta_timestamps")
        return {f.name: value}

    def _make_lacking_error(self, f: Field, index: int, legal: str) -> ShardError:
        where = f"{self.manifest.shard_name(index)}, sample {self.manifest.key(index)!r}"
        return ShardError(
            f"{where}: there is no field {f.name!r}; it has {legal or 'none'}. Use Field(name={f.name!r}, "
            "default=...) for samples without it, or remove the field"
        )

    def _of_clip(self, f: Field, value: Array, index: int, clip: object, member: str) -> dict[str, Value]:
        """Select the rows of the clip's frames, or around them, from an array with one row per frame."""
        if not isinstance(clip, OverTime):
            if f.per_frame:
                raise ValueError(f"field {f.name!r} is per_frame, but these samples have no frames; remove per_frame")
            return {f.name: value}
        has_rows = value.ndim > 0 and len(value) == clip.n_frames
        around = f.delta_timestamps is not None
        if (f.per_frame or around) and not has_rows:
            raise self._bad(
                index, member, f"{f.name} has the shape {value.shape}, but the video has {clip.n_frames} frames"
            )
        if around:
            anchor = {"frames": clip.numbers[:, None], "first": clip.numbers[0], "last": clip.numbers[-1]}[f.anchor]
            rows = anchor + f.steps(clip.fps)
            is_pad = (rows < 0) | (rows >= clip.n_frames)
            return dict(zip(f.names, (value[rows.clip(0, clip.n_frames - 1)], is_pad), strict=True))
        wanted = value.ndim > 1 if f.per_frame is None else f.per_frame
        return {f.name: value[clip.numbers] if wanted and has_rows else value}

    def _text(self, index: int, member: str, data: bytes) -> str:
        """Decode a text member."""
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self._bad(index, member, f"is not valid UTF-8 ({error})") from error

    def _array(self, index: int, member: str, data: bytes) -> Array:
        """Decode an array member; pickles are refused."""
        with self.manifest.reading(index, member):
            array = read_npy(data)
        if array.dtype.kind not in "biuf":
            raise self._bad(index, member, "contains no numbers; write an array of numbers with numpy.save")
        return array

    def _of(self, name: str, raw: Any, index: int) -> Value:
        """Convert a raw value.

        Raises:
            SampleError: The type of the value is not supported.
        """
        if isinstance(raw, bool):
            return int(raw)
        if isinstance(raw, int) and not -(1 << 63) <= raw < 1 << 63:
            raise self._bad(index, JSON, f"{name} is a number that does not fit in int64")
        if isinstance(raw, int | float | str | np.ndarray):
            return raw
        names: Sequence[str] = self.manifest.label_names
        if isinstance(raw, list | tuple):
            if (raw and all(isinstance(one, str) for one in raw)) or (name == LABELS and names):
                return self._classes(name, raw, names, index)
            try:
                array = np.array(raw)
            except (ValueError, OverflowError, RecursionError) as error:
                raise self._bad(index, JSON, f"{name}: {error}") from error
            if array.dtype.kind in "biuf":
                return array.astype(np.float64 if array.dtype.kind == "f" and array.size else np.int64)
        raise self._bad(index, JSON, f"{name} is {type(raw).__name__}; expected a number, text or a list of these")

    def _classes(self, name: str, raw: Sequence[Any], names: Sequence[str], index: int) -> frozenset[int]:
        """Return the numbers of the classes in a list."""
        known, stored = {one: number for number, one in enumerate(names)}, self.manifest.stored_names
        # Numbers in the json refer to the split's own table, which a mixture may have merged with others.
        own = raw if stored is None else [_name(one, stored) for one in raw]
        found = [known.get(one, -1) if isinstance(one, str) else one for one in own]
        if wrong := [one for one, n in zip(raw, found, strict=True) if not _is_class(n, len(names))]:
            raise self._bad(
                index, JSON, f"{name} has {wrong[0]!r}, which is not one of the {len(names)} classes in dataset.json"
            )
        return frozenset(found)

    def _bad(self, index: int, component: str, reason: str) -> SampleError:
        shard, key = self.manifest.shard_name(index), self.manifest.key(index)
        return SampleError(shard=shard, key=key, component=component, reason=reason)


def _find_member(manifest: Manifest, name: str) -> str:
    """Return the component that contains a field."""
    own, there = f"{name}.npy", manifest.components
    if own in there:
        return own
    return name if name in there and there[name].kind == TEXT else JSON


def _name(one: Any, stored: Sequence[str]) -> str | int:
    """Return a class name from a name or number in json, using the names stored in its split; -1 for no class."""
    if isinstance(one, str):
        return one
    if not stored and _is_class(one, 1 << 63):
        return str(one)
    return stored[one] if _is_class(one, len(stored)) else -1


def _is_class(number: Any, classes: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < classes


def _join_rows(name: str, values: Sequence[Value], classes: int) -> dict[str, Tensor | list[str]]:
    """Combine the values of a batch's rows.

    Raises:
        ShardError: The values have different types.
    """
    kinds = {_kind(value) for value in values}
    if len(kinds) > 1:
        raise ShardError(f"field {name!r} is {' in one sample and '.join(sorted(kinds))} in another; use one kind")
    kind = kinds.pop() if kinds else "text"
    if kind == "text":
        return {name: [str(value) for value in values]}
    if kind == "a number":
        return {name: wrap_tensor(np.array(values, dtype=np.float64 if _has_fraction(values) else np.int64))}
    if kind == "a list of classes":
        hot = np.zeros((len(values), classes), np.float32)
        for row, value in enumerate(cast(Sequence[frozenset[int]], values)):
            hot[row, sorted(value)] = 1
        return {name: wrap_tensor(hot)}
    return _pad_arrays(name, cast(Sequence[Array], values))


def _kind(value: Value) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    return "a list of classes" if isinstance(value, frozenset) else "an array"


def _has_fraction(values: Sequence[Value]) -> bool:
    return any(isinstance(value, float) for value in values)


def _pad_arrays(name: str, arrays: Sequence[Array]) -> dict[str, Tensor | list[str]]:
    """Stack arrays whose shapes differ only in the first axis, padding with zeros."""
    full = [one for one in arrays if one.size] or list(arrays)
    if len({(one.shape[1:], one.ndim) for one in full}) > 1:
        shapes = " and ".join(sorted({str(one.shape) for one in full}))
        raise ShardError(f"field {name!r} has arrays of the shapes {shapes}; only their first axis may differ")
    if full[0].ndim == 0:
        return {name: wrap_tensor(np.stack(arrays))}
    length = [len(one) if one.size else 0 for one in arrays]
    padded = np.zeros((len(arrays), max(length), *full[0].shape[1:]), dtype=np.result_type(*arrays))
    for row, one in enumerate(arrays):
        padded[row, : length[row]] = one[: length[row]]
    return {name: wrap_tensor(padded), f"{name}.length": wrap_tensor(np.array(length, np.int64))}
