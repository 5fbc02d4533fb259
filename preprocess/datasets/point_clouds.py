"""Point clouds of objects and of scans."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from maskstream.preprocess.encode.points.clouds import NORMALS, XYZ
from maskstream.preprocess.encode.points.encoder import (
    LAS_SUFFIXES,
    PUBLISHED_ORDER,
    PointEncoder,
    check_las_header,
    import_laspy,
)
from maskstream.preprocess.raw.lists import read_lines
from maskstream.preprocess.source import Source

from .dataset import Dataset, dataset_of, in_archives, reads_media, require_folder
from .folder import folder
from .folders import list_distinct_folders, readable

MODELNET40_OBTAIN = (
    "Get ModelNet40.zip from modelnet.cs.princeton.edu and unpack it, so that there is ROOT/ModelNet40/airplane/train/"
    "airplane_0001.off; or modelnet40_normal_resampled.zip, so that there is ROOT/modelnet40_normal_resampled/"
    "modelnet40_train.txt"
)
MODELNET40_SPLITS = {"train": "train", "val": "test"}
MODELNET40_FOLDERS = ("ModelNet40", "ModelNet40.PC15k", "modelnet40_normal_resampled", "modelnet40")
_MODELNET40_LISTS = ("modelnet40_train.txt", "modelnet10_train.txt")


@in_archives(".txt")
def modelnet40(root: Path) -> Dataset:
    """Read ModelNet40 in one of three forms: Princeton's 12,311 meshes of 40 categories, or clouds sampled from them.

    Files below ROOT, or below a folder in it:

        ModelNet40/CATEGORY/{train,test}/*.off           Princeton: meshes, on which points are sampled
        ModelNet40.PC15k/CATEGORY/{train,test}/*.npy     clouds of 15,000 points in their published (random) order
        modelnet40_normal_resampled/CATEGORY/*.txt       PointNet++: x, y, z and a normal in each line; the splits are
                                                         listed in modelnet40_train.txt and modelnet40_test.txt

    Test becomes the split `val`. Any number of categories works, such as the 10 of ModelNet10.

    Z. Wu et al., 3D ShapeNets, CVPR 2015; C. R. Qi et al., PointNet++, NeurIPS 2017.

    Args:
        root: Folder of the raw data.

    Returns:
        The published splits.

    Raises:
        DatasetError: Return the clouds that lists name as CATEGORY_NUMBER.
    """
    require_folder(root, name="modelnet40", obtain=MODELNET40_OBTAIN)
    base = next((root / name for name in MODELNET40_FOLDERS if (root / name).is_dir()), root)
    train = next((base / name for name in _MODELNET40_LISTS if (base / name).is_file()), None)
    label_names, listed = _find_in_folders(base) if train is None else _find_in_lists(base, train)
    encoder = PointEncoder() if train is None else PointEncoder(columns=(*XYZ, *NORMALS))
    return dataset_of("modelnet40", label_names, listed, root=root, obtain=MODELNET40_OBTAIN, encoder=encoder)


def _find_in_folders(base: Path) -> tuple[list[str], dict[str, list[Source]]]:
    label_names = [path.name for path in list_distinct_folders(path.parent for path in base.glob("*/train"))]
    folders = set(
        list_distinct_folders(base / category / name for category in label_names for name in MODELNET40_SPLITS.values())
    )
    suffix, meta = (".off", {}) if any(base.glob("*/train/*.off")) else (".npy", {"rows": PUBLISHED_ORDER})
    return label_names, {
        split: [
            Source(id=readable(path.relative_to(base)), path=path, label=number, meta=meta)
            for number, category in enumerate(label_names)
            if base / category / folder in folders
            for path in sorted((base / category / folder).glob(f"*{suffix}"))
        ]
        for split, folder in MODELNET40_SPLITS.items()
    }


def _find_in_lists(base: Path, train: Path) -> tuple[list[str], dict[str, list[Source]]]:
    """Return the clouds that lists name as CATEGORY_NUMBER."""
    lists = {"train": train, "val": train.with_name(train.name.replace("train", "test"))}
    names = {split: [name for _, name in read_lines(path)] for split, path in lists.items()}
    label_names = sorted({name.rpartition("_")[0] for some in names.values() for name in some})
    return label_names, {
        split: [_make_cloud_source(base, name, label_names.index(name.rpartition("_")[0])) for name in some]
        for split, some in names.items()
    }


def _make_cloud_source(base: Path, name: str, label: int) -> Source:
    path = base / name.rpartition("_")[0] / f"{name}.txt"
    return Source(id=readable(path.relative_to(base)), path=path, label=label)


MAX_POINTS = 131_072


@reads_media
def las(root: Path) -> Dataset:
    """Read any folder of airborne or terrestrial laser scans (LAS or LAZ tiles), in the layouts of folder.py.

    A tile of more than 131,072 points is cut into square blocks of about that many points, by the bounds in its header.
    One block is one sample; blocks without points are rejected. A process caches up to 512 MB of decoded tiles (about 8
    million points with colours), so it decodes such a tile once for all its blocks. It decodes a larger tile again for
    each block; split those first (PDAL's filters.splitter).

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: As for `folder`, or laspy is not installed.
    """
    found = folder(root, name="las", encoder=PointEncoder(), suffixes=LAS_SUFFIXES, labelled=False)
    splits = {
        split: [block for source in sources for block in blocks(source, MAX_POINTS)]
        for split, sources in found.splits.items()
    }
    return replace(found, splits=splits)


def blocks(tile: Source, max_points: int) -> Iterator[Source]:
    """Yield the blocks of a tile of about `max_points` points; the tile itself if it is small or its header is
    unreadable.
    """
    laspy = import_laspy()
    try:
        check_las_header(tile.path)
        with laspy.open(tile.path) as reader:
            n, low, high = reader.header.point_count, reader.header.mins.tolist(), reader.header.maxs.tolist()
    except Exception:  # the encoder reads the header again and rejects the source with the reason
        yield tile
        return
    width, height = high[0] - low[0], high[1] - low[1]
    if n <= max_points or not 0 < width * height < math.inf:
        yield tile
        return
    side = math.sqrt(width * height * max_points / n)
    columns, rows = math.ceil(width / side), math.ceil(height / side)
    xs, ys = _find_edges(low[0], high[0], columns), _find_edges(low[1], high[1], rows)
    for i in range(columns):
        for j in range(rows):
            block = [xs[i], ys[j], xs[i + 1], ys[j + 1]]
            yield replace(tile, id=f"{tile.id}:{i}-{j}", meta={**tile.meta, "block": block})


def _find_edges(low: float, high: float, parts: int) -> list[float]:
    """Return the edges of the parts; the outer edges lie outside the bounds, because headers round them."""
    edges = [low + (high - low) * i / parts for i in range(parts + 1)]
    return [low - (high - low), *edges[1:-1], high + (high - low)]
