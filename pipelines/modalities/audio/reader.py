"""Draw, read and decode segments of the audio of a split."""

from dataclasses import dataclass
from math import gcd
from typing import Literal

import numpy as np

from maskstream.pipelines.decode.sound import (
    decode_indexed,
    decode_segment,
    find_segment_range,
    read_indexed,
    read_segment,
)
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float32s
from maskstream.shards.config import Config
from maskstream.shards.errors import DataError
from maskstream.shards.format.component import Numbers, component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.limits import PositiveFloat, PositiveInt
from maskstream.shards.media.flac import FlacHeader
from maskstream.shards.media.limits import MAX_SAMPLE_RATE
from maskstream.shards.media.video_index import name_packets_file
from maskstream.shards.stores.base import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioClip(Config):
    """A segment of audio: length, sample rate, position and channels.

    Attributes:
        seconds: Length in seconds.
        sample_rate: Sample rate in Hz, to which the audio is resampled.
        start: "random" draws the start, "center" takes the middle, "begin" the beginning.
        channels: "mono" averages all channels; a number keeps the first ones, and a sample with fewer is unusable.
        short: Handling of audio shorter than the clip: "zeros" pads it at the end, as Audio-MAE does; "repeat" repeats
            it.
    """

    seconds: PositiveFloat = 10.24
    sample_rate: PositiveInt = 16000
    start: Literal["random", "center", "begin"] = "random"
    channels: Literal["mono"] | PositiveInt = "mono"
    short: Literal["zeros", "repeat"] = "zeros"

    @property
    def n_samples(self) -> int:
        """Number of samples per channel, at the clip's rate."""
        return round(self.seconds * self.sample_rate)

    @property
    def n_channels(self) -> int:
        """Number of channels of the clip."""
        return 1 if self.channels == "mono" else self.channels

    def segment(self, n_samples: int, sample_rate: int, rng: np.random.Generator) -> tuple[int, int]:
        """Draw the segment [first, stop) of audio with `n_samples` samples, in samples at its stored `sample_rate`.

        `first` coincides with a sample at the clip's rate, so the resampled segment is a segment of the resampled
        audio.
        """
        step, wanted, last = self._grid(n_samples, sample_rate)
        start = int(rng.integers(last + 1)) if self.start == "random" else (last // 2 if self.start == "center" else 0)
        return start * step, min(start * step + wanted, n_samples)

    def segment_at(self, n_samples: int, sample_rate: int, begin_s: float) -> tuple[int, int]:
        """Return the segment [first, stop) inside the audio whose start is closest to `begin_s` seconds."""
        step, wanted, last = self._grid(n_samples, sample_rate)
        start = min(max(round(begin_s * sample_rate / step), 0), last)
        return start * step, min(start * step + wanted, n_samples)

    def _grid(self, n_samples: int, sample_rate: int) -> tuple[int, int, int]:
        """Return the step between possible starts and the length of a segment, in samples, and the last start, in
        steps.
        """
        step = sample_rate // gcd(sample_rate, self.sample_rate)
        wanted = -(-self.n_samples * sample_rate // self.sample_rate)
        return step, wanted, max(n_samples - wanted, 0) // step


_MAX_GAIN = 1e18
"""Largest gain; the square of a sample scaled by it still fits into float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundPlan:
    """Reads for the segment [first, stop) of the audio of sample `index`, in samples at its stored rate."""

    index: int
    first: int
    stop: int
    member: Range
    ranges: tuple[Range, ...]
    """FLAC frames that contain the segment; in foreign tars, the audio's table and its whole member."""
    header: FlacHeader | None = None
    """FLAC header from the manifest; None in foreign tars."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundReader:
    """Reads audio clips of one split. It contains only settings, so it can be sent to worker processes."""

    manifest: Manifest
    component: str
    clip: AudioClip
    seed: int

    @property
    def facts(self) -> dict[str, Numbers]:
        """Columns of the manifest for the audio, by name."""
        return self.manifest.components[self.component].facts

    def segment(self, index: int, epoch: int) -> tuple[int, int]:
        """Draw the segment [first, stop) of a sample in an epoch, in samples at its stored rate.

        Raises:
            SampleError: The sample has no audio.
        """
        n_samples, sample_rate = self.length(index)
        rng = sample_rng(self.seed, epoch, self.manifest.key(index), 0, "clip")
        return self.clip.segment(n_samples, sample_rate, rng)

    def length(self, index: int) -> tuple[int, int]:
        """Return the number of samples and the rate in hertz.

        Raises:
            SampleError: The values in the manifest are unusable.
        """
        self.manifest.member(index, self.component)  # raises SampleError without such a member
        with self.manifest.reading(index, self.component):
            n_samples, rate = (int(self.facts[name][index]) for name in ("n_samples", "sample_rate"))
            if n_samples < 1 or not 1 <= rate <= MAX_SAMPLE_RATE:
                raise DataError(
                    f"has {n_samples} samples at {rate} Hz in the manifest; expected at least 1 sample, at 1 "
                    f"to {MAX_SAMPLE_RATE} Hz"
                )
        return n_samples, rate

    def planned(self, index: int, first: int, stop: int) -> SoundPlan:
        """Plan the reads of a segment [first, stop).

        Raises:
            SampleError: The sample has no audio.
        """
        member = self.manifest.member(index, self.component)
        with self.manifest.reading(index, self.component):
            if "table_offset" in self.facts:
                tables = name_packets_file(self.manifest.shard_name(index))
                offset, size = (int(self.facts[name][index]) for name in ("table_offset", "table_size"))
                return SoundPlan(
                    index=index, first=first, stop=stop, member=member, ranges=(Range(tables, offset, size), member)
                )
            header = self.header(index)
            span = find_segment_range(member, header, first, stop, rate=self.clip.sample_rate)
            return SoundPlan(index=index, first=first, stop=stop, member=member, ranges=(span,), header=header)

    def drawn(self, index: int, epoch: int) -> SoundPlan:
        """Plan the reads of the segment drawn in an epoch.

        Raises:
            SampleError: The sample has no audio.
        """
        return self.planned(index, *self.segment(index, epoch))

    def sound(self, plan: SoundPlan, stats: Stats) -> Float32s:
        """Read and decode a segment: float32 (n, C) at the clip's rate, with n at most the clip's length.

        Raises:
            SampleError: It cannot be read or decoded.
        """
        with self.manifest.reading(plan.index, self.component):
            sound = (self._indexed if plan.header is None else self._encoded)(plan, stats)
            if not np.isfinite(sound).all():
                raise DataError("decodes to a sample that is not finite")
        sound = sound[: self.clip.n_samples]
        return np.resize(sound, (self.clip.n_samples, sound.shape[1])) if self.clip.short == "repeat" else sound

    def header(self, index: int) -> FlacHeader:
        """Return the header of a FLAC file written by maskstream, from the manifest."""
        component = self.manifest.components[self.component]
        described = component.described(index)
        return FlacHeader.of(described.facts, described.lists, int(component.size[index]))

    def _encoded(self, plan: SoundPlan, stats: Stats) -> Float32s:
        """Read and decode a segment of a FLAC file written by maskstream."""
        rate, header = self.clip.sample_rate, plan.header or self.header(plan.index)
        with stats.stage("read"):
            segment = read_segment(self.manifest.store, plan.member, header, plan.first, plan.stop, rate=rate)
        stats.read_bytes += segment.read_bytes
        with stats.stage("decode"):
            gain = float(self.facts["gain"][plan.index])
            if not 0 < gain <= _MAX_GAIN:
                raise DataError(
                    f"has the gain {gain} in the manifest; expected a number above 0 and at most {_MAX_GAIN:g}"
                )
            return decode_segment(segment, rate=rate, gain=gain, channels=self.clip.channels)

    def _indexed(self, plan: SoundPlan, stats: Stats) -> Float32s:
        """Read and decode a segment of audio in a foreign tar."""
        rate, n_samples = self.clip.sample_rate, int(self.facts["n_samples"][plan.index])
        table = plan.ranges[0].name, plan.ranges[0].offset
        with stats.stage("read"):
            segment = read_indexed(
                self.manifest.store, table, plan.member, plan.first, plan.stop, n_samples=n_samples, rate=rate
            )
        stats.read_bytes += segment.read_bytes
        with stats.stage("decode"):
            return decode_indexed(segment, rate=rate, channels=self.clip.channels)


def find_sound(manifest: Manifest, component: str | None = None) -> str:
    """Return the component that contains the audio.

    Raises:
        ValueError: There are several and `component` is None.
    """
    return component_of(manifest.components, ("sound",), component).name
