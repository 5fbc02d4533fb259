"""Recordings with one file per microphone, as CHiME-3 lays them out: `NAME.CH1.wav`, `NAME.CH2.wav`, ...

The files of one name, in one folder, are the channels of one sample, in the order of their numbers; CH0, which CHiME-3
uses for the speaker's own close microphone, is left out. A folder called as `tr05_bus_simu`, with tr, dt or et, is of
the split train, val or test; else the folders train, val and test are, or all is train. The label is the folder.

J. Barker et al., The third CHiME speech separation and recognition challenge, ASRU 2015.
"""

from __future__ import annotations

import re
from pathlib import Path

from ....shards.errors import DatasetError
from ...encode.audio.encoder import AudioEncoder
from ...source import Source
from ..dataset import Dataset, dataset_of, media_paths, require_folder
from .audio_folder import AUDIO_SUFFIXES

_CHANNEL = re.compile(r"(.+)\.CH(\d+)", re.IGNORECASE)
_SPLITS = {"tr": "train", "dt": "val", "et": "test", "train": "train", "val": "val", "test": "test"}
OBTAIN = "Lay the files out as ROOT/tr05_bus_simu/NAME.CH1.wav, NAME.CH2.wav, ... and ROOT/dt05_.../"


def microphones(root: Path) -> Dataset:
    """The splits; DatasetError where no file is named so, or the numbers of channels differ within a folder."""
    require_folder(root, name="microphones", obtain=OBTAIN)
    groups: dict[tuple[Path, str], dict[int, Path]] = {}
    for path in media_paths(root, AUDIO_SUFFIXES):
        if (found := _CHANNEL.fullmatch(path.stem)) and int(found[2]) > 0:
            groups.setdefault((path.parent, found[1]), {})[int(found[2])] = path
    if not groups:
        raise DatasetError(f"microphones: no file in {root} is called like NAME.CH1.wav. {OBTAIN}")
    folders = sorted({folder for folder, _ in groups})
    names = [folder.relative_to(root).as_posix() for folder in folders]
    listed: dict[str, list[Source]] = {}
    for (folder, name), channels in sorted(groups.items()):
        first, *others = [channels[number] for number in sorted(channels)]
        where = folder.relative_to(root)
        source = Source(
            id=(where / name).as_posix(),
            path=first,
            label=folders.index(folder),
            meta={"microphones": sorted(channels)},
            parts=tuple(others),
        )
        listed.setdefault(_split_of(where), []).append(source)
    return dataset_of("microphones", names, listed, root=root, obtain=OBTAIN, encoder=AudioEncoder())


def _split_of(folder: Path) -> str:
    for part in folder.parts:
        for word in (part.lower(), part[:2].lower() if part[2:4].isdecimal() else ""):
            if word in _SPLITS:
                return _SPLITS[word]
    return "train"
