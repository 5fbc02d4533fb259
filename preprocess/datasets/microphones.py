"""Recordings with one file per microphone, in the layout of CHiME-3: `NAME.CH1.wav`, `NAME.CH2.wav`, ...

Files of the same name and folder become the channels of one sample, in the order of their numbers. CH0, the speaker's
close-talking microphone in CHiME-3, is left out. Folders such as `tr05_bus_simu` belong to the split train (tr), val
(dt) or test (et); folders named train, val and test do too; all others belong to train. The label is the folder.

J. Barker et al., The third CHiME speech separation and recognition challenge, ASRU 2015.
"""

from __future__ import annotations

import re
from pathlib import Path

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, in_archives, require_folder
from .folder import AUDIO_SUFFIXES
from .folders import media_paths, readable

_CHANNEL = re.compile(r"(.+)\.CH(\d+)", re.IGNORECASE)
_SPLITS = {"tr": "train", "dt": "val", "et": "test", "train": "train", "val": "val", "test": "test"}
OBTAIN = "Lay the files out as ROOT/tr05_bus_simu/NAME.CH1.wav, NAME.CH2.wav, ... and ROOT/dt05_.../"


@in_archives()
def microphones(root: Path) -> Dataset:
    """The splits found below `root`. Raises DatasetError if no file is named NAME.CH1.wav."""
    require_folder(root, name="microphones", obtain=OBTAIN)
    groups: dict[tuple[Path, str], dict[int, Path]] = {}
    for path in media_paths(root, AUDIO_SUFFIXES):
        if (found := _CHANNEL.fullmatch(path.stem)) and int(found[2]) > 0:
            groups.setdefault((path.parent, found[1]), {})[int(found[2])] = path
    if not groups:
        raise DatasetError(f"microphones: no file in {root} is called like NAME.CH1.wav. {OBTAIN}")
    folders = sorted({folder for folder, _ in groups})
    names = [readable(folder.relative_to(root)) for folder in folders]
    listed: dict[str, list[Source]] = {}
    for (folder, name), channels in sorted(groups.items()):
        first, *others = [channels[number] for number in sorted(channels)]
        where = folder.relative_to(root)
        source = Source(
            id=readable(where / name),
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
