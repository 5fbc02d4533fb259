"""Which component of a sample is its sound."""

from __future__ import annotations

from ..errors import ShardError
from ..format.manifest import Manifest

SOUNDS = ("flac", "wav", "mp3", "ogg", "oga", "opus", "m4a", "aac")
"""Components that hold a sound; of a sample that has several, the first one counts. Splits that maskstream wrote have
`flac` only.
"""
SOUND_TABLE = "sound_table"
"""The fact that says where the table of an indexed sound lies in its shard's file of packets (sound_table.py)."""


def sound_member(manifest: Manifest, i: int) -> str:
    """The component that holds the sound of sample i; ShardError where it has none."""
    for name in SOUNDS:
        if name in manifest.component_names and manifest.component(name).offset[i]:
            return name
    raise ShardError(f"sample {manifest.key(i)!r} of {manifest.folder} has no component of {', '.join(SOUNDS)}")
