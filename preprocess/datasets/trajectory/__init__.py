"""Datasets of walks with depth and poses."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .tum_rgbd import tum_rgbd

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "tum-rgbd": tum_rgbd,
}
