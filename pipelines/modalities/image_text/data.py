"""Data config and loader of images with texts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

import numpy as np

from maskstream.pipelines.augment import Augmentation, CenterCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.transform import TransformChoice, find_transform
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.data import SplitConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.image.data import ImageData, compute_image_grid
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.modalities.text.data import with_ids
from maskstream.pipelines.stream.loader import Loader
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer, read_tokenizer_facts
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import Bounds, Choices, NaturalInt, PositiveInt
from maskstream.shards.members.image import IMAGE
from maskstream.shards.members.text import ROLES

from .batch import ImageTextBatch
from .places import BOXES, SEGMENTS, PlaceReader
from .rows import ImageTextPlan, ImageTextRowMaker
from .texts import TEXTS, RowReader

SHOWN = ("caption", "phrase", "question")
"""Default roles of a row."""
IMAGE_CUES = frozenset({"frames", "box"})
TEXT_CUES = frozenset({"words", "classes", "tokens"})
"""Mask inputs available for texts: `classes` are the numbers of the tokens' roles."""


Roles = tuple[Annotated[str, Choices(ROLES)], ...]
RowLength = Annotated[int, Bounds(min=4)]
"""Two tokens of a row are special."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextSettings:
    """Settings of masked images with masked texts.

    Attributes:
        size: Side of the output in pixels.
        patch: Side of a token in pixels.
        text: Roles of the texts in a row, in order, such as ("question", "answer"), out of `ROLES`
            (`maskstream.shards.members.text`); by default caption, phrase and question, as far as the split has them. A
            sample may lack some. If a role has several texts, a random one is used when shuffled, else the first.
        length: Tokens per row of text, including special tokens and padding.
        target: Roles of the texts that a model is to write (see
            `pipelines/modalities.image_text.strategies.py`).
        target_length: Tokens per row of target.
        then: Roles of the texts of a second stage: half of the views read `text` and `target` and are to write
            these; the others read `text` and are to write `target`.
        image_mask: Mask of `maskstream.pipelines.masks` on (h, w); its input `box` is the box of the row's phrase. By
            default none.
        text_mask: Mask of `maskstream.pipelines.masks` on the axis token, with the inputs `words`, `tokens` and
            `classes` (roles of the tokens); by default none. The ids of a `masks.Replace` default to the tokenizer's.
        pairs: Whether each row also has a text to judge (image-text matching): the image's own text or, with
            probability 1/2, the text of a random other sample of the split.
        segments: Whether batches have the pixels that phrases refer to.
        augment: Crop and flip of each view; by default the centre crop, because a text may describe the whole
            image, and left and right in it.
        colour: Colour jitter; by default none.
        transform: Own change of pixels (`maskstream.Transform`), applied after colour jitter.
        views: Number of views per sample. They share the decoded image and differ in crop, colours and masks.
        picture: Number of the image to return, from 0, if a sample has several.
        fields: Other values of a sample that stand in `batch.fields` (see `maskstream.pipelines.modalities.fields`).
    """

    size: PositiveInt = 224
    patch: PositiveInt = 16
    text: Roles = ()
    length: RowLength = 64
    target: Roles = ()
    target_length: RowLength = 64
    then: Roles = ()
    image_mask: Mask | None = None
    text_mask: Mask | None = None
    pairs: bool = False
    segments: bool = False
    augment: Augmentation | None = None
    colour: ColourJitter | None = None
    transform: TransformChoice = None
    views: PositiveInt = 1
    picture: NaturalInt = 0
    fields: Fields = ()


@dataclass(frozen=True, kw_only=True)
class ImageTextOptions(Options, ImageTextSettings):
    """The options of `image_text_loader`."""


@takes_fields(ImageTextOptions)
def image_text_loader(location: Splits, options: ImageTextOptions) -> Loader[ImageTextBatch]:
    """Open the loader of masked images with masked texts: batch_size * views rows per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/tuxpaint-stamps/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `ImageTextData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of images with texts.
    """
    return ImageTextData.open(location, options)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextData(ImageTextSettings, SplitConfig[ImageTextPlan, ImageTextBatch]):
    """Data config of masked images with masked texts.

    Both masks are drawn for the key of the sample, each with its own random generators.
    """

    modality: ClassVar[str] = "image-text"
    alike: ClassVar[tuple[str, ...]] = ("size", "patch", "length", "pairs", "segments")

    def validate(self) -> None:
        object.__setattr__(self, "transform", find_transform(self.transform, frames=True))
        _ = self.grids
        if self.then and not (self.text and self.target):
            raise ValueError(f"then={self.then} is a second stage, which needs text and target; pass both")
        check_cues(self.image_mask, "pictures with texts", IMAGE_CUES)
        check_cues(self.text_mask, "texts", TEXT_CUES)
        if self.text_mask is not None and "words" not in self.text_mask.needs:
            raise ValueError(
                f"{self.text_mask} does not read words, so it would hide padding; use Tokens or WholeWords"
            )

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grids of "image", with the axes (h, w), and of "text", with the axis (token,)."""
        return {
            "image": compute_image_grid(self.size, self.patch),
            "text": TokenGrid(axes=("token",), shape=(self.length,), patch=(1,)),
        }

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split: the roles, and the ids of `masks.Replace`.

        Raises:
            ValueError: Boxes or segments are needed and the split has none, or no sample has a text of the roles.
        """
        manifest = split.manifest
        if self.image_mask is not None and "box" in self.image_mask.needs and BOXES not in manifest.components:
            raise ValueError(f"{self.image_mask} needs phrase boxes, but {manifest.location} has no {BOXES}")
        if self.segments and SEGMENTS not in manifest.components:
            raise ValueError(f"segments=True needs phrase segments, but {manifest.location} has no {SEGMENTS}")
        held = find_roles(manifest)
        text = self.text or tuple(role for role in SHOWN if role in held) or tuple(sorted(held))
        for name, roles in (("text", text), ("target", self.target), ("then", self.then)):
            if roles and not held & {*roles}:
                there = ", ".join(role for role in ROLES if role in held) or "none"
                raise ValueError(f"{name}={roles}: no sample in {manifest.location} has such a text; it has {there}")
        mask = self.text_mask
        if mask is not None:
            mask = with_ids(mask, read_tokenizer_facts(manifest.location, manifest.info))
        return replace(self, text=text, augment=self.augment or CenterCrop(), text_mask=mask)

    def rows(self, split: Split) -> ImageTextRowMaker:
        """Create the row maker of a split.

        Raises:
            ShardError: The tokenizer is missing or has changed.
        """
        manifest = split.manifest
        facts = read_tokenizer_facts(manifest.location, manifest.info)
        read_tokenizer(manifest.store, manifest.info)
        texts = RowReader(manifest=manifest, tokenizer=facts, roles=self.text, length=self.length, draws=split.shuffle)
        target = replace(texts, roles=self.target, length=self.target_length)
        second = (replace(texts, roles=(*self.text, *self.target)), replace(target, roles=self.then))
        return ImageTextRowMaker(
            pictures=ImageData(
                size=self.size, patch=self.patch, augment=self.augment, colour=self.colour, transform=self.transform
            ),
            components=find_pictures(manifest, self.picture),
            texts=texts,
            target=target if self.target else None,
            second=second if self.then else None,
            places=PlaceReader(manifest=manifest, segments=self.segments),
            grids=self.grids,
            image_mask=self.image_mask,
            text_mask=self.text_mask,
            pairs=self.pairs,
        )


def find_roles(manifest: Manifest) -> set[str]:
    """Return the roles of the texts in a split."""
    numbers = np.unique(manifest.component(TEXTS).lists["roles"].values).tolist()
    return {ROLES[number] for number in numbers if 0 <= number < len(ROLES)}


def find_pictures(manifest: Manifest, picture: int) -> tuple[str, ...]:
    """Return the components that contain image number `picture` of samples.

    Raises:
        ValueError: No sample has one.
    """
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
