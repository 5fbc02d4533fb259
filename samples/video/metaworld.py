"""Simulated clips of a robot's arm at the 50 tasks of Meta-World, drawn while the shards are written.

The label is the task. A clip has 64 frames of 96 x 96 pixels at 40 frames per second, from the start of an episode, in
which most policies are done. Each has a seed of its own, which places objects and goal, so no two splits share a start.
It needs `pip install 'maskstream[metaworld]'`; nothing else is downloaded.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import xxhash

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.video.drawn_clip import DrawnClip
from maskstream.preprocess.source import Source

from .episodes import Episode, render, task_names

NAME = "metaworld"
EPISODES = {"train": 4, "val": 1}
"""The number of episodes of each task in each split."""


def metaworld(root: Path) -> Dataset:
    """200 clips for train and 50 for val, 1.5 s each on one core. `root` is not used.

    Raises DatasetError if metaworld is not installed.
    """
    tasks = task_names()
    splits = {
        split: [
            Source(
                id=(own := f"{split}/{task}/{number:02d}"),
                path=root / own,
                label=label,
                meta={"episode": asdict(Episode(task=task, seed=seed_of(own)))},
                computed=True,
                made_by=simulated,
            )
            for label, task in enumerate(tasks)
            for number in range(count)
        ]
        for split, count in EPISODES.items()
    }
    return Dataset(name=NAME, label_names=tuple(task.removesuffix("-v3") for task in tasks), splits=splits)


def simulated(source: Source) -> DrawnClip:
    """The episode of a source."""
    episode = Episode(**source.meta["episode"])
    return DrawnClip(frames=render(episode), fps=episode.fps)


def seed_of(name: str) -> int:
    """The seed of a source, in 63 bits, from its name."""
    return int(xxhash.xxh3_64_intdigest(f"{NAME}/{name}".encode()) >> 1)
