"""Where decoding of a listed sound can begin, so that its samples are exactly those of a decode from its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from ...shards.media.sound_packets import Floats, decoded
from ...shards.media.sound_table import CELL, Records, SoundForm

CELL_S, LONG_CELL_S = 0.5, 10.0
LONG_S = 40.0
"""A sound up to this length whose decoder never forgets is decoded from its beginning: that costs less than to wait
until it has forgotten.
"""
_AAC_FRAME = 1024
"""Of AAC-LC; the high-efficiency profiles give twice as many samples for a packet."""

_FORGETS = {
    "flac": (0,),
    "alac": (0,),
    "vorbis": (1, 2),
    "mp3": (4, 10, 40),
    "mp3float": (4, 10, 40),
    "mp2": (1, 2, 4),
    "mp2float": (1, 2, 4),
    "aac": (1, 2, 4),
}
"""Codecs whose decoder knows nothing of packets that are further back than some number: overlapping windows, and the
bit reservoir of MP3 (511 bytes, at the least bit rates some 30 packets). The numbers are tried in this order.
"""
_WAITS_S = (2.5, 5.0, 10.0)
"""Seconds that are tried before a cell of other codecs, whose predictions fade away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """A decode from the beginning. digests: of each packet's samples. ends: int64, the number of the sample behind each
    packet's, as a player counts.
    """

    digests: list[int]
    counts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """Packets, and what they decode to from the beginning."""

    form: SoundForm
    packets: Sequence[bytes]
    digests: Sequence[int]

    def is_exact(self, begin: int, first: int, stop: int) -> bool:
        """Whether packets [first, stop) give the same samples where decoding begins at `begin`."""
        if begin == 0:
            return True
        for n, samples in enumerate(decoded(self.form, self.packets[begin:stop]), begin):
            if n >= first and digest(samples) != self.digests[n]:
                return False
        return True


def digest(samples: Floats) -> int:
    """Of the samples of one packet."""
    return xxhash.xxh3_64_intdigest(samples.tobytes())


def cells_of(form: SoundForm, packets: Sequence[bytes], line: Timeline, n_samples: int) -> tuple[int, Records]:
    """Samples of a cell, and the cells, CELL with numbers of packets in place of pieces."""
    trial = _Trial(form=form, packets=packets, digests=line.digests)
    short = _empty_cells(line, n_samples, round(CELL_S * form.sample_rate))
    for back in _FORGETS[form.codec] if _is_forgetful(form, packets, line) else ():
        short[1]["decode"] = np.maximum(short[1]["packet"].astype(np.int64) - back, 0)
        if all(trial.is_exact(*_places(cell)) for cell in short[1]):
            return short
    short[1]["decode"] = 0
    if n_samples <= LONG_S * form.sample_rate:
        return short
    long = _empty_cells(line, n_samples, round(LONG_CELL_S * form.sample_rate))
    return long if _fade(trial, line, form.sample_rate, long[1]) else short


def _is_forgetful(form: SoundForm, packets: Sequence[bytes], line: Timeline) -> bool:
    """Whether what is exact in a cell stays exact behind it. Noise that AAC puts in for bands (which is drawn by a
    generator that runs on) shows as a cell that is not exact.
    """
    if form.codec == "aac":
        is_lc = form.setup[0] >> 3 == 2 if form.setup else packets[0][2] >> 6 == 1
        return is_lc and int(line.counts.max()) <= _AAC_FRAME
    return form.codec in _FORGETS


def _empty_cells(line: Timeline, n_samples: int, size: int) -> tuple[int, Records]:
    """Cells of which decoding begins at packet 0 and may go on into the next."""
    first = np.arange(0, n_samples, size)
    packet = np.searchsorted(line.ends, first, side="right")
    last = np.searchsorted(line.ends, np.minimum(first + size, n_samples))
    cells = np.zeros(len(first), CELL)
    cells["packet"], cells["stop"], cells["runs_on"] = packet, last + 1, 1
    cells["sample"] = line.ends[packet] - line.counts[packet]
    return size, cells


def _fade(trial: _Trial, line: Timeline, rate: int, cells: Records) -> bool:
    """Begin each cell as late as is exact, and let each be decoded for itself, for nothing says that what is exact in
    one stays exact behind it. False where none of the first cells can be begun later.
    """
    cells["runs_on"] = 0
    for n, cell in enumerate(cells):
        _, first, stop = _places(cell)
        for wait in _WAITS_S:
            begin = int(np.searchsorted(line.ends, int(cell["sample"]) - round(wait * rate), side="right"))
            if trial.is_exact(begin, first, stop):
                cells["decode"][n] = begin
                break
        if n == 3 and not cells["decode"].any():
            return False
    return True


def _places(cell: np.void) -> tuple[int, int, int]:
    return int(cell["decode"]), int(cell["packet"]), int(cell["stop"])
