"""The sounds of a split: which stretch an epoch shows of one, and its samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.errors import SampleError, ShardError, StoreError
from ....shards.format.manifest import Manifest
from ....shards.media.packet_table import packets_name
from ....shards.members.sound_member import SOUND_TABLE, sound_member
from ...decode.indexed_sound import decode_indexed, read_indexed
from ...decode.sound import SoundError, decode_stretch, read_stretch
from ...stream.rng import sample_rng
from ...stream.stats import Stats
from .clip import AudioClip

MEMBER = "flac"


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundReader:
    """Reads the clips of one dataset; holds settings only."""

    manifest: Manifest
    clip: AudioClip
    seed: int

    def stretch(self, index: int, epoch: int) -> tuple[int, int]:
        """The samples [first, stop) of sound `index` that the epoch shows, counted at the rate that it is stored at."""
        facts = self.manifest.facts
        rng = sample_rng(self.seed, epoch, self.manifest.key(index), 0, "clip")
        return self.clip.stretch(int(facts["n_samples"][index]), int(facts["sample_rate"][index]), rng)

    def sound(self, index: int, first: int, stop: int, stats: Stats) -> npt.NDArray[np.float32]:
        """Samples [first, stop) at the clip's rate and with its channels, float32 (n, C), n at most the clip's.

        SampleError where they cannot be read or decoded.
        """
        is_indexed = SOUND_TABLE in self.manifest.facts
        name = sound_member(self.manifest, index) if is_indexed else MEMBER
        try:
            sound = (self._indexed if is_indexed else self._encoded)(index, name, first, stop, stats)
        except (StoreError, ShardError, SoundError) as error:
            shard = self.manifest.shard_path(index).name
            raise SampleError(shard=shard, key=self.manifest.key(index), component=name, reason=str(error)) from error
        sound = sound[: self.clip.n_samples]
        return np.resize(sound, (self.clip.n_samples, sound.shape[1])) if self.clip.short == "repeat" else sound

    def _encoded(self, index: int, name: str, first: int, stop: int, stats: Stats) -> npt.NDArray[np.float32]:
        """Of a member that maskstream wrote."""
        rate = self.clip.sample_rate
        with stats.stage("read"):
            stretch = read_stretch(self.manifest.store, self.manifest.member(index, name), first, stop, rate=rate)
        stats.read_bytes += stretch.read_bytes
        with stats.stage("decode"):
            gain = float(self.manifest.facts["gain"][index])
            return decode_stretch(stretch, rate=rate, gain=gain, channels=self.clip.channels)

    def _indexed(self, index: int, name: str, first: int, stop: int, stats: Stats) -> npt.NDArray[np.float32]:
        """Of a member that others wrote."""
        manifest, rate = self.manifest, self.clip.sample_rate
        tables = packets_name(manifest.shard_name(index))
        table = tables, int(manifest.facts[SOUND_TABLE][index])
        member = manifest.member(index, name)
        n_samples = int(manifest.facts["n_samples"][index])
        with stats.stage("read"):
            stretch = read_indexed(self.manifest.store, table, member, first, stop, n_samples=n_samples, rate=rate)
        stats.read_bytes += stretch.read_bytes
        with stats.stage("decode"):
            return decode_indexed(stretch, rate=rate, channels=self.clip.channels)
