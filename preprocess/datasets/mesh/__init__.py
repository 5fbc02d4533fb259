"""Datasets of meshes and simulations, in the layouts of their publishers."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .cylinder_flow import cylinder_flow
from .mesh_folder import mesh_folder
from .meshgraphnets import meshgraphnets
from .sample_mesh import sample_mesh

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "mesh-folder": mesh_folder,
    "meshgraphnets": meshgraphnets,
    "cylinder-flow": cylinder_flow,
    "sample-mesh": sample_mesh,
}
