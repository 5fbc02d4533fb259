"""Pictures as their publishers lay them out."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.datasets.parquet_media import parquet_image

from .emoji import emoji
from .fashion_mnist import fashion_mnist
from .image_folder import image_folder
from .imagefolder import imagefolder
from .openclipart import openclipart
from .sample_image import sample_image
from .wesnoth_terrain import wesnoth_terrain

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "imagefolder": imagefolder,
    "image-folder": image_folder,
    "parquet-image": parquet_image,
    "emoji": emoji,
    "fashion-mnist": fashion_mnist,
    "openclipart": openclipart,
    "wesnoth-terrain": wesnoth_terrain,
    "sample-image": sample_image,
}
