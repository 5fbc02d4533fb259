"""The data config of images, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self, Unpack

import numpy as np

from ....shards.format.component import component_of
from ....shards.format.manifest import Manifest
from ....shards.members.image import IMAGE
from ...augment import Augmentation, CenterCrop, RandomResizedCrop
from ...augment.colour import ColourJitter
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from .batch import ImageBatch
from .sample import ImageDraft, ImageRequest, ImageSampler

ImageSource = Source[FieldsRequest[ImageRequest], FieldsDraft[ImageDraft], ImageBatch, ImageBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageData(DataConfig[ImageBatch]):
    """The data config of masked images.

    size: the side of the output, in pixels. patch: the side of a token, in pixels. mask: a mask of
    `maskstream.pipelines.masks` that needs no cues, or None. augment: by default MAE's random crop when shuffled (0.2
    to 1 of the area, flipped with probability 0.5), else the centre crop. colour: colour jitter, by default none.
    views: the number of views per sample; they share the decoded image and differ in crop, colours and mask. component:
    the image to read, such as "left.jpg"; None if a sample has only one, of any format. fields: other values of a
    sample for `batch.fields` (see fields.py).
    """

    modality: ClassVar[str] = "image"

    size: int = 224
    patch: int = 16
    mask: Mask | None = None
    augment: Augmentation | None = None
    colour: ColourJitter | None = None
    views: int = 1
    component: str | None = None
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_settings(self, self.views)
        _ = self.grids
        if self.mask is not None and self.mask.needs:
            needs = ", ".join(sorted(self.mask.needs))
            raise ValueError(f"{self.mask} needs {needs}, and images have no cues; use a mask without cues")

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grid of "image", with the axes (h, w)."""
        return {"image": image_grid(self.size, self.patch)}

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in."""
        augment = RandomResizedCrop(scale=(0.2, 1.0), flip=0.5) if split.shuffle else CenterCrop()
        return replace(self, augment=self.augment or augment)

    def sampler(self, split: Split) -> ImageSampler:
        """The sampler of a split."""
        own = self.resolved(split)
        return ImageSampler(
            manifest=split.manifest,
            components=image_components(split.manifest, own.component),
            size=own.size,
            grid=own.grids["image"],
            augment=own.augment or CenterCrop(),
            colour=own.colour,
            pattern=own.mask,
            seed=split.seed,
            views=own.views,
        )

    def source(self, split: Split) -> ImageSource:
        """The source of a split, for a loader or a mixture."""
        own = self.resolved(split)
        images = Source(
            sampler=self.sampler(split),
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), **split.identity},
            visible=visible_tokens((own.mask, own.grids["image"])),
            form={"size": own.size, "token grid": own.grids["image"], "views": own.views, "mask": own.mask},
        )
        return with_fields(images, split.manifest, self.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[ImageBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)


def image_grid(size: int, patch: int) -> TokenGrid:
    """The (h, w) grid of an image of size x size pixels in patches of patch x patch pixels.

    Raises ValueError if size is not a multiple of patch.
    """
    if min(size, patch) < 1 or size % patch:
        raise ValueError(
            f"an image of {size} px does not divide into patches of {patch} px; make size a multiple of patch"
        )
    return TokenGrid(axes=("h", "w"), shape=(size // patch, size // patch), patch=(patch, patch))


def image_components(manifest: Manifest, wanted: str | None = None) -> tuple[str, ...]:
    """The components that hold the images: `wanted`, or by default all image components if most samples have one.

    For example, some samples have a jpg and the others a png; a sample that has both is a bad one. Raises ValueError if
    there is no such component, or if most samples have several and `wanted` is None.
    """
    fitting = [one for one in manifest.components.values() if one.kind == IMAGE.name]
    held = np.sum([one.present for one in fitting], axis=0) if len(fitting) > 1 else np.ones(1)
    if wanted is not None or not fitting or 2 * np.count_nonzero(held > 1) > np.count_nonzero(held):
        fitting = [component_of(manifest.components, (IMAGE.name,), wanted)]
    return tuple(one.name for one in fitting)
