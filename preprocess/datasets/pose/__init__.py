"""Datasets of motions."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .pose_folder import pose_folder

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "pose-folder": pose_folder,
}
