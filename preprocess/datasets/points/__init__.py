"""Datasets of point clouds, in the layouts of their publishers."""

from collections.abc import Callable
from pathlib import Path

from ..dataset import Dataset
from .las import las
from .modelnet40 import modelnet40
from .points_folder import points_folder
from .sample_points import sample_points
from .shapenet import shapenet

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "modelnet40": modelnet40,
    "shapenet": shapenet,
    "las": las,
    "points-folder": points_folder,
    "sample-points": sample_points,
}
