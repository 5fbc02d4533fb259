"""Any folder of pictures, also DICOM (.dcm): one folder per class, or a list, as `folder` has it for videos."""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset, in_archives
from maskstream.preprocess.datasets.folder import folder
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.image.picture import IMAGE_SUFFIXES


@in_archives(".csv")
def image_folder(root: Path) -> Dataset:
    """The splits of a folder of pictures; DatasetError where there is none, or the list is not as `folder` has it."""
    return folder(root, name="image-folder", encoder=ImageEncoder(), suffixes=IMAGE_SUFFIXES)
