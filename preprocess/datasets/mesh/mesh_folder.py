"""Mesh files of one's own: OBJ, PLY, STL, OFF or GLB, laid out or listed as folder.py says."""

from __future__ import annotations

from pathlib import Path

from ...encode.mesh.encoder import MeshEncoder
from ...encode.mesh.surfaces import SURFACE_SUFFIXES
from ..dataset import Dataset
from ..folder import folder


def mesh_folder(root: Path) -> Dataset:
    """The splits of a folder of mesh files; DatasetError as for `folder`."""
    return folder(root, name="mesh-folder", encoder=MeshEncoder(), suffixes=SURFACE_SUFFIXES)
