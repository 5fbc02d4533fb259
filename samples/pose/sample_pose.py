"""A small sample set of pose sequences: from Lugaru and PyBullet, and two captures of bvhtoolbox's tests.

Packages and their licences: Debian's lugaru-data (34 MB, CC-BY-SA-3.0), PyBullet (103 MB, zlib), bvhtoolbox (source
archive, 1 MB, MIT). Two minutes in all.
"""

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.pose.encoder import PoseEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.packages import Package, fetch

from .actions import LABELS
from .lugaru import fetch_lugaru
from .pybullet_motions import fetch_pybullet

BVHTOOLBOX = Package(
    name="bvhtoolbox",
    version="0.1.3",
    sha256="2d9dcae87cd6bfa28c89463450de84497e612682ca0697ea088fc7f2ef0f937f",
    source=True,
)
CAPTURES = ("tests/example_files/test_mocapbank.bvh", "tests/example_files/test_freebvh.bvh")


HELD_OUT = frozenset(
    (
        *("Climb", "CrouchStab", "Flip", "HangOn", "Idle", "KnifeFightIdle", "KnifeSlashCatch", "KnifeSneakAttacked"),
        *("LowKick", "RabbitRunning", "RabbitTackledBack", "RabbitTackledFront", "Run", "Sneak", "SneakAttacked"),
        *("SpinKickCatch", "SweepCatch", "SwordSlashCatch", "SwordSneakAttacked", "TalkIdle", "Upunch", "UpunchCatch"),
        *("UpunchCaught", "WallJumpBack", "WallJumpLeft", "WallJumpRight"),
        *("humanoid3d_getup_faceup", "humanoid3d_spin", "test_freebvh.bvh"),
    )
)
"""Sequences of the split val, about a fifth of each label. Games create new motions from existing ones, so those that
share a fifth of their poses (joints within 3 cm, also rotated and mirrored) were put into one split.
"""


def sample_pose(root: Path) -> Dataset:
    """The sample set, downloaded into `root`. Raises DatasetError if the download fails."""
    root.mkdir(parents=True, exist_ok=True)
    captures = [Source(id=f"bvhtoolbox/{path.name}", path=path) for path in fetch(BVHTOOLBOX, CAPTURES, root).values()]
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for source in (*fetch_lugaru(root), *fetch_pybullet(root), *captures):
        splits["val" if source.id.partition("/")[2] in HELD_OUT else "train"].append(source)
    return Dataset(name="sample-pose", label_names=LABELS, splits=splits, encoder=PoseEncoder())
