"""The image modality."""

from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.image import ImageFigures
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.data import CUES, ImageData, compute_image_grid
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.image import IMAGE as KIND


def figures(data: DataConfig[Any], manifest: Manifest) -> ImageFigures:
    """Return the figures of images.

    Args:
        data: The data config.
        manifest: The split.
    """
    return ImageFigures(grid=data.grids["image"], label_names=label_names(manifest.info))


IMAGE = Modality(
    name="image",
    unit="picture",
    units="pictures",
    kinds=(KIND.name,),
    encoder=ImageEncoder,
    data=ImageData(mask=MASKS["mae"]()),
    masks=(MaskField(grid=compute_image_grid(224, 16), cues=CUES),),
    figures=figures,
    demo=Demo(recipe="mae-tiny"),
    stages={
        "decode": ("Decoding", "shards with a short side (ImageEncoder), JPEG members, or more cores would help"),
        "convert": ("Cropping and resizing", "a smaller output, no colour jitter, or more cores would help"),
    },
)
