"""Texts."""

from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.text import TextFigures
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.masks.core import TEXT as GRID
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.text.data import CUES, TextData
from maskstream.preprocess.encode.text.encoder import TextEncoder
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer, read_tokenizer_facts
from maskstream.shards.members.text import TEXT as KIND
from maskstream.shards.members.text import TOKENS


def figures(data: DataConfig[Any], manifest: Manifest) -> TextFigures:
    """Return the figures of texts.

    Args:
        data: The data config.
        manifest: The split.
    """
    if not isinstance(data, TextData):
        raise TypeError(f"text figures need a TextData, got {type(data).__name__}")
    facts = read_tokenizer_facts(manifest.location, manifest.info)
    return TextFigures(
        length=data.length,
        tokenizer=read_tokenizer(manifest.store, manifest.info),
        mask_id=facts.mask,
        packed=data.packing == "pack",
        label_names=label_names(manifest.info),
    )


TEXT = Modality(
    name="text",
    unit="text",
    units="texts",
    kinds=(KIND.name, TOKENS.name),
    encoder=TextEncoder,
    data=TextData(length=128, mask=MASKS["m3ae-text"]()),
    masks=(MaskField(grid=GRID, cues=CUES, must=frozenset({"words"})),),
    figures=figures,
    demo=Demo(recipe="bert-tiny"),
    stages={
        "read": ("Reading", "longer rows, larger shards on a local disk, or more threads would help"),
        "mask": ("Masks", "a simpler mask, or more worker processes would help"),
    },
)
