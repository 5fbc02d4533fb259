"""Any folder of sounds: one folder per class, or a list, as `folder` has it for videos."""

from __future__ import annotations

from pathlib import Path

from ...encode.audio.encoder import AudioEncoder
from ..dataset import Dataset
from ..folder import folder

AUDIO_SUFFIXES = frozenset(
    {".aac", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
    | {".wma"}
)
SOUND_SUFFIXES = AUDIO_SUFFIXES | {".mkv", ".mov", ".mp4", ".webm"}
"""Files that may hold a sound track, those of videos too."""


def audio_folder(root: Path) -> Dataset:
    """The splits of a folder of sounds; DatasetError where there is none, or the list is not as `folder` has it."""
    return folder(root, name="audio-folder", encoder=AudioEncoder(), suffixes=AUDIO_SUFFIXES)
