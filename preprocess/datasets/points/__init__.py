"""Datasets of point clouds, in the layouts of their publishers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .las import las
from .modelnet40 import modelnet40
from .points_folder import points_folder
from .shapenet import shapenet
from .shapenet_lists import shapenet55, shapenetpart

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "modelnet40": modelnet40,
    "shapenet": shapenet,
    "shapenet55": shapenet55,
    "shapenet34": partial(shapenet55, name="shapenet34", lists="ShapeNet-34"),
    "shapenetpart": shapenetpart,
    "las": las,
    "points-folder": points_folder,
}
