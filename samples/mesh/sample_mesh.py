"""A small sample set of simulations: flows around a cylinder on coarse meshes, 24 for train and 6 for val."""

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .cylinder import CylinderFlow
from .cylinder_flow import flows

TRAJECTORIES = {"train": 24, "val": 6}
SPACING_M, STEP_S = 0.04, 2e-3


def sample_mesh(root: Path) -> Dataset:
    """Trajectories of 150 steps on about 570 nodes: 1 to 2 s each on one core. `root` is not used."""
    return flows("sample-mesh", root, TRAJECTORIES, CylinderFlow(spacing_m=SPACING_M, step_s=STEP_S))
