"""Datasets of motions."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .lugaru import lugaru
from .pose_folder import pose_folder
from .pybullet_motions import pybullet_motions
from .sample_pose import sample_pose
from .zero_ad import zero_ad

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "0ad": zero_ad,
    "lugaru": lugaru,
    "pose-folder": pose_folder,
    "pybullet-motions": pybullet_motions,
    "sample-pose": sample_pose,
}
