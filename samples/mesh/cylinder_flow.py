"""Simulated flows around a cylinder, computed while the shards are written; no data are read or downloaded.

The inflow speed and the cylinder's position and radius are drawn from the trajectory's number. Reynolds numbers are 60
to 170, so most flows shed vortices.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import xxhash

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.mesh.encoder import MeshEncoder, Simulation
from maskstream.preprocess.source import Source

from .cylinder import CylinderFlow, compute


def cylinder_flow(root: Path) -> Dataset:
    """64 trajectories for train and 16 each for val and test, of 150 steps on about 950 nodes: 11 s each on one core.
    `root` is not used.
    """
    return flows("cylinder-flow", root, {"train": 64, "val": 16, "test": 16}, CylinderFlow())


def sample_mesh(root: Path) -> Dataset:
    """24 trajectories for train and 6 for val, of 150 steps on about 570 nodes: 1 to 2 s each on one core."""
    return flows("sample-mesh", root, {"train": 24, "val": 6}, CylinderFlow(spacing_m=0.04, step_s=2e-3))


def flows(name: str, root: Path, counts: dict[str, int], like: CylinderFlow) -> Dataset:
    """Create `counts` trajectories of each split; `like` sets the parameters that are not drawn."""
    splits = {
        split: [
            Source(
                id=(own := f"{split}/{number:04d}"),
                path=root / own,
                meta={"flow": asdict(draw_flow(f"{name}/{own}", like))},
                computed=True,
                made_by=compute_flow,
            )
            for number in range(count)
        ]
        for split, count in counts.items()
    }
    return Dataset(name=name, label_names=(), splits=splits, encoder=MeshEncoder())


def compute_flow(source: Source) -> Simulation:
    """Simulate the flow of a source."""
    return compute(CylinderFlow(**source.meta["flow"]))


def draw_flow(name: str, like: CylinderFlow) -> CylinderFlow:
    """Return `like` with the inflow speed, cylinder position and radius drawn for a name."""
    rng = np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(name.encode())))
    speed, x, y, radius = rng.uniform((1.0, 0.28, 0.17, 0.045), (1.6, 0.40, 0.24, 0.07)).round(4).tolist()
    return replace(like, inlet_m_s=speed, x_m=x, y_m=y, radius_m=radius)
