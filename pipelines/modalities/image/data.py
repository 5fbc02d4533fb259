"""Data config of images, which creates the rows of batches, and their loader."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Self

import numpy as np

from maskstream.pipelines.augment import Augmentation, CenterCrop, RandomResizedCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.augment.transform import FrameChanges, TransformChoice, find_transform
from maskstream.pipelines.masks import Cues, Mask, TokenGrid
from maskstream.pipelines.masks.core import read_only
from maskstream.pipelines.modalities.data import RowConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.phases import OverRun
from maskstream.pipelines.modalities.rows import BatchRows, Item, Items, Masked, Memory, Traits, is_of_package
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import UInt8s
from maskstream.shards.config import NOT_IDENTITY
from maskstream.shards.errors import DataError
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import PositiveInt
from maskstream.shards.media.limits import MAX_PIXELS
from maskstream.shards.members.image import IMAGE
from maskstream.shards.stores.base import Range

from .batch import ImageBatch
from .decode import PIXELS_VERSION, REDUCIBLE, decode_image, extend_to_grid, reduction, show

KERNELS = ("maskstream.pipelines.modalities.image.resize",)

CUES = frozenset({"frames"})
"""Mask inputs available for images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSettings:
    """Settings of masked images.

    Attributes:
        size: Side of the output in pixels.
        patch: Side of a token in pixels.
        mask: Mask of `maskstream.pipelines.masks` on (h, w) that needs no input but frames; by default none.
        augment: Crop and flip of each view; by default MAE's random crop when shuffled (0.2 to 1 of the area,
            flipped with probability 0.5), else the centre crop.
        colour: Colour jitter; by default none.
        transform: Own change of pixels (`maskstream.Transform`), applied after colour jitter.
        views: Number of views per sample. They share the decoded image and differ in crop, colours and mask.
        component: Name of the image to read, such as "left.jpg"; required only if a sample has several.
        fields: Other values of a sample that stand in `batch.fields` (see `maskstream.pipelines.modalities.fields`).
        cycle: Number of epochs after which crops and colours repeat, for every seed; masks never repeat. By
            default never.
        targets: Folder of the outputs of a frozen teacher (see `maskstream.pipelines.modalities.targets`).
        over_run: Settings that change over the run, each with a schedule, such as {"size":
            masks.Piecewise(points=((0, 128), (0.8, 128), (0.8, 224)))} (see `maskstream.pipelines.modalities.phases`).
    """

    size: PositiveInt = 224
    patch: PositiveInt = 16
    mask: Mask | None = None
    augment: Augmentation | None = None
    colour: ColourJitter | None = None
    transform: TransformChoice = None
    views: PositiveInt = 1
    component: str | None = None
    fields: Fields = ()
    cycle: PositiveInt | None = None
    targets: str | None = field(default=None, metadata=NOT_IDENTITY)
    over_run: OverRun = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options, ImageSettings):
    """The options of `image_loader`."""


