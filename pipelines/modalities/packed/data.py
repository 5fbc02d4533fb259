"""Packed rows: their data config and their loader."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Unpack

from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.native import Native
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.data import DataConfig, check_cues, check_settings
from maskstream.pipelines.modalities.fields import FieldReader, Fields
from maskstream.pipelines.modalities.image.data import image_components
from maskstream.pipelines.modalities.image.decode import PIXELS_VERSION
from maskstream.pipelines.modalities.split import Options, Split, open_split
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.row_order import Room, RowSamples
from maskstream.pipelines.stream.sampler import BatchSource, Unchanged
from maskstream.shards.format.manifest import SplitLocation

from .batch import PackedBatch
from .native import NativeSamples
from .pictures import NativePictures
from .sampler import PackedSampler, RowDraft, RowRequest


class PackedSettings(Options, total=False):
    """The fields of `PackedData`, with its defaults, and the options of all loaders."""

    native: Native
    mask: Mask | None
    row_tokens: int
    row_targets: int | None
    scaling: float
    colour: ColourJitter | None
    component: str | None
    fields: Fields


def packed_loader(location: str | Path, *, rows: int = 4, **settings: Unpack[PackedSettings]) -> Loader[PackedBatch]:
    """The loader of packed rows of the images in the folder `location`: pictures of any size, of which as many share a
    row as fill it with `row_tokens` visible tokens.

    rows: the rows of a batch, per rank. settings: the fields of `PackedData` (native, mask, row_tokens, row_targets,
    scaling, ...) and the options of all loaders (`Options`: seed, shuffle, workers, ...) but batch_size.

    Errors: TypeError for an unknown setting, ValueError for an illegal value and for samples that are larger than a
    row, ShardError if the folder holds no finished split of images.
    """
    if "batch_size" in settings:
        raise ValueError(f"batch_size={settings['batch_size']}: a packed loader counts rows; give rows=")
    return PackedData.opened(location, {**settings, "batch_size": rows})


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedData(DataConfig[PackedBatch]):
    """The data config of packed rows of images.

    native: how a picture becomes patches. mask: a mask without cues that a shape alone says the counts of, or None for
    visible tokens only. row_tokens: the visible tokens of a row. row_targets: the most targets of a row, None for any
    number. scaling: by how much the visible tokens of a sample may be changed so that its row is full, as a share of
    them; 0 leaves rows less full. Validation scales nothing. colour: colour jitter, by default none. component: the
    image to read, None if a sample has only one. fields: other values of a sample for `batch.fields` (see fields.py).
    """

    modality: ClassVar[str] = "image"

    native: Native = field(default_factory=Native)
    mask: Mask | None = None
    row_tokens: int = 8192
    row_targets: int | None = None
    scaling: float = 0.1
    colour: ColourJitter | None = None
    component: str | None = None
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_settings(self, 1)
        check_cues(self.mask, "packed rows")
        _ = self.room
        if self.mask is not None and self.mask.needs_progress:
            raise ValueError(f"{self.mask} changes over the run, and rows are planned without it; give a fixed ratio")

    @property
    def room(self) -> Room:
        """What a row has room for. Without a mask, all tokens are visible, and no count can be scaled."""
        return Room(tokens=self.row_tokens, targets=self.row_targets, scaling=self.scaling if self.mask else 0.0)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """None: each picture has a grid of its own."""
        return {}

    def native_samples(self, split: Split) -> NativeSamples:
        """The samples of a split. ValueError where one of `most` tokens is larger than a row."""
        manifest = split.manifest
        native = NativePictures(
            manifest=manifest,
            components=image_components(manifest, self.component),
            native=self.native.resolved(shuffle=split.shuffle),
            mask=self.mask,
            fields=FieldReader.of(manifest, self.fields),
            colour=self.colour,
            seed=split.seed,
            kept=split.kept,
        )
        native.check(self.room)
        native.fields.check(split.kept)
        return native

    def source(self, split: Split) -> BatchSource[RowRequest, RowDraft, PackedBatch, PackedBatch]:
        """The source of a split, for a loader. ValueError where a sample of `most` tokens is larger than a row."""
        native = self.native_samples(split)
        samples = RowSamples(split=split.samples, sizer=native, room=self.room)
        return BatchSource(
            sampler=PackedSampler(native=native, samples=samples),
            finish=Unchanged(),
            samples=samples,
            identity={"data": self.to_dict(identity=True), "pixels": PIXELS_VERSION, **split.identity},
        )

    def loader(self, location: SplitLocation, **options: Unpack[Options]) -> Loader[PackedBatch]:
        """The loader of a split; its batch_size is rows."""
        split, loading = open_split(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)
