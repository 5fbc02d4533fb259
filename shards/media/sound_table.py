"""The packet tables of audio in a foreign tar NAME.tar, stored in the packets file `NAME.packets`.

A table starts at its file's fact `table_offset`, all little-endian: a header of 96 bytes (HEAD), the decoder's
extradata (`setup` bytes), and for `packets` one record per cell (CELL) and per piece of a packet (PIECE).

There are three kinds. `pcm`: sample n is at byte `begin + n * frame_bytes` of the member. `packets`: the audio is
divided into cells of `cell_samples`. For each cell the table lists the packet at which decoding must start to produce
the same samples as a decode from the beginning; the indexer has tested every cell. `whole`: the member must be decoded
as a whole, through its container.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import DataError

HEAD = np.dtype(
    [
        ("magic", "S8"),
        ("kind", "S8"),
        ("codec", "S24"),
        ("layout", "S24"),
        ("sample_rate", "<u4"),
        ("setup_bytes", "<u4"),
        ("cell_samples", "<u4"),
        ("n_cells", "<u4"),
        ("begin", "<i8"),
        ("frame_bytes", "<u4"),
        ("n_pieces", "<u4"),
    ]
)
CELL = np.dtype([("decode", "<u4"), ("packet", "<u4"), ("stop", "<u4"), ("runs_on", "<u4"), ("sample", "<i8")])
"""A cell. decode: Piece at which decoding starts. packet: First piece of the packet with the cell's first sample. stop:
Piece after the packet with its last sample. runs_on: Whether decoding may continue into the next cell. sample: Number
of the first sample of `packet`; priming samples have negative numbers.
"""
PIECE = np.dtype([("start", "<i8"), ("size", "<u4"), ("samples", "<u4")])
"""A packet, or one piece of a packet that is stored in several pieces: first byte in the member, size in bytes, and
number of decoded samples; CONTINUED if the packet continues in the next piece.
"""
CONTINUED = 0xFFFFFFFF
MAGIC = b"MSSOUND1"
KINDS = ("pcm", "packets", "whole")
MEMORYLESS = frozenset({"flac", "alac"})
"""Codecs whose packets can be decoded independently of each other."""

Records = npt.NDArray[np.void]


class SoundTableError(DataError):
    """A table is inconsistent, or its packets do not decode accordingly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundForm:
    """Parameters of a decoder: FFmpeg's names of the codec and the channel layout, sample rate in Hz, and extradata.

    For audio of kind `whole`, `codec` is the name of the container.
    """

    codec: str
    layout: str
    sample_rate: int
    setup: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundTable:
    """Table of an audio file. cells, pieces: Records of CELL and PIECE, empty unless the kind is `packets`."""

    kind: str
    form: SoundForm
    begin: int = 0
    frame_bytes: int = 0
    cell_samples: int = 0
    cells: Records = field(default_factory=lambda: np.empty(0, CELL))
    pieces: Records = field(default_factory=lambda: np.empty(0, PIECE))

    def to_bytes(self) -> bytes:
        """Return the table as stored in the packets file."""
        form, cells, pieces = self.form, self.cells, self.pieces
        names = [text.encode() for text in (self.kind, form.codec, form.layout)]
        sizes = form.sample_rate, len(form.setup), self.cell_samples, len(cells), self.begin, self.frame_bytes
        head = np.array((MAGIC, *names, *sizes, len(pieces)), HEAD)
        return head.tobytes() + form.setup + cells.tobytes() + pieces.tobytes()


@dataclass(frozen=True, slots=True)
class SoundHead:
    """The header of a table, which locates its other parts. The fields match HEAD."""

    kind: str
    codec: str
    layout: str
    sample_rate: int
    setup_bytes: int
    cell_samples: int
    n_cells: int
    begin: int
    frame_bytes: int
    n_pieces: int

    @classmethod
    def parse(cls, data: bytes) -> SoundHead:
        """Parse the first bytes of a table. Raise SoundTableError if they are not a header."""
        if len(data) < HEAD.itemsize or data[: len(MAGIC)] != MAGIC:
            raise SoundTableError("the audio has no packet table")
        _, *names, rate, setup, samples, cells, begin, frame, pieces = np.frombuffer(data, HEAD, 1)[0].tolist()
        kind, codec, layout = (name.decode("ascii", "replace") for name in names)
        if kind not in KINDS:
            raise SoundTableError(f"its kind is {kind!r}; expected {', '.join(KINDS)}")
        return cls(kind, codec, layout, rate, setup, samples, cells, begin, frame, pieces)

    def form(self, setup: bytes) -> SoundForm:
        """Return the decoder's parameters, with the extradata that follows the header."""
        return SoundForm(codec=self.codec, layout=self.layout, sample_rate=self.sample_rate, setup=setup)

    def cells_at(self, first: int, stop: int) -> tuple[int, int]:
        """Return offset in the table and size, in bytes, of the records of the cells [first, stop)."""
        return HEAD.itemsize + self.setup_bytes + first * CELL.itemsize, (stop - first) * CELL.itemsize

    def find_pieces(self, first: int, stop: int) -> tuple[int, int]:
        """Return offset in the table and size, in bytes, of the records of the pieces [first, stop)."""
        begin = self.cells_at(0, self.n_cells)
        return sum(begin) + first * PIECE.itemsize, (stop - first) * PIECE.itemsize

    def locate_cells(self, first: int, stop: int) -> tuple[int, int]:
        """Return the run of cells [start, stop) that contains the samples [first, stop)."""
        return first // self.cell_samples, min(-(-stop // self.cell_samples), self.n_cells)


def read_table(data: bytes) -> SoundTable:
    """Parse the table at the start of `data`. Raises SoundTableError if it is truncated or inconsistent."""
    head = SoundHead.parse(data)
    cells_at, cells_bytes = head.cells_at(0, head.n_cells)
    at, size = head.find_pieces(0, head.n_pieces)
    if len(data) < at + size:
        raise SoundTableError("it is truncated")
    return SoundTable(
        kind=head.kind,
        form=head.form(data[HEAD.itemsize : HEAD.itemsize + head.setup_bytes]),
        begin=head.begin,
        frame_bytes=head.frame_bytes,
        cell_samples=head.cell_samples,
        cells=np.frombuffer(data, CELL, head.n_cells, cells_at) if cells_bytes else np.empty(0, CELL),
        pieces=np.frombuffer(data, PIECE, head.n_pieces, at) if size else np.empty(0, PIECE),
    )


def group_packets(pieces: Records) -> Int64s:
    """Return the first piece of each packet and the number of pieces, int64 (packets + 1,)."""
    continued = pieces["samples"] == CONTINUED
    first = np.concatenate([[True], ~continued[:-1]]) if len(pieces) else np.empty(0, bool)
    return np.append(np.flatnonzero(first), len(pieces)).astype(np.int64)


def count_samples(pieces: Records, packets: Int64s) -> Int64s:
    """Return the number of samples of each packet, int64 (packets,)."""
    return pieces["samples"][packets[1:] - 1].astype(np.int64)


def slice_packet(data: bytes | memoryview, base: int, pieces: Records, packets: Int64s) -> list[bytes]:
    """Return the bytes of each packet, from `data`, which begins at byte `base` of the member."""
    starts = (pieces["start"] - base).tolist()
    parts = [bytes(data[a : a + n]) for a, n in zip(starts, pieces["size"].tolist(), strict=True)]
    if len(packets) == len(parts) + 1:
        return parts
    return [b"".join(parts[a:b]) for a, b in pairwise(packets.tolist())]
