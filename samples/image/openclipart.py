"""Openclipart: 3,340 colour drawings (PNG) of animals, food, flags, people, tools and other things.

They are downloaded as Debian's openclipart-png (131 MB, public domain). A copy of its folder png may be put at
ROOT/openclipart-png. The label is the top folder. The folders shapes and computer are left out, whose thousands of
stars, arrows and icons are copies of a few, and so are special and unsorted, which are no kinds of things. Drawings
with the same bytes, also as links, are taken once. Drawings of one folder whose names differ only in numbers are in one
split. An image of 623 megapixels becomes a reject.
"""

import re
from pathlib import Path

import xxhash

from maskstream.preprocess.datasets.dataset import Dataset, held_out_groups
from maskstream.preprocess.datasets.folders import media_below, readable
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.debian import debian_folder
from maskstream.shards.errors import DatasetError

NAME = "openclipart"
PACKAGE, INSIDE = "openclipart-png", "usr/share/openclipart/png"
LEFT_OUT = ("computer", "shapes", "special", "unsorted")
FEWEST = 10
"""Folders with fewer drawings are left out."""


def openclipart(root: Path) -> Dataset:
    """The splits, downloaded into `root`. Raises DatasetError if the download fails."""
    folder = debian_folder(PACKAGE, INSIDE, root)
    found = _unique(folder)
    label_names = tuple(found)
    if not label_names:
        raise DatasetError(f"{NAME}: {folder} holds no folder with {FEWEST} PNG files; remove it to download it again")
    drawings = [(path, label) for label, paths in enumerate(found.values()) for path in paths]
    groups = [_group(path.relative_to(folder)) for path, _ in drawings]
    val = held_out_groups((label, group) for (_, label), group in zip(drawings, groups, strict=True))
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for (path, label), group in zip(drawings, groups, strict=True):
        source = Source(id=readable(path.relative_to(folder)), path=path, label=label)
        splits["val" if group in val else "train"].append(source)
    return Dataset(name=NAME, label_names=label_names, splits=splits, encoder=ImageEncoder(short_side=256))


def _unique(folder: Path) -> dict[str, list[Path]]:
    """The drawings of each label, each contents once."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in LEFT_OUT)
    seen: set[bytes] = set()
    found: dict[str, list[Path]] = {}
    for name, paths in zip(names, media_below([folder / name for name in names], {".png"}), strict=True):
        own = []
        for path in paths:
            digest = xxhash.xxh3_128_digest(path.read_bytes())
            if digest not in seen:
                seen.add(digest)
                own.append(path)
        if len(own) >= FEWEST:
            found[name] = own
    return found


def _group(path: Path) -> str:
    """The path without numbers, and without the separators around them, in its name."""
    return f"{readable(path.parent)}/{re.sub(r'[-_ ]*[0-9]+[-_ ]*', '', readable(Path(path.stem)))}"
