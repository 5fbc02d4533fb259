"""Meshes to try everything with: 24 flows about a cylinder to train on and 6 for validation, on coarse meshes."""

from __future__ import annotations

from pathlib import Path

from ...encode.mesh.cylinder import CylinderFlow
from ..dataset import Dataset
from .cylinder_flow import flows

TRAJECTORIES = {"train": 24, "val": 6}
SPACING_M, STEP_S = 0.04, 2e-3


def sample_mesh(root: Path) -> Dataset:
    """Trajectories of 150 steps on about 570 nodes, a second or two each on one core; `root` is not looked at."""
    return flows("sample-mesh", root, TRAJECTORIES, CylinderFlow(spacing_m=SPACING_M, step_s=STEP_S))
