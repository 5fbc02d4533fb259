"""Images with texts."""

from dataclasses import replace
from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.image import ImageFigures
from maskstream.pages.figures.text import ImageTextFigures, TextFigures
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.masks.core import TEXT as TEXT_GRID
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.pipelines.modalities.image_text.data import IMAGE_CUES, TEXT_CUES, ImageTextData
from maskstream.pipelines.modalities.image_text.places import SEGMENTS
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer, read_tokenizer_facts
from maskstream.shards.members.image import IMAGE
from maskstream.shards.members.text import TEXTS


def with_segments(manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
    """Return `data` with the segments of phrases, if the split has them.

    Args:
        manifest: The split.
        data: The data config.
    """
    if isinstance(data, ImageTextData) and SEGMENTS in manifest.components:
        return replace(data, segments=True)
    return data


def figures(data: DataConfig[Any], manifest: Manifest) -> ImageTextFigures:
    """Return the figures of images with texts.

    Args:
        data: The data config.
        manifest: The split.
    """
    if not isinstance(data, ImageTextData):
        raise TypeError(f"figures of images with texts need an ImageTextData, got {type(data).__name__}")
    facts = read_tokenizer_facts(manifest.location, manifest.info)
    tokenizer = read_tokenizer(manifest.store, manifest.info)
    text = TextFigures(length=data.length, tokenizer=tokenizer, mask_id=facts.mask, packed=False)
    image = ImageFigures(grid=data.grids["image"], label_names=label_names(manifest.info))
    return ImageTextFigures(image=image, text=text)


IMAGE_TEXT = Modality(
    name="image-text",
    unit="image",
    units="images",
    kinds=(IMAGE.name, TEXTS.name),
    encoder=ImageTextEncoder,
    data=ImageTextData(image_mask=MASKS["m3ae-image"](), text_mask=MASKS["m3ae-text"]()),
    masks=(
        MaskField(name="image_mask", grid=compute_image_grid(224, 16), cues=IMAGE_CUES),
        MaskField(name="text_mask", grid=TEXT_GRID, cues=TEXT_CUES, must=frozenset({"words"})),
    ),
    suited=with_segments,
    figures=figures,
    demo=Demo(recipe="m3ae-tiny"),
    stages={
        "decode": ("Decoding", "shards with a short side (ImageEncoder), JPEG members, or more cores would help"),
        "convert": ("Cropping, resizing and rows", "a smaller output, shorter rows, or more cores would help"),
        "mask": ("Masks", "a simpler mask, or more worker processes would help"),
    },
)
