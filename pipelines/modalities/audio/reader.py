"""The sounds of a split: which stretch an epoch shows of one, and its samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.errors import SampleError, ShardError, StoreError
from ....shards.format.manifest import Manifest, Numbers, component_of
from ....shards.media.flac import FlacHeader
from ....shards.media.packet_table import packets_name
from ....shards.stores.base import Range
from ...decode.indexed_sound import decode_indexed, read_indexed
from ...decode.sound import SoundError, decode_stretch, read_stretch, stretch_range
from ...stream.rng import sample_rng
from ...stream.stats import Stats
from .clip import AudioClip


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundPlan:
    """What is read for the samples [first, stop) of sound `index`, counted at the rate that it is stored at.

    ranges: the frames that hold them; of a sound that others wrote its table and its member. header: of a FLAC that
    maskstream wrote.
    """

    index: int
    first: int
    stop: int
    member: Range
    ranges: tuple[Range, ...]
    header: FlacHeader | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundReader:
    """Reads the clips of one dataset; holds settings only."""

    manifest: Manifest
    component: str
    clip: AudioClip
    seed: int

    @property
    def facts(self) -> dict[str, Numbers]:
        """Those of the sounds, by name."""
        return self.manifest.components[self.component].facts

    def stretch(self, index: int, epoch: int) -> tuple[int, int]:
        """The samples [first, stop) of sound `index` that the epoch shows, counted at the rate that it is stored at."""
        facts = self.facts
        if not facts["sample_rate"][index]:
            self.manifest.member(index, self.component)  # the sample lacks it, which this says
        rng = sample_rng(self.seed, epoch, self.manifest.key(index), 0, "clip")
        return self.clip.stretch(int(facts["n_samples"][index]), int(facts["sample_rate"][index]), rng)

    def planned(self, index: int, first: int, stop: int) -> SoundPlan:
        """What is read for the samples [first, stop) of a sound; SampleError where the sample has none."""
        try:
            member = self.manifest.member(index, self.component)
        except ShardError as error:
            raise self.error(index, error) from error
        if "table_offset" in self.facts:
            tables = packets_name(self.manifest.shard_name(index))
            offset, size = (int(self.facts[name][index]) for name in ("table_offset", "table_size"))
            return SoundPlan(
                index=index, first=first, stop=stop, member=member, ranges=(Range(tables, offset, size), member)
            )
        header = self.header(index)
        span = stretch_range(member, header, first, stop, rate=self.clip.sample_rate)
        return SoundPlan(index=index, first=first, stop=stop, member=member, ranges=(span,), header=header)

    def drawn(self, index: int, epoch: int) -> SoundPlan:
        """That of the stretch that the epoch shows."""
        return self.planned(index, *self.stretch(index, epoch))

    def sound(self, plan: SoundPlan, stats: Stats) -> npt.NDArray[np.float32]:
        """The samples of a plan at the clip's rate and with its channels, float32 (n, C), n at most the clip's.

        SampleError where they cannot be read or decoded.
        """
        try:
            sound = (self._indexed if plan.header is None else self._encoded)(plan, stats)
        except (StoreError, ShardError, SoundError) as error:
            raise self.error(plan.index, error) from error
        sound = sound[: self.clip.n_samples]
        return np.resize(sound, (self.clip.n_samples, sound.shape[1])) if self.clip.short == "repeat" else sound

    def error(self, index: int, reason: object) -> SampleError:
        """What is raised for a sound that cannot be used."""
        shard, key = self.manifest.shard_path(index).name, self.manifest.key(index)
        return SampleError(shard=shard, key=key, component=self.component, reason=str(reason))

    def header(self, index: int) -> FlacHeader:
        """The header of a FLAC that maskstream wrote, as the manifest has it."""
        described = self.manifest.components[self.component].described(index)
        return FlacHeader.of(described.facts, described.lists)

    def _encoded(self, plan: SoundPlan, stats: Stats) -> npt.NDArray[np.float32]:
        """Of a member that maskstream wrote."""
        rate, header = self.clip.sample_rate, plan.header or self.header(plan.index)
        with stats.stage("read"):
            stretch = read_stretch(self.manifest.store, plan.member, header, plan.first, plan.stop, rate=rate)
        stats.read_bytes += stretch.read_bytes
        with stats.stage("decode"):
            gain = float(self.facts["gain"][plan.index])
            return decode_stretch(stretch, rate=rate, gain=gain, channels=self.clip.channels)

    def _indexed(self, plan: SoundPlan, stats: Stats) -> npt.NDArray[np.float32]:
        """Of a member that others wrote."""
        rate, n_samples = self.clip.sample_rate, int(self.facts["n_samples"][plan.index])
        table = plan.ranges[0].name, plan.ranges[0].offset
        with stats.stage("read"):
            stretch = read_indexed(
                self.manifest.store, table, plan.member, plan.first, plan.stop, n_samples=n_samples, rate=rate
            )
        stats.read_bytes += stretch.read_bytes
        with stats.stage("decode"):
            return decode_indexed(stretch, rate=rate, channels=self.clip.channels)


def sound_of(manifest: Manifest, component: str | None = None) -> str:
    """The component of a split's sounds; ValueError where there are several and none is named."""
    return component_of(manifest.components, ("sound",), component).name
