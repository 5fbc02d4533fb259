"""Point clouds of one's own: PLY, NPY, LAS or LAZ, and meshes that points are drawn on: OBJ, PLY, STL, OFF or GLB.

They are laid out or listed as folder.py says. An NPY file holds an array (N, 3 or more) of numbers, x, y, z first.
Tiles are taken whole: the dataset `las` cuts them.
"""

from __future__ import annotations

from pathlib import Path

from ...encode.points.encoder import PointEncoder
from ...encode.points.point_files import POINT_SUFFIXES
from ..dataset import Dataset
from ..folder import folder


def points_folder(root: Path) -> Dataset:
    """The splits of a folder of clouds and meshes; DatasetError as for `folder`."""
    return folder(root, name="points-folder", encoder=PointEncoder(), suffixes=POINT_SUFFIXES)
