"""A small sample set of walks: of `vizdoom-walks` one through each map of train, and two through each of val."""

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .vizdoom_walks import walks_through

WALKS = {"train": 1, "val": 2}


def sample_trajectory(root: Path) -> Dataset:
    """The sample set. `root` is not used. DatasetError if vizdoom is not installed."""
    return walks_through("sample-trajectory", root, WALKS)
