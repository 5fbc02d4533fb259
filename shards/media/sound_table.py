"""Where the packets of sounds lie that stand in tars which others wrote: the file `NAME.packets` of the tar NAME.tar.

For each sound, at the fact `table_offset`, all little-endian: a head of 96 bytes (HEAD), what a decoder is
set up with (`setup` bytes), and for `packets` one record a cell (CELL) and one a piece of a packet (PIECE).

A sound is of one of three kinds. `pcm`: sample n is at byte `begin + n * frame_bytes` of the member. `packets`: it is
divided into cells of `cell_samples`. For each cell the table says at which packet decoding must begin so that its
samples are exactly those of a decode from the beginning, which has been tried for every cell. `whole`: the member must
be decoded by its container.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

HEAD = np.dtype(
    [
        ("magic", "S8"),
        ("kind", "S8"),
        ("codec", "S24"),
        ("layout", "S24"),
        ("sample_rate", "<u4"),
        ("setup", "<u4"),
        ("cell_samples", "<u4"),
        ("cells", "<u4"),
        ("begin", "<i8"),
        ("frame_bytes", "<u4"),
        ("pieces", "<u4"),
    ]
)
CELL = np.dtype([("decode", "<u4"), ("packet", "<u4"), ("stop", "<u4"), ("runs_on", "<u4"), ("sample", "<i8")])
"""Of the cell's samples: the piece at which decoding begins, the first piece of the packet that holds the first one,
the piece behind the packet that holds the last one; whether decoding may go on into the next cell; and the number of
the first sample of `packet`, counted as a player counts (what precedes the sound is below 0).
"""
PIECE = np.dtype([("start", "<i8"), ("size", "<u4"), ("samples", "<u4")])
"""A packet, or where it is stored in several pieces one of them: first byte in the member, bytes, and how many samples
the decoder gives for it; GOES_ON where the packet goes on in the next piece.
"""
GOES_ON = 0xFFFFFFFF
MAGIC = b"MSSOUND1"
KINDS = ("pcm", "packets", "whole")
MEMORYLESS = frozenset({"flac", "alac"})
"""Codecs whose packets are decoded without those before them."""

Records = npt.NDArray[np.void]


class SoundTableError(Exception):
    """A table that contradicts itself, or packets that do not decode as it says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundForm:
    """What a decoder needs: FFmpeg's name of it, of the channels, hertz, and the bytes that it is set up with.

    Of a sound of the kind `whole`, `codec` is the container's name instead.
    """

    codec: str
    layout: str
    sample_rate: int
    setup: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundTable:
    """The table of a sound. cells and pieces: records of CELL and PIECE, empty but for `packets`."""

    kind: str
    form: SoundForm
    begin: int = 0
    frame_bytes: int = 0
    cell_samples: int = 0
    cells: Records = field(default_factory=lambda: np.empty(0, CELL))
    pieces: Records = field(default_factory=lambda: np.empty(0, PIECE))

    def to_bytes(self) -> bytes:
        """As it stands in the file."""
        head = np.zeros((), HEAD)
        head["magic"], head["kind"], head["codec"] = MAGIC, self.kind.encode(), self.form.codec.encode()
        head["layout"], head["sample_rate"] = self.form.layout.encode(), self.form.sample_rate
        head["setup"], head["cell_samples"], head["cells"] = len(self.form.setup), self.cell_samples, len(self.cells)
        head["begin"], head["frame_bytes"], head["pieces"] = self.begin, self.frame_bytes, len(self.pieces)
        return head.tobytes() + self.form.setup + self.cells.tobytes() + self.pieces.tobytes()


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundHead:
    """The head of a table, which says where the rest of it lies."""

    kind: str
    codec: str
    layout: str
    sample_rate: int
    setup_bytes: int
    cell_samples: int
    n_cells: int
    n_pieces: int
    begin: int
    frame_bytes: int

    @classmethod
    def parse(cls, data: bytes) -> SoundHead:
        """The head in the first bytes of a table; SoundTableError where there is none."""
        if len(data) < HEAD.itemsize or data[: len(MAGIC)] != MAGIC:
            raise SoundTableError("there is no table of this sound")
        head = np.frombuffer(data, HEAD, 1)[0]
        kind = head["kind"].decode("ascii", "replace")
        if kind not in KINDS:
            raise SoundTableError(f"it is of the kind {kind!r}, legal are {', '.join(KINDS)}")
        return cls(
            kind=kind,
            codec=head["codec"].decode("ascii", "replace"),
            layout=head["layout"].decode("ascii", "replace"),
            sample_rate=int(head["sample_rate"]),
            setup_bytes=int(head["setup"]),
            cell_samples=int(head["cell_samples"]),
            n_cells=int(head["cells"]),
            n_pieces=int(head["pieces"]),
            begin=int(head["begin"]),
            frame_bytes=int(head["frame_bytes"]),
        )

    def form(self, setup: bytes) -> SoundForm:
        """With the bytes behind the head."""
        return SoundForm(codec=self.codec, layout=self.layout, sample_rate=self.sample_rate, setup=setup)

    def cells_at(self, first: int, stop: int) -> tuple[int, int]:
        """Where the records of the cells [first, stop) lie from the table's first byte: offset and size in bytes."""
        return HEAD.itemsize + self.setup_bytes + first * CELL.itemsize, (stop - first) * CELL.itemsize

    def pieces_at(self, first: int, stop: int) -> tuple[int, int]:
        """The same of the pieces [first, stop)."""
        begin = self.cells_at(0, self.n_cells)
        return sum(begin) + first * PIECE.itemsize, (stop - first) * PIECE.itemsize

    def cells_of(self, first: int, stop: int) -> tuple[int, int]:
        """The run of cells [start, stop) that holds the samples [first, stop)."""
        return first // self.cell_samples, min(-(-stop // self.cell_samples), self.n_cells)


