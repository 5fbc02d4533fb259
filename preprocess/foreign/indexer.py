"""What tars can be indexed as, and which of it they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...shards.errors import ShardError
from ...shards.format.member_name import split_name
from ...shards.format.ustar import HashedReader, walk
from ..encode.points.point_files import POINT_SUFFIXES
from .indexed import Indexed
from .sound import index_sound
from .video import index_video

CONTAINERS = ("mp4", "webm", "mkv", "mov", "m4v", "avi")
"""Endings of members that hold a video; of a sample that has several, the first one counts."""
SOUNDS = ("flac", "wav", "mp3", "ogg", "oga", "opus", "m4a", "aac")
"""The same of sounds."""
LOOKED_AT = 1000
"""Members of a tar that are looked at for one that can be indexed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexer:
    """components: that are indexed; of a sample that has several, the first one counts. index: makes it of a member's
    bytes and component, thoroughly or fast; RejectError where it cannot be used.
    """

    name: str
    noun: str
    components: tuple[str, ...]
    index: Callable[[bytes, str, bool], Indexed]


def _video(data: bytes, component: str, check: bool) -> Indexed:
    return index_video(data, check=check)


def _sound(data: bytes, component: str, check: bool) -> Indexed:
    return index_sound(data, component)


INDEXERS = {
    "video": Indexer(name="video", noun="video", components=CONTAINERS, index=_video),
    "audio": Indexer(name="audio", noun="sound", components=SOUNDS, index=_sound),
}


CLOUDS = frozenset({suffix[1:] for suffix in POINT_SUFFIXES} | {"points.npy"})
"""Components of clouds and meshes, which are not indexed: most must be parsed as a whole, and a clip of a cloud is a
run of rows, which is a fair sample only where the rows lie in random order, as they do in shards.
"""


def indexer_of(paths: Sequence[Path], wanted: str | None) -> Indexer:
    """The modality that is wanted, or else that of the first sample which has any.

    ValueError where that sample has several, or is a cloud or a mesh, or `wanted` is none of INDEXERS. Tars of which
    none can be told are indexed as videos, so that their rejects say what is in them.
    """
    if wanted is not None:
        if wanted not in INDEXERS:
            raise ValueError(f"modality {wanted!r}; legal are {', '.join(INDEXERS)}")
        return INDEXERS[wanted]
    for path in paths:
        components = _first_components(path)
        found = [m for m in INDEXERS.values() if components & set(m.components)]
        if len(found) > 1:
            held = ", ".join(sorted(components & {c for m in found for c in m.components}))
            names = " or ".join(f"--modality {m.name}" for m in found)
            raise ValueError(
                f"a sample of {path} holds {held}; give {names}, or make shards of both with `maskstream shards`, "
                "which puts them on one clock"
            )
        if found:
            return found[0]
        if clouds := sorted(components & CLOUDS):
            raise ValueError(
                f"a sample of {path} holds {clouds[0]}; clouds and meshes are not indexed: unpack the tars, and make "
                "shards of the files with `maskstream shards points-folder`"
            )
    return INDEXERS["video"]


def _first_components(path: Path) -> set[str]:
    """The components of the first sample of a tar that has one which can be indexed; none where there is none."""
    known = {component for m in INDEXERS.values() for component in m.components} | CLOUDS
    key, components = "", set[str]()
    try:
        with path.open("rb") as file:
            reader = HashedReader(file, lambda size_bytes: None)
            for member in islice(walk(reader, foreign=True), LOOKED_AT):
                split = split_name(member.name) if member.isreg() else None
                if split is None:
                    continue
                if split[0] != key:
                    if components & known:
                        break
                    key, components = split[0], set()
                components.add(split[1])
    except (OSError, ShardError):
        pass  # indexing says what is wrong with it
    return components if components & known else set()
