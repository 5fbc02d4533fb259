"""Indexes one sound: its facts, its sums, and its table in the packets file."""

from __future__ import annotations

from itertools import islice

import numpy as np

from maskstream.preprocess.encode.audio.encoder import check_sound
from maskstream.preprocess.encode.audio.sound import Sound, read_sound
from maskstream.shards.media.sound_table import Floats, SoundForm, SoundTable, SoundTableError, decoded, packets_of
from maskstream.shards.members.member import Member
from maskstream.shards.members.sound import SOUND

from .indexed import Indexed
from .sound_entries import Timeline, cells_of, digest
from .sound_packets import DemuxedSound, container_of, demuxed_sound

_PCM = "pcm_"
_CHUNK = 1 << 16
"""How many PCM samples are compared at a time."""


def index_sound(data: bytes, component: str) -> Indexed:
    """Index the member `data`. Raises RejectError if it cannot become a sample.

    The full decode is the reference. A table that reads only part of the member is used only if its decode equals the
    reference.
    """
    from maskstream.preprocess.encode.audio.fbank_sums import (
        fbank_sums,  # imports torch, which the index of a video needs not
    )

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
    return Indexed(member=Member(kind=SOUND.name, data=data, facts=facts, table=table), sums=sums)


def _table(data: bytes, container: str, sound: Sound) -> SoundTable:
    """The table that reads the fewest bytes."""
    demuxed = demuxed_sound(data, container)
    try:
        if demuxed is not None and demuxed.form.sample_rate == sound.sample_rate:
            made = _pcm(data, demuxed, sound) if demuxed.form.codec.startswith(_PCM) else _packets(demuxed, sound)
            if made is not None:
                return made
    except SoundTableError:
        pass
    return SoundTable(kind="whole", form=SoundForm(codec=container, layout="", sample_rate=sound.sample_rate))


def _pcm(data: bytes, demuxed: DemuxedSound, sound: Sound) -> SoundTable | None:
    """The table of contiguous PCM samples; None if they are not contiguous."""
    start, size = demuxed.pieces["start"], demuxed.pieces["size"]
    n = len(sound.samples)
    frame_bytes, rest = divmod(int(size.sum()), n)
    if rest or (start[1:] != start[:-1] + size[:-1]).any():
        return None
    begin = int(start[0])
    for first in range(0, n, _CHUNK):
        stop = min(first + _CHUNK, n)
        part = data[begin + first * frame_bytes : begin + stop * frame_bytes]
        if not np.array_equal(next(decoded(demuxed.form, [part])), _plain(sound, first, stop)):
            return None
    return SoundTable(kind="pcm", form=demuxed.form, begin=begin, frame_bytes=frame_bytes)


def _packets(demuxed: DemuxedSound, sound: Sound) -> SoundTable | None:
    """The table of packets that decode in sequence to the sound's samples; None if they do not."""
    timeline = _timeline(demuxed, sound, demuxed.priming) or _timeline(demuxed, sound, 0)
    if timeline is None:
        return None
    size, cells = cells_of(demuxed.form, demuxed.packets, timeline, len(sound.samples))
    pieces, firsts = demuxed.pieces.copy(), packets_of(demuxed.pieces)
    pieces["samples"][firsts[1:] - 1] = timeline.counts
    for name in ("decode", "packet", "stop"):
        cells[name] = firsts[cells[name]]
    return SoundTable(kind="packets", form=demuxed.form, cell_samples=size, cells=cells, pieces=pieces)


def _timeline(demuxed: DemuxedSound, sound: Sound, priming: int) -> Timeline | None:
    """The decode of the packets, with `priming` samples before the sound; None if it differs from the sound."""
    n, at = len(sound.samples), -priming
    digests: list[int] = []
    counts: list[int] = []
    for samples in islice(decoded(demuxed.form, demuxed.packets), len(demuxed.packets)):
        first, stop = max(at, 0), min(at + len(samples), n)
        if first < stop and not np.array_equal(samples[first - at : stop - at], _plain(sound, first, stop)):
            return None
        at += len(samples)
        digests.append(digest(samples))
        counts.append(len(samples))
    if at < n:
        return None
    ends = np.cumsum(counts, dtype=np.int64) - priming
    return Timeline(digests=digests, counts=np.array(counts, np.int64), ends=ends)


def _scale(sound: Sound) -> float:
    return 1 / (1 << sound.bits - 1) if sound.bits else 1.0


def _plain(sound: Sound, first: int, stop: int) -> Floats:
    """Samples of the full decode as float32; full scale is 1."""
    part = sound.samples[first:stop].astype(np.float32)
    part *= np.float32(_scale(sound))
    return part
