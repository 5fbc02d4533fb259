"""Whether splits can be one: what must be alike, and keys that occur in two of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from maskstream.shards.errors import DatasetError
from maskstream.shards.format.dataset import FOREIGN
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.unique_keys import hashes_of, repeated_keys

_AT_ONCE = 1 << 16
_SHOWN = 3


def check_fit(ours: Manifest, theirs: Manifest) -> None:
    """Raise DatasetError, which says what differs, if two splits cannot be one. Labels and keys are not compared."""
    if FOREIGN in (ours.info["profile"], theirs.info["profile"]):
        raise DatasetError(
            "an index of foreign tars is neither appended nor merged; index all tars together with `maskstream index`"
        )
    for what in ("modality", "profile"):
        if ours.info[what] != theirs.info[what]:
            raise DatasetError(
                f"{theirs.location} has the {what} {theirs.info[what]!r}, and {ours.location} has "
                f"{ours.info[what]!r}; make both alike with `maskstream shards`"
            )
    encoders = [one.info["settings"].get("encoder") for one in (ours, theirs)]
    if encoders[0] != encoders[1]:
        raise DatasetError(
            f"{theirs.location} was encoded with {encoders[1]}, and {ours.location} with {encoders[0]}; make both "
            "alike with `maskstream shards`"
        )
    for name in ours.components.keys() & theirs.components.keys():
        kinds = ours.components[name].kind, theirs.components[name].kind
        if kinds[0] != kinds[1]:
            raise DatasetError(
                f"component {name!r} is {kinds[1]} in {theirs.location}, and {kinds[0]} in {ours.location}"
            )


def check_distinct(splits: Sequence[Manifest]) -> None:
    """Raise DatasetError if a split is given twice."""
    places = [split.location for split in splits]
    if again := [place for n, place in enumerate(places) if place in places[:n]]:
        raise DatasetError(f"{again[0]} is given twice; give each split once")


def check_keys(splits: Sequence[Manifest]) -> None:
    """Raise DatasetError, which names keys and splits, if a key is in two splits."""
    check_distinct(splits)
    hashes = [hashes_of(keys) for split in splits for keys in keys_of(split)]
    twice = repeated_keys(hashes, (keys for split in splits for keys in keys_of(split)))
    if not twice:
        return
    where = [split.location for split in splits if any(twice[0] in keys for keys in keys_of(split))]
    shown = ", ".join(map(repr, twice[:_SHOWN])) + (", ..." if len(twice) > _SHOWN else "")
    raise DatasetError(
        f"{len(twice)} keys are in more than one split, {twice[0]!r} in both {where[0]} and {where[-1]}: {shown}"
    )


def keys_of(manifest: Manifest) -> Iterator[list[str]]:
    """The keys of all samples, group by group."""
    for begin in range(0, len(manifest), _AT_ONCE):
        yield manifest.keys(range(begin, min(begin + _AT_ONCE, len(manifest))))
