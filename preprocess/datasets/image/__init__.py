"""Pictures as their publishers lay them out."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.datasets.parquet_media import parquet_image

from .image_folder import image_folder
from .imagefolder import imagefolder

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "imagefolder": imagefolder,
    "image-folder": image_folder,
    "parquet-image": parquet_image,
}
