"""Raw datasets, one file each: a function from the folder of the raw data to its sources."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .cylinder_flow import cylinder_flow
from .dataset import Dataset, Source
from .folder import folder
from .hmdb51 import hmdb51
from .k400 import k400
from .las import las
from .mesh_folder import mesh_folder
from .meshgraphnets import meshgraphnets
from .modelnet40 import modelnet40
from .points_folder import points_folder
from .sample import sample
from .sample_mesh import sample_mesh
from .sample_points import sample_points
from .shapenet import shapenet
from .ssv2 import ssv2
from .ucf101 import ucf101

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "sample": sample,
    "k400": k400,
    "ssv2": ssv2,
    "ucf101": ucf101,
    "ucf101-2": partial(ucf101, fold=2),
    "ucf101-3": partial(ucf101, fold=3),
    "hmdb51": hmdb51,
    "hmdb51-2": partial(hmdb51, fold=2),
    "hmdb51-3": partial(hmdb51, fold=3),
    "folder": folder,
    "modelnet40": modelnet40,
    "shapenet": shapenet,
    "las": las,
    "points-folder": points_folder,
    "sample-points": sample_points,
    "mesh-folder": mesh_folder,
    "meshgraphnets": meshgraphnets,
    "cylinder-flow": cylinder_flow,
    "sample-mesh": sample_mesh,
}

__all__ = ["DATASETS", "Dataset", "Source"]
