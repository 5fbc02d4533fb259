"""Drawn tiles of the game Battle for Wesnoth: some 2,000 images of 72 x 72 pixels with thirteen kinds of terrain.

They are downloaded as Debian's wesnoth-1.18-data (128 MB, GPL-2+ and CC-BY-SA-4.0). A copy of its folder
data/core/images may be put at ROOT/wesnoth-1.18-data. The label is the folder. Tiles with the same bytes are taken
once. Tiles whose names differ only in numbers and directions are variants of one drawing, so they are in one split.
"""

import re
import struct
from pathlib import Path

import xxhash

from maskstream.preprocess.datasets.dataset import Dataset, held_out_groups
from maskstream.preprocess.datasets.folders import media_below
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.debian import debian_folder
from maskstream.shards.errors import DatasetError

NAME = "wesnoth-terrain"
PACKAGE, INSIDE = "wesnoth-1.18-data", "usr/share/games/wesnoth/1.18/data/core/images"
LABELS = (
    *("bridge", "castle", "cave", "flat", "forest", "frozen", "grass"),
    *("hills", "interior", "sand", "swamp", "village", "water"),
)
SIDE = 72
_VARIANT = re.compile(r"(-([nesw]{1,2}|[a-z]?\d*|long|short|small|medium|abrupt|tile|transition))+$", re.IGNORECASE)


def wesnoth_terrain(root: Path) -> Dataset:
    """The splits, downloaded into `root`. Raises DatasetError if the download fails."""
    terrain = debian_folder(PACKAGE, INSIDE, root) / "terrain"
    tiles: list[tuple[Path, int, str]] = []
    seen: set[bytes] = set()
    for label, paths in enumerate(media_below([terrain / name for name in LABELS if _there(terrain / name)], {".png"})):
        for path in paths:
            data = path.read_bytes()
            digest = xxhash.xxh3_128_digest(data)
            if _size(data) == (SIDE, SIDE) and digest not in seen:
                seen.add(digest)
                tiles.append((path, label, drawing(path.relative_to(terrain))))
    val = held_out_groups((label, group) for _, label, group in tiles)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for path, label, group in tiles:
        source = Source(id=path.relative_to(terrain).as_posix(), path=path, label=label, meta={"drawing": group})
        splits["val" if group in val else "train"].append(source)
    return Dataset(name=NAME, label_names=LABELS, splits=splits, encoder=ImageEncoder())


def drawing(path: Path) -> str:
    """The drawing that a tile is a variant of: its path without numbers and directions at the end."""
    return f"{path.parent.as_posix()}/{_VARIANT.sub('', re.sub('[0-9]+', '', path.stem))}"


def _there(folder: Path) -> bool:
    if not folder.is_dir():
        raise DatasetError(f"{NAME}: there is no folder {folder}; remove {folder.parent.parent} to download it again")
    return True


def _size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG file; (0, 0) for another file."""
    if len(data) < 24 or data[12:16] != b"IHDR":
        return 0, 0
    width, height = struct.unpack(">II", data[16:24])
    return width, height
