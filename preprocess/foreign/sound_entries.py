"""Finds where decoding of a sound can start so that its samples equal those of a decode from the beginning.

A sound is divided into cells. For each cell the table says at which packet decoding starts; the packets between it and
the cell's first packet are the preroll, which only brings the decoder into the right state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from maskstream.shards.media.sound_table import CELL, Floats, Records, SoundForm, decoded

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
