"""Any folder of point clouds (PLY, NPY, LAS, LAZ) or of meshes to sample points on (OBJ, PLY, STL, OFF, GLB).

The layouts are those of folder.py. An NPY file holds an array (N, 3 or more) of numbers, x, y, z first. A LAS or LAZ
tile becomes one sample; the dataset `las` cuts tiles into blocks.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, in_archives
from maskstream.preprocess.datasets.folder import folder
from maskstream.preprocess.encode.points.encoder import PointEncoder
from maskstream.preprocess.encode.points.point_files import POINT_SUFFIXES


@in_archives(".csv")
def points_folder(root: Path) -> Dataset:
    """The splits of a folder of clouds and meshes. Raises DatasetError as `folder` does."""
    return folder(root, name="points-folder", encoder=PointEncoder(), suffixes=POINT_SUFFIXES)
