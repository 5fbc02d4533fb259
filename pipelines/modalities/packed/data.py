"""Data config and loader of packed rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.native import Native
from maskstream.pipelines.augment.transform import FrameChanges, TransformChoice, find_transform
from maskstream.pipelines.flow import SampleFlow
from maskstream.pipelines.flow.choice import AUTO
from maskstream.pipelines.masks import ByEnergy, Mask, TokenGrid
from maskstream.pipelines.modalities.audio.data import statistics_of
from maskstream.pipelines.modalities.audio.reader import AudioClip, find_sound
from maskstream.pipelines.modalities.audio.spectrogram import Features, Spectrogram
from maskstream.pipelines.modalities.data import DataConfig, check_cues
from maskstream.pipelines.modalities.fields import FieldReader, Fields
from maskstream.pipelines.modalities.image.data import list_image_components
from maskstream.pipelines.modalities.image_text.data import find_pictures
from maskstream.pipelines.modalities.split import SharedOptions, Split, Splits
from maskstream.pipelines.modalities.video.cameras import rates
from maskstream.pipelines.modalities.video.clip import VideoClip, aligned, check_one_clock, drop_short, short_videos
from maskstream.pipelines.modalities.video.energy import check_energy
from maskstream.pipelines.modalities.video.flow import make_flow_source
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.row_mix import RowMix
from maskstream.pipelines.stream.row_order import Room, RowSamples
from maskstream.pipelines.stream.sampler import BatchSource, Unchanged
from maskstream.pipelines.stream.shares import Schedule
from maskstream.shards.config import NOT_IDENTITY
from maskstream.shards.format.component import component_of
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import PositiveInt, ProperProportion
from maskstream.shards.media.fbank import Fbank

from .batch import PackedBatch
from .clips import NativeClips
from .mixture import join_rows
from .native import NativeSamples
from .pictures import NativePictures
from .sampler import PackedRequest, PackedSampler, RowDraft
from .sounds import NativeSounds


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedSettings:
    """Settings of packed rows of images, videos or audio; those for kinds that the split lacks are unused.

    Attributes:
        native: How a sample becomes patches.
        mask: Mask without inputs, or for clips `masks.ByEnergy`, whose ratio is a number, a schedule, or drawn
            for each sample; by default all tokens are visible.
        row_tokens: Visible tokens per row.
        row_targets: Largest number of targets per row; by default any.
        scaling: Largest relative change of the visible tokens of a sample that fills its row; 0 leaves rows
            less full. Validation scales nothing.
        balance: Maximum number of batches in a window, within which the rows that cost most to decode share batches, so
            that no rank waits for another; 1, and validation, preserve the order of the rows. Batches are the loader's
            batches: if the training loop accumulates several, different rows share a batch.
        clip: Clips of videos; by default of 1 to 4 random seconds at 8 frames per second.
        sound: Segments of audio, which are as long as the recording, but no longer than `seconds`.
        features: Spectrogram, as in `AudioSettings`.
        seconds: Schedule of the longest clips and audio segments over the run, such as `masks.Piecewise`; defaults to
            the lengths of `clip` and `sound`.
        statistics: Mean and standard deviation of the features, as in `AudioSettings`.
        colour: Colour jitter of images and clips; by default none.
        transform: Own change of images, clips or audio (`maskstream.Transform`).
        component: Name of the member to read; by default the only one, and the first image of images with
            texts.
        fields: Other values of a sample to return in `batch.fields`, such as ("caption",) (see
            `pipelines/modalities/fields.py`).
    """

    native: Native = field(default_factory=Native)
    mask: Mask | None = None
    row_tokens: PositiveInt = 8192
    row_targets: PositiveInt | None = None
    scaling: ProperProportion = 0.1
    balance: PositiveInt = field(default=8, metadata=NOT_IDENTITY)  # part of the order's own identity
    clip: VideoClip = field(default_factory=lambda: VideoClip(seconds=(1.0, 4.0), fps=8.0))
    sound: AudioClip = field(default_factory=AudioClip)
    features: Features = field(default_factory=Fbank)
    seconds: Schedule | None = None
    statistics: tuple[float, float] | None = None
    colour: ColourJitter | None = None
    transform: TransformChoice = None
    component: str | None = None
    fields: Fields = ()


@dataclass(frozen=True, kw_only=True)
class PackedOptions(SharedOptions, PackedSettings):
    """The options of `packed_loader`.

    Attributes:
        rows: Rows per batch and rank.
    """

    ELSEWHERE: ClassVar[Mapping[str, str]] = {
        **SharedOptions.ELSEWHERE,
        "batch_size": ": it is rows= here",
        "token_budget": ": packed rows are already batches; row_tokens= is their budget",
    }

    rows: PositiveInt = 4


@takes_fields(PackedOptions)
def packed_loader(location: Splits, options: PackedOptions) -> Loader[PackedBatch]:
    """Open the loader of packed rows: samples of any size, as many per row as fill its `row_tokens`.

    Args:
        location: Location of a split, such as `data/shards/imagefolder/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `PackedData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of images, videos or audio.
    """
    return PackedData.open(location, options, batch_size=options.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedData(PackedSettings, DataConfig[PackedBatch]):
    """Data config of packed rows of images, videos or audio."""

    modality: ClassVar[str] = "image"
    modalities: ClassVar[tuple[str, ...]] = ("image", "image-text", "video", "audio")

    def validate(self) -> None:
        object.__setattr__(self, "transform", find_transform(self.transform, frames=True, waveform=True))
        # The number of tokens that a mask hides must be known before data is read.
        without = self.mask.first if isinstance(self.mask, ByEnergy) else self.mask
        check_cues(without, "packed rows, except with masks.ByEnergy,")
        _ = self.room

    @property
    def room(self) -> Room:
        """Capacity of a row. Without a mask, all tokens are visible, and no count can be scaled."""
        return Room(tokens=self.row_tokens, targets=self.row_targets, scaling=self.scaling if self.mask else 0.0)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Empty, because each sample has its own grid."""
        return {}

    @property
    def _changes(self) -> FrameChanges:
        return FrameChanges(self.colour, find_transform(self.transform, frames=True, waveform=True))

    def native_samples(self, split: Split) -> NativeSamples:
        """Create the samples of a split.

        Raises:
            ValueError: A sample of `most` tokens does not fit into a row.
        """
        make = {"image": self._pictures, "image-text": self._pictures, "video": self._clips, "audio": self._sounds}
        native = make[split.manifest.info["modality"]](split)
        native.check(self.room)
        native.fields.check(native.kept)
        return native

    def source(self, split: Split) -> BatchSource[PackedRequest, RowDraft, PackedBatch, PackedBatch]:
        """Create the source of a split, for a loader.

        Raises:
            ValueError: A sample of `most` tokens does not fit into a row.
        """
        native = self.native_samples(split)
        split = replace(split, kept=native.kept)
        samples: RowSamples | RowMix
        if native.points_of_change is not None and split.shuffle:
            samples = RowMix(
                parts=(split.samples,),
                weights=(1,),
                sizers=(native,),
                room=self.room,
                balance=self.balance,
                seed=split.seed,
            )
        else:
            # a validation uses the settings at the end of the run
            progress = None if native.points_of_change is None else 1.0
            samples = RowSamples(
                split=split.samples, sizer=native.at(1.0), room=self.room, balance=self.balance, progress=progress
            )
        return BatchSource(
            sampler=PackedSampler(natives=(native,), samples=samples),
            finish=Unchanged(),
            samples=samples,
            identity={"data": self.to_dict(identity=True), **native.identity, **split.identity},
            form={
                **{name: getattr(self, name) for name in ("row_tokens", "row_targets", "scaling", "balance", "fields")},
                **{f"native.{name}": getattr(self.native, name) for name in ("patch", "tubelet")},
                "mask": "no" if self.mask is None else "yes",
            },
            join=join_rows,
        )

    def _pictures(self, split: Split) -> NativePictures:
        check_cues(self.mask, "packed rows of images")
        if split.manifest.info["modality"] == "image-text" and self.component is None:
            components = find_pictures(split.manifest, 0)
        else:
            components = list_image_components(split.manifest, self.component)
        return NativePictures(
            manifest=split.manifest,
            components=components,
            over_run=self.native.resolved(shuffle=split.shuffle),
            native=self.native.resolved(shuffle=split.shuffle).at(0.0),
            mask=self.mask,
            fields=FieldReader.of(split, self.fields),
            seed=split.seed,
            kept=split.kept,
            changes=self._changes,
        )

    def _clips(self, split: Split) -> NativeClips:
        manifest = split.manifest
        name = component_of(manifest.components, ("video",), self.component).name
        clip = aligned(self.clip if split.shuffle else replace(self.clip, start="center"), manifest.info["profile"])
        check_energy(self.mask, clip, manifest, name)
        flow = make_flow_source(AUTO, self.mask, clip, manifest.info["profile"])
        assert flow is None or isinstance(flow, SampleFlow)
        if flow is not None:
            check_one_clock(clip, "masks by energy")
        split = drop_short(split, name, clip.shortest, lambda found: short_videos(found, name, clip.shortest))
        return NativeClips(
            manifest=manifest,
            components=(name,),
            over_run=self.native.resolved(shuffle=split.shuffle),
            native=self.native.resolved(shuffle=split.shuffle).at(0.0),
            mask=self.mask,
            fields=FieldReader.of(split, self.fields, rates(manifest, name)[1]),
            seed=split.seed,
            kept=split.kept,
            seconds=self.seconds,
            clip=clip,
            profile=manifest.info["profile"],
            longest=not split.shuffle,
            changes=self._changes,
            flow=flow,
        )

    def _sounds(self, split: Split) -> NativeSounds:
        check_cues(self.mask, "packed rows of sounds")
        mean, deviation = self.statistics or statistics_of(split, self.features)
        return NativeSounds(
            manifest=split.manifest,
            components=(find_sound(split.manifest, self.component),),
            over_run=self.native.resolved(shuffle=split.shuffle),
            native=self.native.resolved(shuffle=split.shuffle).at(0.0),
            mask=self.mask,
            fields=FieldReader.of(split, self.fields),
            seed=split.seed,
            kept=split.kept,
            seconds=self.seconds,
            clip=self.sound if split.shuffle else replace(self.sound, start="center"),
            spectrogram=Spectrogram(features=self.features, frames=1, mean=mean, deviation=deviation),
            transform=self._changes.transform,
        )
