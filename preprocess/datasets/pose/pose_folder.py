"""Any folder of motions (BVH, NPZ, PSA of 0 A.D.), in the layouts of folder.py.

What an NPZ file holds is in encode/pose/npz.py. BVH files do not say their unit and axes: `--set bvh_unit_m=0.01` and
`--set bvh_up=y` are the defaults.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, in_archives
from maskstream.preprocess.datasets.folder import folder
from maskstream.preprocess.encode.pose.encoder import POSE_SUFFIXES, PoseEncoder


@in_archives()
def pose_folder(root: Path) -> Dataset:
    """The splits of a folder of motions. Raises DatasetError as `folder` does."""
    return folder(root, name="pose-folder", encoder=PoseEncoder(), suffixes=POSE_SUFFIXES)
