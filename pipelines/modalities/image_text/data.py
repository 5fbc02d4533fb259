"""The data config of images with texts, and the source that it makes of a split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self, Unpack

import numpy as np

from ....shards.format.manifest import Manifest
from ....shards.format.tokenizer import read_tokenizer, tokenizer_facts
from ....shards.members.image import IMAGE
from ....shards.members.texts import ROLES
from ...augment import Augmentation, CenterCrop
from ...augment.colour import ColourJitter
from ...masks import Mask, TokenGrid
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..image.data import ImageData, image_grid
from ..split import Options, Split, split_of
from ..text.data import with_ids
from .batch import ImageTextBatch
from .places import BOXES, SEGMENTS, PlaceReader
from .rows import TEXTS, RowMaker
from .sample import ImageTextDraft, ImageTextRequest, ImageTextSampler

ImageTextSource = Source[FieldsRequest[ImageTextRequest], FieldsDraft[ImageTextDraft], ImageTextBatch, ImageTextBatch]
SHOWN = ("caption", "phrase", "question")
"""The roles of a row by default."""
IMAGE_CUES = frozenset({"box"})
TEXT_CUES = frozenset({"words", "classes", "tokens"})
"""The cues for masks: `classes` are the numbers of the tokens' roles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextData(DataConfig[ImageTextBatch]):
    """The data config of masked images with masked texts.

    size, patch, augment, colour, views, fields: as in `ImageData`; the crop is by default the centre, because a text
    may speak of all of an image, and of left and right. picture: which of a sample's images is shown, from 0.

    text: the roles whose texts stand in a row, in order, such as ("question", "answer"), of `ROLES`
    (maskstream.shards.members.texts); by default those of caption, phrase and question that the split has. A sample
    without one of them leaves it out. Of several texts of a role one is drawn when shuffled, else the first is taken.
    length: the tokens of a row, special ones and padding included. target, target_length: the same for the texts that a
    model is to write (see strategies.py). then: the texts of a second stage: half of the views read those of `text` and
    `target` and are to write these, the others read `text` and are to write `target`.

    image_mask (axes h, w; the cue `box` is that of the row's phrase) and text_mask (axis token; cues `words`,
    `tokens`, and `classes`, the tokens' roles) are drawn with the key of the sample, each by generators of its own. The
    ids of a `masks.Replace` may be left out. pairs: each row also has a text to judge, the image's own or, with
    probability 1/2, that of a random other sample of the split (image-text matching). segments: whether batches have
    the pixels that phrases refer to.
    """

    modality: ClassVar[str] = "image-text"

    size: int = 224
    patch: int = 16
    text: tuple[str, ...] = ()
    length: int = 64
    target: tuple[str, ...] = ()
    target_length: int = 64
    then: tuple[str, ...] = ()
    image_mask: Mask | None = None
    text_mask: Mask | None = None
    pairs: bool = False
    segments: bool = False
    augment: Augmentation | None = None
    colour: ColourJitter | None = None
    views: int = 1
    picture: int = 0
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_settings(self, self.views)
        _ = self.grids
        if unknown := [role for role in (*self.text, *self.target, *self.then) if role not in ROLES]:
            raise ValueError(
                f"text, target and then name roles of texts, got {unknown[0]!r}; legal are {', '.join(ROLES)}"
            )
        if min(self.length, self.target_length) < 4:
            raise ValueError(
                f"a row has 4 tokens or more, got length={self.length}, target_length={self.target_length}"
            )
        if self.then and not (self.text and self.target):
            raise ValueError(f"then={self.then} is a second stage, which reads text and target; give both")
        if self.picture < 0:
            raise ValueError(f"picture={self.picture}: the first is 0")
        for mask, cues in ((self.image_mask, IMAGE_CUES), (self.text_mask, TEXT_CUES)):
            if mask is not None and (other := mask.needs - cues):
                raise ValueError(f"{mask} needs {', '.join(sorted(other))}; its part has {', '.join(sorted(cues))}")
        if self.text_mask is not None and "words" not in self.text_mask.needs:
            raise ValueError(
                f"{self.text_mask} does not read words, so it would hide padding; use Tokens or WholeWords"
            )

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grids of "image", with the axes (h, w), and of "text", with the axis (token,)."""
        return {
            "image": image_grid(self.size, self.patch),
            "text": TokenGrid(axes=("token",), shape=(self.length,), patch=(1,)),
        }

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in: the roles, and the ids of `masks.Replace`.

        ValueError if boxes or segments are needed and the split has none, or no sample has a text of the roles.
        """
        manifest = split.manifest
        if self.image_mask is not None and self.image_mask.needs and BOXES not in manifest.components:
            raise ValueError(f"{self.image_mask} needs boxes of phrases, and {manifest.location} has no {BOXES}")
        if self.segments and SEGMENTS not in manifest.components:
            raise ValueError(f"segments=True needs segments of phrases, and {manifest.location} has no {SEGMENTS}")
        held = roles_of(manifest)
        text = self.text or tuple(role for role in SHOWN if role in held) or tuple(sorted(held))
        for name, roles in (("text", text), ("target", self.target), ("then", self.then)):
            if roles and not held & {*roles}:
                there = ", ".join(role for role in ROLES if role in held) or "none"
                raise ValueError(f"{name}={roles}: no sample of {manifest.location} has such a text; it has {there}")
        mask = self.text_mask
        if mask is not None:
            mask = with_ids(mask, tokenizer_facts(manifest.location, manifest.info))
        return replace(self, text=text, augment=self.augment or CenterCrop(), text_mask=mask)

    def sampler(self, split: Split) -> ImageTextSampler:
        """The sampler of a split. ShardError if its tokenizer is missing or another one."""
        own, manifest = self.resolved(split), split.manifest
        facts = tokenizer_facts(manifest.location, manifest.info)
        read_tokenizer(manifest.store, facts)
        rows = RowMaker(manifest=manifest, tokenizer=facts, roles=own.text, length=own.length, draws=split.shuffle)
        target = replace(rows, roles=own.target, length=own.target_length)
        second = (replace(rows, roles=(*own.text, *own.target)), replace(target, roles=own.then))
        return ImageTextSampler(
            pictures=ImageData(size=own.size, patch=own.patch, augment=own.augment, colour=own.colour, views=own.views),
            components=pictures_of(manifest, own.picture),
            manifest=manifest,
            seed=split.seed,
            rows=rows,
            target=target if own.target else None,
            second=second if own.then else None,
            grid=own.grids["text"],
            image_mask=own.image_mask,
            text_mask=own.text_mask,
            places=PlaceReader(manifest=manifest, segments=own.segments),
            pairs=own.pairs,
        )

    def source(self, split: Split) -> ImageTextSource:
        """The source of a split, for a loader or a mixture."""
        own, sampler = self.resolved(split), self.sampler(split)
        both = Source(
            sampler=sampler,
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), **split.identity},
            form={
                "size": own.size,
                "token grid": own.grids["image"],
                "length": own.length,
                "target_length": own.target_length if own.target else 0,
                "views": own.views,
                "image mask": own.image_mask,
                "text mask": own.text_mask,
                "pairs": own.pairs,
                "segments": own.segments,
                "tokenizer": sampler.rows.tokenizer.sha256,
            },
        )
        return with_fields(both, split.manifest, self.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[ImageTextBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)


def roles_of(manifest: Manifest) -> set[str]:
    """The roles that texts of a split have."""
    numbers = np.unique(manifest.component(TEXTS).lists["roles"].values).tolist()
    return {ROLES[number] for number in numbers if 0 <= number < len(ROLES)}


def pictures_of(manifest: Manifest, picture: int) -> tuple[str, ...]:
    """The components that hold picture number `picture` of samples. ValueError if no sample has one."""
    found = {
        name: int(parts[1] or 0)
        for name, one in manifest.components.items()
        if one.kind == IMAGE.name and (parts := re.fullmatch(r"(?:(\d+)\.)?[a-z]+", name))
    }
    if picture not in found.values():
        raise ValueError(
            f"picture={picture}: no sample has it; the highest number is {max(found.values(), default='none')}"
        )
    return tuple(name for name, number in found.items() if number == picture)