@takes_fields(ImageOptions)
def image_loader(location: Splits, options: ImageOptions) -> Loader[ImageBatch]:
    """Open the loader of masked images: batch_size * views images per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/imagefolder/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `ImageData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of images.
    """
    return ImageData.open(location, options)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """An image to read, of width x height pixels, decoded at 1/n of its size, with one crop per view."""

    component: str
    width: int
    height: int
    n: int
    crops: list[Crop]
    ranges: tuple[Range]

    @classmethod
    def of(cls, item: Item, component: str, size: tuple[int, int], crops: Sequence[Crop], out: tuple[int, int]) -> Self:
        """Plan how to read an image of `size` (width, height) whose crops are resized to `out` (width, height)."""
        n = reduction(crops, *out) if component.endswith(REDUCIBLE) else 1
        return cls(
            component=component,
            width=size[0],
            height=size[1],
            n=n,
            crops=[extend_to_grid(crop, n, *size) for crop in crops],
            ranges=(item.manifest.member(item.index, component),),
        )

    def decoded(self, item: Item, stats: Stats) -> UInt8s:
        """Read and decode the image: uint8 (ceil(height / n), ceil(width / n), 3), RGB.

        Raises:
            SampleError: The image is unusable.
        """
        with item.manifest.reading(item.index, self.component):
            (data,) = item.read(self.ranges, stats)
            with stats.stage("decode"):
                return decode_image(data, self.width, self.height, self.n)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageData(ImageSettings, RowConfig[ImagePlan, ImageBatch]):
    """Data config of masked images."""

    modality: ClassVar[str] = "image"
    alike: ClassVar[tuple[str, ...]] = ("size", "patch")
    changing: ClassVar[tuple[str, ...]] = ("size",)

    def validate(self) -> None:
        object.__setattr__(self, "transform", find_transform(self.transform, frames=True))
        _ = self.phases
        check_cues(self.mask, "images", CUES)
        _ = self.grids

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grid of "image", with the axes (h, w)."""
        return {"image": compute_image_grid(self.size, self.patch)}

    @property
    def traits(self) -> Traits:
        """Users' classes may import torch. The version of the resize determines the pixels."""
        return Traits(needs_torch=not is_of_package(self), identity={"pixels": PIXELS_VERSION})

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Mask of the image."""
        return (Masked("mask", self.mask, self.grids["image"]),)

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split.

        Raises:
            ValueError: The split does not have the component.
        """
        list_image_components(split.manifest, self.component)
        augment = RandomResizedCrop(scale=(0.2, 1.0), flip=0.5) if split.shuffle else CenterCrop()
        return replace(self, augment=self.augment or augment)

    def plan(self, items: Items) -> list[ImagePlan]:
        """Plan the samples' images.

        Raises:
            SampleError: A sample has no image, or several.
        """
        images = (one.name for one in items.manifest.components.values() if one.kind == IMAGE.name)
        components = tuple(images) if self.component is None else (self.component,)
        return [self.plan_of(item, components) for item in items]

    def plan_of(self, item: Item, components: tuple[str, ...]) -> ImagePlan:
        """Draw the crops of the image in one of these components, and find its byte range."""
        name, width, height = find_held_image(item.manifest, item.index, components)
        crops = (self.augment or CenterCrop()).views(width, height, self.size, item.rngs("crop"))
        return ImagePlan.of(item, name, (width, height), crops, (self.size, self.size))

    def layout(self, memory: Memory[ImagePlan]) -> ImageBatch:
        """Create the empty batch."""
        image = memory(np.uint8, self.size, self.size, 3)
        return ImageBatch(image=image, mask=None, key=memory.key, label=memory.label)

    def fill(self, rows: BatchRows[ImagePlan], batch: ImageBatch, stats: Stats) -> None:
        """Decode each image once and write its views.

        Raises:
            SampleError: An image is unusable.
        """
        changes = FrameChanges(self.colour, find_transform(self.transform, frames=True))
        for item, plan, own in rows:
            pixels = plan.decoded(item, stats)
            with stats.stage("convert"):
                for view, (crop, out) in enumerate(zip(plan.crops, own.of(batch.image), strict=True)):
                    show(pixels, crop, plan.n, out)
                    changes.apply(out[None], partial(item.rng, view=view))

    def cues(
        self, rows: BatchRows[ImagePlan], batch: ImageBatch, n: int, view: int, part: str, needs: frozenset[str]
    ) -> Cues:
        """Return the image of a view as one frame."""
        return Cues(frames=read_only(rows.whole(batch.image)[rows.starts[n] + view][None]))


def compute_image_grid(size: int, patch: int) -> TokenGrid:
    """Return the (h, w) grid of an image of size x size pixels in patches of patch x patch pixels.

    Raises:
        ValueError: `size` is not a multiple of `patch`.
    """
    if min(size, patch) < 1 or size % patch:
        raise ValueError(
            f"an image of {size} px does not divide into patches of {patch} px; make size a multiple of patch"
        )
    return TokenGrid(axes=("h", "w"), shape=(size // patch, size // patch), patch=(patch, patch))


def find_held_image(manifest: Manifest, index: int, components: Sequence[str]) -> tuple[str, int, int]:
    """Return which of these components sample `index` has, and the width and height of its image.

    Raises:
        SampleError: It has none or several.
    """
    held = [one for one in map(manifest.component, components) if one.offset[index]]
    if len(held) != 1:
        said = "has several of them; choose one with component=" if held else "has no such component"
        raise manifest.sample_error(index, " or ".join(components), f"the sample {said}")
    (component,) = held
    with manifest.reading(index, component.name):
        width, height = int(component.facts["width"][index]), int(component.facts["height"][index])
        if min(width, height) < 1 or width * height > MAX_PIXELS:
            raise DataError(f"has {width}x{height} pixels in the manifest; expected 1 to {MAX_PIXELS}")
    return component.name, width, height


def list_image_components(manifest: Manifest, wanted: str | None = None) -> tuple[str, ...]:
    """Return the components that contain the images: `wanted`, or by default all image components if most samples have
    one.

    For example, some samples have a jpg and the others a png; a sample with both is unusable.

    Raises:
        ValueError: There is no such component, or most samples have several and `wanted` is None.
    """
    fitting = [one for one in manifest.components.values() if one.kind == IMAGE.name]
    held = np.sum([one.present for one in fitting], axis=0) if len(fitting) > 1 else np.ones(1)
    if wanted is not None or not fitting or 2 * np.count_nonzero(held > 1) > np.count_nonzero(held):
        fitting = [component_of(manifest.components, (IMAGE.name,), wanted)]
    return tuple(one.name for one in fitting)
