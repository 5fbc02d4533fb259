"""Walks through mazes of MiniWorld, recorded while the shards are written.

A scripted explorer walks to goals 5 to 16 m away, around walls and boxes and with smooth turns. A walk has 96 frames of
160 x 120 pixels, 7 a second, with depth in millimetres and poses. A maze is in one split only. It needs
`pip install 'maskstream[walks]'` and OpenGL, which Mesa has for CPUs; nothing else is downloaded.
"""

from dataclasses import asdict
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.trajectory.encoder import TrajectoryEncoder, Walk
from maskstream.preprocess.source import Source

from .miniworld import MiniworldWalk, check_miniworld
from .vizdoom_walks import walk_seed

MAZES = {"train": range(80), "val": range(80, 100)}
"""The mazes of each split."""
WALKS = 2
"""The number of walks through each maze."""


def miniworld_walks(root: Path) -> Dataset:
    """The walks through all mazes. `root` is not used. DatasetError if miniworld is not installed."""
    check_miniworld()
    splits: dict[str, list[Source]] = {}
    for split, mazes in MAZES.items():
        splits[split] = []
        for maze in mazes:
            for number in range(WALKS):
                own = f"maze/{maze:03d}/{number:02d}"
                walk = MiniworldWalk(maze=maze, seed=walk_seed(own))
                meta = {"recorded": "miniworld", "walk": asdict(walk), "map": f"maze/{maze:03d}"}
                splits[split].append(Source(id=own, path=root / own, meta=meta, computed=True, made_by=recorded))
    return Dataset(name="miniworld-walks", label_names=(), splits=splits, encoder=TrajectoryEncoder())


def recorded(source: Source) -> Walk:
    """The walk of a source."""
    return MiniworldWalk(**source.meta["walk"]).record()
