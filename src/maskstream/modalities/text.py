"""Texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.text import TextFigures
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.masks.core.scheme import TEXT as GRID
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.text.data import CUES, TextData
from maskstream.preprocess.encode.text.encoder import TextEncoder
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.tokenizer import read_tokenizer, tokenizer_facts
from maskstream.shards.members.text import TEXT as KIND
from maskstream.shards.members.tokens import TOKENS
from maskstream.shards.stores.open import open_store


def figures(data: DataConfig[Any], location: str | Path) -> TextFigures:
    """Figures of texts."""
    if not isinstance(data, TextData):
        raise TypeError(f"figures of texts need a TextData, got {type(data).__name__}")
    store, info = open_store(location), read_dataset_json(location)
    facts = tokenizer_facts(store.location, info)
    return TextFigures(
        length=data.length,
        tokenizer=read_tokenizer(store, info),
        mask_id=facts.mask,
        packed=data.packing == "pack",
        label_names=label_names(info),
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
