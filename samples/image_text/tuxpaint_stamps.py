"""The stamps of Tux Paint: 952 images (photographs and drawings, PNG) with a caption of one sentence each.

They are downloaded as Debian's tuxpaint-stamps-default (81 MB, GPL-2). A copy of its folder stamps may be put at
ROOT/tuxpaint-stamps-default. The label is the top folder, one of 16. Stamps without a caption are left out. Stamps of
one folder whose names differ only in numbers, and stamps with the same caption, are in one split.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, choose_held_out_groups
from maskstream.preprocess.datasets.folders import list_media, readable
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.debian import fetch_debian_folder
from maskstream.shards.errors import DatasetError

NAME = "tuxpaint-stamps"
PACKAGE, INSIDE = "tuxpaint-stamps-default", "usr/share/tuxpaint/stamps"
SHORT_SIDE = 256
TOKENIZER = "train:wordpiece:2048"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """A stamp: its image, its path below the folder of stamps, and its caption in English."""

    path: Path
    inside: str
    caption: str

    @property
    def label(self) -> str:
        """Top folder."""
        return self.inside.partition("/")[0]


def tuxpaint_stamps(root: Path) -> Dataset:
    """Read the splits, downloaded into `root`. Raises DatasetError if the download fails."""
    stamps = list(list_captioned_stamps(root))
    label_names = tuple(sorted({stamp.label for stamp in stamps}))
    groups = alike(stamps)
    val = choose_held_out_groups(
        (label_names.index(stamp.label), group) for stamp, group in zip(stamps, groups, strict=True)
    )
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for stamp, group in zip(stamps, groups, strict=True):
        source = Source(
            id=stamp.inside, path=stamp.path, label=label_names.index(stamp.label), meta={"caption": stamp.caption}
        )
        splits["val" if group in val else "train"].append(source)
    encoder = ImageTextEncoder(tokenizer=TOKENIZER, image=ImageEncoder(short_side=SHORT_SIDE))
    return Dataset(name=NAME, label_names=label_names, splits=splits, encoder=encoder)


def list_captioned_stamps(root: Path) -> Iterator[Stamp]:
    """Return the stamps that have a caption, downloaded into `root`. Raises DatasetError if there is none."""
    folder = fetch_debian_folder(PACKAGE, INSIDE, root)
    some = False
    for path in list_media(folder, {".png"}):
        text = path.with_suffix(".txt")
        caption = next(iter(text.read_text("utf-8", "replace").splitlines()), "").strip() if text.is_file() else ""
        if caption:
            some = True
            yield Stamp(path=path, inside=readable(path.relative_to(folder)), caption=caption)
    if not some:
        raise DatasetError(f"{NAME}: {folder} contains no PNG with a matching TXT; remove it to download it again")


def alike(stamps: list[Stamp]) -> list[str]:
    """Return the name of each stamp's group: stamps with one caption or one name without numbers, directly or not."""
    parent: dict[str, str] = {}

    def found(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    named = [re.sub(r"[-_ ]*[0-9]+[-_ ]*", "", stamp.inside.rpartition(".")[0]).lower() for stamp in stamps]
    for stamp, name in zip(stamps, named, strict=True):
        low, high = sorted((found(f"name {name}"), found(f"caption {stamp.caption.lower()}")))
        parent[high] = low
    return [found(f"name {name}") for name in named]
