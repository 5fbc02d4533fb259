"""Which check looks into which member: a line for each modality."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..format.manifest import Manifest
from ..media.mesh_members import FIELDS, MESH
from .foreign_sound import indexed_sound_problems
from .mesh import fields_problems, mesh_problems
from .points import points_problems
from .sound import audio_problems
from .sound_member import SOUND_TABLE, sound_member
from .video import video_problems

Check = Callable[[Manifest, int, bytes, bool], Iterator[str]]
"""Called with the manifest, the number of a sample, the member's bytes, and whether to decode; yields problems."""

CHECKS: dict[str, Check] = {
    "flac": audio_problems,
    "points.npy": points_problems,
    MESH: mesh_problems,
    FIELDS: fields_problems,
}
"""Checks by the name of the component."""


def check_of(manifest: Manifest, row: int, name: str) -> Check | None:
    """The check for component `name` of sample `row`, or None where only its checksum is compared."""
    columns = manifest.video_columns
    if columns is not None and columns.codec[row] >= 0 and name == manifest.video_member(row)[0]:
        return video_problems
    if SOUND_TABLE in manifest.facts and name == sound_member(manifest, row):
        return indexed_sound_problems
    return CHECKS.get(name)
