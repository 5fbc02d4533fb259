"""Any folder of sounds, in the layouts of folder.py: one folder per class, or a list."""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, in_archives
from maskstream.preprocess.datasets.folder import folder
from maskstream.preprocess.encode.audio.encoder import AudioEncoder

AUDIO_SUFFIXES = frozenset(
    {".aac", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
    | {".wma"}
)
SOUND_SUFFIXES = AUDIO_SUFFIXES | {".mkv", ".mov", ".mp4", ".webm"}
"""Files that may hold a sound track, videos included."""


@in_archives(".csv")
def audio_folder(root: Path) -> Dataset:
    """The splits of a folder of sounds. Raises DatasetError as `folder` does."""
    return folder(root, name="audio-folder", encoder=AudioEncoder(), suffixes=AUDIO_SUFFIXES)
