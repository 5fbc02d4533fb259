"""A small sample set of real point clouds: points on toy bricks and other parts, and scanned ground.

The parts come from the LDraw library (Debian's ldraw-parts-free, 47 MB, CC-BY-4.0): eight categories with 64 parts each
for training and 12 for validation (fewer if the library has fewer), chosen by the hash of their names. Printed, moved
and unfinished parts are left out. The ground is two tiles of airborne scans from laspy's tests (its source archive, 2
MB, BSD-2), cut into blocks of about 2,300 points. Every sixth block is validation; blocks share no point.

`sample-parts` has only the bricks, plates and slopes, with a column `part`: nine parts, three of each category (body,
stud, tube below).

An existing copy of the library, with its folders parts and p, may be put at ROOT/ldraw-parts-free.
"""

import re
from collections.abc import Callable
from pathlib import Path

import xxhash

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.datasets.point_clouds import blocks
from maskstream.preprocess.encode.points.encoder import PointEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.debian import fetch_debian_folder
from maskstream.samples.packages import Package, fetch
from maskstream.shards.errors import DatasetError

from .ldraw import ldraw_parts, read_ldraw_surface

LASPY = Package(
    name="laspy",
    version="2.7.0",
    sha256="f56feb5445e75d6ff12ee814aab6a35339290e75264ff277c6bf553f3025a3f5",
    source=True,
)
TILES = ("tests/data/autzen_trim.laz", "tests/data/file_with_both_wkt_and_geotiff_vlrs.las")
CATEGORIES = ("Brick", "Minifig Headwear", "Panel", "Plate", "Slope", "Tile", "Tyre", "Wheel")
WITH_PARTS = ("Brick", "Plate", "Slope")
GROUND = "Ground"
PARTS = {"train": 64, "val": 12}
BLOCK_POINTS = 2300
HELD_OUT = 6

_PART = re.compile(r"\d+[a-z]?\.dat")
_NOT_PLAIN = re.compile(r"^[~=_|]|pattern|sticker|needs work", re.IGNORECASE)


def sample_points(root: Path) -> Dataset:
    """The sample set, downloaded into `root`. Raises DatasetError if the download fails."""
    root.mkdir(parents=True, exist_ok=True)
    label_names = (*CATEGORIES, GROUND)
    splits = _parts(
        fetch_debian_folder("ldraw-parts-free", "usr/share/ldraw", root),
        CATEGORIES,
        read_ldraw_surface,
        "sample-points",
    )
    for path in fetch(LASPY, TILES, root).values():
        tile = Source(id=f"{LASPY.folder}/{path.name}", path=path, label=label_names.index(GROUND))
        for number, block in enumerate(blocks(tile, BLOCK_POINTS)):
            splits["val" if number % HELD_OUT == 0 else "train"].append(block)
    return Dataset(name="sample-points", label_names=label_names, splits=splits, encoder=PointEncoder())


def sample_parts(root: Path) -> Dataset:
    """Read the bricks, plates and slopes of the sample set, with the part that each point belongs to: body, stud or
    tube.
    """
    root.mkdir(parents=True, exist_ok=True)
    library = fetch_debian_folder("ldraw-parts-free", "usr/share/ldraw", root)
    splits = _parts(library, WITH_PARTS, ldraw_parts, "sample-parts")
    return Dataset(name="sample-parts", label_names=WITH_PARTS, splits=splits, encoder=PointEncoder(up="y"))


def _parts(
    library: Path, categories: tuple[str, ...], made_by: Callable[[Source], object], name: str
) -> dict[str, list[Source]]:
    """Return the chosen parts of each split."""
    by_category: dict[str, list[Path]] = {category: [] for category in categories}
    for path in sorted((library / "parts").glob("*.dat"), key=_hash):
        wanted = by_category.get(category) if (category := _read_category(path)) else None
        if wanted is not None and len(wanted) < sum(PARTS.values()):
            wanted.append(path)
    splits: dict[str, list[Source]] = {split: [] for split in PARTS}
    for label, (category, paths) in enumerate(by_category.items()):
        if len(paths) < 2:
            raise DatasetError(
                f"{name}: {library} has {len(paths)} parts in the category {category!r}, but needs 2; remove it"
            )
        n_val = len(paths) * PARTS["val"] // sum(PARTS.values())
        for i, path in enumerate(paths):
            source = Source(id=f"ldraw/{path.name}", path=path, label=label, made_by=made_by)
            splits["val" if i < n_val else "train"].append(source)
    return splits


def _hash(path: Path) -> int:
    return xxhash.xxh3_64_intdigest(path.name.encode())


def _read_category(path: Path) -> str | None:
    """Return the category of a plain part, from its header, or else the first word of its title; None for other
    parts.
    """
    if not _PART.fullmatch(path.name):
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        head = [line for line, _ in zip(file, range(40), strict=False)]
    title = head[0][2:].strip() if head else ""
    if not title or _NOT_PLAIN.search(title):
        return None
    named = (line.partition("!CATEGORY")[2].strip() for line in head if "!CATEGORY" in line)
    return next(named, title.split()[0])
