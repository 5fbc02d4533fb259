"""The samples of Sonic Pi: 165 recordings of drums, instruments, loops and noises, labelled by the prefix of the name.

They are downloaded as Debian's sonic-pi-samples (22 MB, CC0). A copy of the folder may be put at ROOT/sonic-pi-samples.
There are fourteen labels, with 3 to 26 recordings each. Recordings whose names differ only in numbers, such as
tabla_ghe1 and tabla_ghe2, are in one split; about two fifths of each label are validation.
"""

import re
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, held_out_groups
from maskstream.preprocess.datasets.folders import media_paths
from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.debian import debian_folder
from maskstream.shards.errors import DatasetError

NAME = "sonic-pi"
PACKAGE, INSIDE = "sonic-pi-samples", "usr/share/sonic-pi/samples"
HELD_OUT = 0.4


def sonic_pi(root: Path) -> Dataset:
    """The splits, downloaded into `root`. Raises DatasetError if the download fails."""
    folder = debian_folder(PACKAGE, INSIDE, root)
    files = [path for path in media_paths(folder, {".flac"}) if "_" in path.stem]
    if not files:
        raise DatasetError(f"{NAME}: {folder} holds no recordings; remove it to download it again")
    label_names = tuple(sorted({_prefix(path) for path in files}))
    listed = [(path, label_names.index(_prefix(path)), re.sub(r"\d+$", "", path.stem)) for path in files]
    val = held_out_groups(((label, group) for _, label, group in listed), HELD_OUT)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for path, label, group in listed:
        splits["val" if group in val else "train"].append(Source(id=path.name, path=path, label=label))
    return Dataset(name=NAME, label_names=label_names, splits=splits, encoder=AudioEncoder())


def _prefix(path: Path) -> str:
    return path.stem.partition("_")[0]
