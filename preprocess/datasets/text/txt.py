"""Any folder of text files, one document each: one folder per class, or a list, as `folder` has it for videos."""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, reads_media
from maskstream.preprocess.datasets.folder import folder
from maskstream.preprocess.encode.text.encoder import TextEncoder


@reads_media
def txt(root: Path) -> Dataset:
    """The splits of a folder of .txt files in UTF-8; DatasetError where there is none, or the list does not fit."""
    return folder(root, name="txt", encoder=TextEncoder(), suffixes={".txt"}, labelled=False)
