"""Pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..modality import Demo, MaskField, Modality
from ..pages.figures.card import label_names
from ..pages.figures.image import ImageFigures
from ..pipelines.masks import MASKS
from ..pipelines.modalities.data import DataConfig
from ..pipelines.modalities.image.data import ImageData, image_grid
from ..preprocess.encode.image.encoder import ImageEncoder
from ..shards.format.dataset import read_dataset_json
from ..shards.members.image import IMAGE as KIND


def figures(data: DataConfig[Any], location: str | Path) -> ImageFigures:
    """Figures of pictures."""
    return ImageFigures(grid=data.grids["image"], label_names=label_names(read_dataset_json(location)))


IMAGE = Modality(
    name="image",
    unit="picture",
    units="pictures",
    kinds=(KIND.name,),
    encoder=ImageEncoder,
    data=ImageData(mask=MASKS["mae"]()),
    masks=(MaskField(grid=image_grid(224, 16)),),
    figures=figures,
    demo=Demo(recipe="mae-tiny"),
    stages={
        "decode": ("Decoding", "shards with a short side (ImageEncoder), JPEG members, or more cores would help"),
        "convert": ("Cropping and resizing", "a smaller output, no colour jitter, or more cores would help"),
    },
)