def read_table(data: bytes) -> SoundTable:
    """The table that `data` begins with; SoundTableError where it is cut off or contradicts itself."""
    head = SoundHead.parse(data)
    cells_at, cells_bytes = head.cells_at(0, head.n_cells)
    at, size = head.pieces_at(0, head.n_pieces)
    if len(data) < at + size:
        raise SoundTableError("it is cut off")
    return SoundTable(
        kind=head.kind,
        form=head.form(data[HEAD.itemsize : HEAD.itemsize + head.setup_bytes]),
        begin=head.begin,
        frame_bytes=head.frame_bytes,
        cell_samples=head.cell_samples,
        cells=np.frombuffer(data, CELL, head.n_cells, cells_at) if cells_bytes else np.empty(0, CELL),
        pieces=np.frombuffer(data, PIECE, head.n_pieces, at) if size else np.empty(0, PIECE),
    )


def packets_of(pieces: Records) -> npt.NDArray[np.int64]:
    """The number of the first piece of each packet, int64 (packets + 1,), the last one behind all."""
    goes_on = pieces["samples"] == GOES_ON
    first = np.concatenate([[True], ~goes_on[:-1]]) if len(pieces) else np.empty(0, bool)
    return np.append(np.flatnonzero(first), len(pieces)).astype(np.int64)


def counts_of(pieces: Records, packets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many samples each packet gives, int64 (packets,)."""
    return pieces["samples"][packets[1:] - 1].astype(np.int64)


def joined(data: bytes | memoryview, base: int, pieces: Records, packets: npt.NDArray[np.int64]) -> list[bytes]:
    """The packets, of `data` that begins at byte `base` of the member."""
    starts = (pieces["start"] - base).tolist()
    parts = [bytes(data[a : a + n]) for a, n in zip(starts, pieces["size"].tolist(), strict=True)]
    if len(packets) == len(parts) + 1:
        return parts
    return [b"".join(parts[a:b]) for a, b in pairwise(packets.tolist())]
