"""The indexers: which modalities of foreign tars can be indexed, and which one a tar holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from maskstream.preprocess.encode.points.point_files import POINT_SUFFIXES
from maskstream.shards.errors import OutageError, ShardError, StoreError
from maskstream.shards.format.ustar import HashedReader, split_name, walk

from .sound import index_sound
from .tar_file import Indexed, TarFile
from .video import index_video

CONTAINERS = ("mp4", "webm", "mkv", "mov", "m4v", "avi")
"""Components that hold a video, in order of preference."""
SOUNDS = ("flac", "wav", "mp3", "ogg", "oga", "opus", "m4a", "aac")
"""Components that hold a sound, in order of preference."""
MAX_PROBED = 1000
"""How many members of a tar are searched for one that can be indexed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexer:
    """How one modality is indexed.

    name: the modality. noun: its medium in messages. components: those that can be indexed; the first one that a sample
    holds is used. index: takes a member's bytes, its component and whether to check every entry point; raises
    RejectError if the member cannot be used.
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
"""Components of clouds and meshes, which are not indexed. Most formats must be parsed as a whole, and a loader reads a
run of rows, which is a random sample only if the rows are in random order, as in shards.
"""


def indexer_of(tars: Sequence[TarFile], wanted: str | None) -> Indexer:
    """The indexer of the modality `wanted`, or that of the first sample that can be indexed.

    Raises ValueError if that sample has several modalities, or is a cloud or a mesh, or `wanted` is unknown. If no
    sample can be indexed, the tars are indexed as videos, and the rejects say what they hold.
    """
    if wanted is not None:
        if wanted not in INDEXERS:
            raise ValueError(f"modality {wanted!r} cannot be indexed; legal are {', '.join(INDEXERS)}")
        return INDEXERS[wanted]
    for tar in tars:
        components = _first_components(tar)
        found = [m for m in INDEXERS.values() if components & set(m.components)]
        if len(found) > 1:
            held = ", ".join(sorted(components & {c for m in found for c in m.components}))
            names = " or ".join(f"--modality {m.name}" for m in found)
            raise ValueError(
                f"a sample of {tar.where} holds {held}; give {names}, or use `maskstream shards`, which stores both on "
                "one clock"
            )
        if found:
            return found[0]
        if clouds := sorted(components & CLOUDS):
            raise ValueError(
                f"a sample of {tar.where} holds {clouds[0]}; clouds and meshes cannot be indexed: unpack the tars, and "
                "use `maskstream shards points-folder`"
            )
    return INDEXERS["video"]


def _first_components(tar: TarFile) -> set[str]:
    """The components of a tar's first sample that has a known component; empty if there is none."""
    known = {component for m in INDEXERS.values() for component in m.components} | CLOUDS
    key, components = "", set[str]()
    try:
        with tar.reading() as (file, _):
            reader = HashedReader(file, lambda size_bytes: None)
            for member in islice(walk(reader, foreign=True), MAX_PROBED):
                split = split_name(member.name) if member.isreg() else None
                if split is None:
                    continue
                if split[0] != key:
                    if components & known:
                        break
                    key, components = split[0], set()
                components.add(split[1])
    except (OutageError, StoreError, ShardError):
        pass  # indexing reports the error
    return components if components & known else set()
