"""One sound, untouched, to its facts, its sums, and its table in the file of packets."""

from __future__ import annotations

from itertools import islice

import numpy as np

from ...shards.media.fbank import SUMS
from ...shards.media.sound_packets import Floats, decoded
from ...shards.media.sound_table import SoundForm, SoundTable, SoundTableError, packets_of
from ...shards.members.member import Member
from ...shards.members.sound import SOUND
from ..encode.audio.encoder import check_sound, fbank_sums
from ..encode.audio.sound import Sound, read_sound
from .indexed import Indexed
from .sound_entries import Timeline, cells_of, digest
from .sound_packets import ListedSound, container_of, listed_sound

_PCM = "pcm_"
_CHUNK = 1 << 16
"""Samples of PCM that are compared at a time."""


def index_sound(data: bytes, component: str) -> Indexed:
    """The index of the member `data`; RejectError where it cannot be a sample.

    It is decoded once as a whole, which is what every clip must equal; a way to read less of it is taken only where
    that has been tried.
    """
    container = container_of(data, component)
    sound = read_sound(data, container=container)
    check_sound(sound)
    n, channels = sound.samples.shape
    facts: dict[str, int | float] = {
        "sample_rate": sound.sample_rate,
        "channels": channels,
        "n_samples": n,
        "gain": 1.0,
    }
    sums = fbank_sums(sound.samples, np.float32(_scale(sound)), sound.sample_rate)
    table = _table(data, container, sound).to_bytes()
    return Indexed(member=Member(kind=SOUND.name, data=data, facts=facts, table=table), sums={SUMS: sums})


def _table(data: bytes, container: str, sound: Sound) -> SoundTable:
    """The table with which the fewest bytes are read."""
    listed = listed_sound(data, container)
    try:
        if listed is not None and listed.form.sample_rate == sound.sample_rate:
            made = _pcm(data, listed, sound) if listed.form.codec.startswith(_PCM) else _packets(listed, sound)
            if made is not None:
                return made
    except SoundTableError:
        pass
    return SoundTable(kind="whole", form=SoundForm(codec=container, layout="", sample_rate=sound.sample_rate))


def _pcm(data: bytes, listed: ListedSound, sound: Sound) -> SoundTable | None:
    """Of samples that lie in a row; None where they do not."""
    start, size = listed.pieces["start"], listed.pieces["size"]
    n = len(sound.samples)
    frame_bytes, rest = divmod(int(size.sum()), n)
    if rest or (start[1:] != start[:-1] + size[:-1]).any():
        return None
    begin = int(start[0])
    for first in range(0, n, _CHUNK):
        stop = min(first + _CHUNK, n)
        part = data[begin + first * frame_bytes : begin + stop * frame_bytes]
        if not np.array_equal(next(decoded(listed.form, [part])), _plain(sound, first, stop)):
            return None
    return SoundTable(kind="pcm", form=listed.form, begin=begin, frame_bytes=frame_bytes)


def _packets(listed: ListedSound, sound: Sound) -> SoundTable | None:
    """Of packets that give the sound's samples when they are decoded one after the other; None where they do not."""
    line = _timeline(listed, sound, listed.lead) or _timeline(listed, sound, 0)
    if line is None:
        return None
    size, cells = cells_of(listed.form, listed.packets, line, len(sound.samples))
    pieces, firsts = listed.pieces.copy(), packets_of(listed.pieces)
    pieces["samples"][firsts[1:] - 1] = line.counts
    for name in ("decode", "packet", "stop"):
        cells[name] = firsts[cells[name]]
    return SoundTable(kind="packets", form=listed.form, cell_samples=size, cells=cells, pieces=pieces)


def _timeline(listed: ListedSound, sound: Sound, lead: int) -> Timeline | None:
    """A decode of the packets alone, `lead` samples of which come before the sound; None where it is another one."""
    n, at = len(sound.samples), -lead
    digests: list[int] = []
    counts: list[int] = []
    for samples in islice(decoded(listed.form, listed.packets), len(listed.packets)):
        first, stop = max(at, 0), min(at + len(samples), n)
        if first < stop and not np.array_equal(samples[first - at : stop - at], _plain(sound, first, stop)):
            return None
        at += len(samples)
        digests.append(digest(samples))
        counts.append(len(samples))
    if at < n:
        return None
    ends = np.cumsum(counts, dtype=np.int64) - lead
    return Timeline(digests=digests, counts=np.array(counts, np.int64), ends=ends)


def _scale(sound: Sound) -> float:
    return 1 / (1 << sound.bits - 1) if sound.bits else 1.0


def _plain(sound: Sound, first: int, stop: int) -> Floats:
    """Samples of the plain decode as float32, full scale 1."""
    part = sound.samples[first:stop].astype(np.float32)
    part *= np.float32(_scale(sound))
    return part
