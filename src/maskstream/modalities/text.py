"""Texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from ..modality import Demo, Modality
from ..pages.figures.card import label_names
from ..pages.figures.text import TextFigures
from ..pages.report.works.text import show, show_classes
from ..pipelines.masks.core.scheme import TEXT as GRID
from ..pipelines.modalities.data import DataConfig
from ..pipelines.modalities.text.data import CUES, Layout, TextData
from ..preprocess.encode.text.encoder import TextEncoder
from ..shards.format.dataset import read_dataset_json
from ..shards.format.tokenizer import read_tokenizer, tokenizer_facts
from ..shards.members.text import TEXT as KIND
from ..shards.members.tokens import TOKENS
from ..shards.stores.location import opened
from ..train.nn.token_model import TokenModelConfig
from ..train.papers.roar.lstm import LSTMClassifierConfig
from ..train.papers.roar.roberta import RobertaClassifierConfig
from ..trial import MaskArgument, Trial, given, option


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTrial(Trial):
    """Texts."""

    masks: ClassVar[tuple[MaskArgument, ...]] = (
        MaskArgument(default="m3ae-text", grid=GRID, cues=CUES, must=frozenset({"words"})),
    )

    length: int | None = option("Tokens of a row", default=128, least=4, panel="Text")
    packing: str | None = option("What a row holds: pack or row", default="pack", panel="Text")

    def chosen(self) -> TextData:
        """The length and the packing."""
        return TextData(**given(length=self.length, packing=cast(Layout | None, self.packing)))


def figures(data: DataConfig[Any], location: str | Path) -> TextFigures:
    """Figures of texts."""
    if not isinstance(data, TextData):
        raise TypeError(f"figures of texts need a TextData, got {type(data).__name__}")
    store, info = opened(location), read_dataset_json(location)
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
    trial=TextTrial,
    figures=figures,
    works={TokenModelConfig: show, LSTMClassifierConfig: show_classes, RobertaClassifierConfig: show_classes},
    demo=Demo(recipe="bert-tiny"),
    stages={
        "read": ("Reading", "longer rows, larger shards on a local disk, or more threads would help"),
        "mask": ("Masks", "a simpler mask, or more worker processes would help"),
    },
)
