"""Any folder of videos with sound, in the layouts of folder.py: one folder per class, or a list."""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, in_archives
from maskstream.preprocess.datasets.folder import folder
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder


@in_archives(".csv")
def audiovisual_folder(root: Path) -> Dataset:
    """The splits of a folder of videos with their sound tracks. Raises DatasetError as `folder` does."""
    return folder(root, name="audiovisual-folder", encoder=AudioVisualEncoder())
