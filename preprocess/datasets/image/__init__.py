"""Pictures as their publishers lay them out."""

from collections.abc import Callable
from pathlib import Path

from ..dataset import Dataset
from .image_folder import image_folder
from .imagefolder import imagefolder
from .sample_image import sample_image

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "imagefolder": imagefolder,
    "image-folder": image_folder,
    "sample-image": sample_image,
}
