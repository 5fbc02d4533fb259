"""Flows about a cylinder, computed when the shards are written: nothing is read, and nothing needs to be downloaded.

Every trajectory has a speed, a place and a size of its own, drawn from its number: the Reynolds numbers are 60 to 170,
so most shed vortices.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import xxhash

from ...encode.mesh.cylinder import CylinderFlow
from ...encode.mesh.encoder import MeshEncoder
from ...source import Source
from ..dataset import Dataset

TRAJECTORIES = {"train": 64, "val": 16, "test": 16}


def cylinder_flow(root: Path) -> Dataset:
    """64 trajectories to train on and 16 each of val and test, of 150 steps on about 950 nodes: 11 s each on one core.

    `root` is not looked at.
    """
    return flows("cylinder-flow", root, TRAJECTORIES, CylinderFlow())


def flows(name: str, root: Path, counts: dict[str, int], like: CylinderFlow) -> Dataset:
    """As many trajectories of each split as `counts` says, each `like` the given one but for what is drawn."""
    splits = {
        split: [
            Source(
                id=(own := f"{split}/{number:04d}"),
                path=root / own,
                meta={"flow": asdict(drawn_flow(f"{name}/{own}", like))},
            )
            for number in range(count)
        ]
        for split, count in counts.items()
    }
    return Dataset(name=name, label_names=(), splits=splits, encoder=MeshEncoder())


def drawn_flow(name: str, like: CylinderFlow) -> CylinderFlow:
    """`like` with the speed, the cylinder's place and its radius that belong to a name."""
    rng = np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(name.encode())))
    speed, x, y, radius = rng.uniform((1.0, 0.28, 0.17, 0.045), (1.6, 0.40, 0.24, 0.07)).round(4).tolist()
    return replace(like, inlet_m_s=speed, x_m=x, y_m=y, radius_m=radius)
