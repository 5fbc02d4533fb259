"""A small sample set of motions: of Lugaru and PyBullet, and two captures of bvhtoolbox's tests.

Packages and their licences: Debian's lugaru-data (34 MB, CC-BY-SA-3.0), PyBullet (103 MB, zlib), bvhtoolbox (source
archive, 1 MB, MIT). Two minutes in all. Motions that share poses share a split.
"""

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.pose.encoder import PoseEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.packages import Package, fetch

from .actions import LABELS
from .held_out_motions import held_out_motions
from .lugaru import lugaru_sources
from .pybullet_motions import pybullet_sources

BVHTOOLBOX = Package(
    name="bvhtoolbox",
    version="0.1.3",
    sha256="2d9dcae87cd6bfa28c89463450de84497e612682ca0697ea088fc7f2ef0f937f",
    source=True,
)
CAPTURES = ("tests/example_files/test_mocapbank.bvh", "tests/example_files/test_freebvh.bvh")


def sample_pose(root: Path) -> Dataset:
    """The sample set, downloaded into `root`. Raises DatasetError if the download fails."""
    root.mkdir(parents=True, exist_ok=True)
    encoder = PoseEncoder()
    captures = [Source(id=f"bvhtoolbox/{path.name}", path=path) for path in fetch(BVHTOOLBOX, CAPTURES, root).values()]
    sources = [*lugaru_sources(root), *pybullet_sources(root), *captures]
    return Dataset(name="sample-pose", label_names=LABELS, splits=held_out_motions(sources, encoder), encoder=encoder)
