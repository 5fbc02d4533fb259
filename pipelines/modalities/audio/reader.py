"""The sounds of a split: which stretch an epoch shows of one, and its samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.errors import SampleError, ShardError, StoreError
from ....shards.format.manifest import Manifest, Numbers, component_of
from ....shards.media.flac import FlacHeader
from ....shards.media.packet_table import packets_name
from ...decode.indexed_sound import decode_indexed, read_indexed
from ...decode.sound import SoundError, decode_stretch, read_stretch
from ...stream.rng import sample_rng
from ...stream.stats import Stats
from .clip import AudioClip


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

    def sound(self, index: int, first: int, stop: int, stats: Stats) -> npt.NDArray[np.float32]:
        """Samples [first, stop) at the clip's rate and with its channels, float32 (n, C), n at most the clip's.

        SampleError where they cannot be read or decoded.
        """
        try:
            sound = (self._indexed if "table_offset" in self.facts else self._encoded)(index, first, stop, stats)
        except (StoreError, ShardError, SoundError) as error:
            shard = self.manifest.shard_path(index).name
            raise SampleError(
                shard=shard, key=self.manifest.key(index), component=self.component, reason=str(error)
            ) from error
        sound = sound[: self.clip.n_samples]
        return np.resize(sound, (self.clip.n_samples, sound.shape[1])) if self.clip.short == "repeat" else sound

    def header(self, index: int) -> FlacHeader:
        """The header of a FLAC that maskstream wrote, as the manifest has it."""
        described = self.manifest.components[self.component].described(index)
        return FlacHeader.of(described.facts, described.lists)

    def _encoded(self, index: int, first: int, stop: int, stats: Stats) -> npt.NDArray[np.float32]:
        """Of a member that maskstream wrote."""
        rate = self.clip.sample_rate
        with stats.stage("read"):
            member = self.manifest.member(index, self.component)
            stretch = read_stretch(self.manifest.store, member, self.header(index), first, stop, rate=rate)
        stats.read_bytes += stretch.read_bytes
        with stats.stage("decode"):
            gain = float(self.facts["gain"][index])
            return decode_stretch(stretch, rate=rate, gain=gain, channels=self.clip.channels)

    def _indexed(self, index: int, first: int, stop: int, stats: Stats) -> npt.NDArray[np.float32]:
        """Of a member that others wrote."""
        manifest, rate = self.manifest, self.clip.sample_rate
        tables = packets_name(manifest.shard_name(index))
        table = tables, int(self.facts["table_offset"][index])
        member = manifest.member(index, self.component)
        n_samples = int(self.facts["n_samples"][index])
        with stats.stage("read"):
            stretch = read_indexed(self.manifest.store, table, member, first, stop, n_samples=n_samples, rate=rate)
        stats.read_bytes += stretch.read_bytes
        with stats.stage("decode"):
            return decode_indexed(stretch, rate=rate, channels=self.clip.channels)


def sound_of(manifest: Manifest, component: str | None = None) -> str:
    """The component of a split's sounds; ValueError where there are several and none is named."""
    return component_of(manifest.components, ("sound",), component).name
