"""Datasets of meshes and simulations, in the layouts of their publishers."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .mesh_folder import mesh_folder
from .meshgraphnets import meshgraphnets

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "mesh-folder": mesh_folder,
    "meshgraphnets": meshgraphnets,
}
