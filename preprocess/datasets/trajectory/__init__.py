"""Datasets of walks with depth and poses."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .miniworld_walks import miniworld_walks
from .sample_trajectory import sample_trajectory
from .tum_rgbd import tum_rgbd
from .vizdoom_walks import vizdoom_walks

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "miniworld-walks": miniworld_walks,
    "sample-trajectory": sample_trajectory,
    "tum-rgbd": tum_rgbd,
    "vizdoom-walks": vizdoom_walks,
}
