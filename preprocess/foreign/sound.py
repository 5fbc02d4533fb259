"""Indexes one sound: its facts, its sums, and its table in the packets file.

A sound is divided into cells. For each cell the table says at which packet decoding starts, so that its samples equal
those of a decode from the beginning; the packets between it and the cell's first packet are the preroll, which only
brings the decoder into the right state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import xxhash

from maskstream.preprocess.encode.audio.encoder import check_sound
from maskstream.preprocess.encode.audio.sound import Sound, read_sound
from maskstream.shards.media.sound_packets import Floats, decoded
from maskstream.shards.media.sound_table import CELL, Records, SoundForm, SoundTable, SoundTableError, packets_of
from maskstream.shards.members.member import Member
from maskstream.shards.members.sound import SOUND

from .sound_packets import DemuxedSound, container_of, demuxed_sound
from .tar_file import Indexed

CELL_S, LONG_CELL_S = 0.5, 10.0
LONG_S = 40.0
"""A shorter sound whose decoder depends on all earlier packets is decoded from the beginning, which costs less than a
preroll.
"""
_AAC_FRAME = 1024
"""Samples per packet of AAC-LC; the high-efficiency profiles have twice as many."""

_PREROLL_PACKETS = {
    "flac": (0,),
    "alac": (0,),
    "vorbis": (1, 2),
    "mp3": (4, 10, 40),
    "mp3float": (4, 10, 40),
    "mp2": (1, 2, 4),
    "mp2float": (1, 2, 4),
    "aac": (1, 2, 4),
}
"""Prerolls in packets, tried in order, of codecs whose decoder depends on a bounded number of earlier packets: because
of overlapping windows, or of MP3's bit reservoir (511 bytes, some 30 packets at the lowest bit rates).
"""
_PREROLL_S = (2.5, 5.0, 10.0)
"""Prerolls in seconds, tried in order, of other codecs, where the influence of earlier packets decays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """A decode from the beginning, per packet. digests: hashes of its samples. counts: int64, how many samples it has.
    ends: int64, the number of the sample after its last, where the sound's first sample is 0.
    """

    digests: list[int]
    counts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """Packets, and the digests of their decode from the beginning."""

    form: SoundForm
    packets: Sequence[bytes]
    digests: Sequence[int]

    def is_exact(self, begin: int, first: int, stop: int) -> bool:
        """Whether the packets [first, stop) give the same samples if decoding starts at `begin`."""
        if begin == 0:
            return True
        for n, samples in enumerate(decoded(self.form, self.packets[begin:stop]), begin):
            if n >= first and digest(samples) != self.digests[n]:
                return False
        return True


def digest(samples: Floats) -> int:
    """The hash of one packet's samples."""
    return xxhash.xxh3_64_intdigest(samples.tobytes())


def cells_of(form: SoundForm, packets: Sequence[bytes], timeline: Timeline, n_samples: int) -> tuple[int, Records]:
    """The samples per cell, and the cells as CELL, with packet numbers instead of piece numbers."""
    trial = _Trial(form=form, packets=packets, digests=timeline.digests)
    short = _empty_cells(timeline, n_samples, round(CELL_S * form.sample_rate))
    for preroll in _PREROLL_PACKETS[form.codec] if _has_bounded_memory(form, packets, timeline) else ():
        short[1]["decode"] = np.maximum(short[1]["packet"].astype(np.int64) - preroll, 0)
        if all(trial.is_exact(*_range(cell)) for cell in short[1]):
            return short
    short[1]["decode"] = 0
    if n_samples <= LONG_S * form.sample_rate:
        return short
    long = _empty_cells(timeline, n_samples, round(LONG_CELL_S * form.sample_rate))
    return long if _set_preroll(trial, timeline, form.sample_rate, long[1]) else short


def _has_bounded_memory(form: SoundForm, packets: Sequence[bytes], timeline: Timeline) -> bool:
    """Whether a decode that is exact in one cell stays exact in the next.

    The noise substitution of AAC depends on all earlier packets; it shows as a cell that is not exact.
    """
    if form.codec == "aac":
        is_lc = form.setup[0] >> 3 == 2 if form.setup else packets[0][2] >> 6 == 1
        return is_lc and int(timeline.counts.max()) <= _AAC_FRAME
    return form.codec in _PREROLL_PACKETS


def _empty_cells(timeline: Timeline, n_samples: int, size: int) -> tuple[int, Records]:
    """Cells whose decoding starts at packet 0 and may run on into the next cell."""
    first = np.arange(0, n_samples, size)
    packet = np.searchsorted(timeline.ends, first, side="right")
    last = np.searchsorted(timeline.ends, np.minimum(first + size, n_samples))
    cells = np.zeros(len(first), CELL)
    cells["packet"], cells["stop"], cells["runs_on"] = packet, last + 1, 1
    cells["sample"] = timeline.ends[packet] - timeline.counts[packet]
    return size, cells


def _set_preroll(trial: _Trial, timeline: Timeline, rate: int, cells: Records) -> bool:
    """Give each cell the shortest preroll that is exact; returns False if none of the first cells has one.

    Each cell is decoded by itself, because an exact decode may not stay exact in the next cell.
    """
    cells["runs_on"] = 0
    for n, cell in enumerate(cells):
        _, first, stop = _range(cell)
        for preroll_s in _PREROLL_S:
            begin = int(np.searchsorted(timeline.ends, int(cell["sample"]) - round(preroll_s * rate), side="right"))
            if trial.is_exact(begin, first, stop):
                cells["decode"][n] = begin
                break
        if n == 3 and not cells["decode"].any():
            return False
    return True


def _range(cell: np.void) -> tuple[int, int, int]:
    """The packet that decoding starts at, the cell's first packet, and the packet after its last."""
    return int(cell["decode"]), int(cell["packet"]), int(cell["stop"])


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
