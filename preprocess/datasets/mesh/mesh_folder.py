"""Any folder of mesh files (OBJ, PLY, STL, OFF or GLB), in the layouts of folder.py."""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, in_archives
from maskstream.preprocess.datasets.folder import folder
from maskstream.preprocess.encode.mesh.encoder import MeshEncoder
from maskstream.preprocess.encode.mesh.surfaces import SURFACE_SUFFIXES


@in_archives(".csv")
def mesh_folder(root: Path) -> Dataset:
    """The splits of a folder of mesh files. Raises DatasetError as `folder` does."""
    return folder(root, name="mesh-folder", encoder=MeshEncoder(), suffixes=SURFACE_SUFFIXES, labelled=False)
