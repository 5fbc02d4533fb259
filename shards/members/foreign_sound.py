"""Checks an indexed sound of a foreign tar against its table and the manifest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from maskstream.shards.media.sound_table import (
    SoundTable,
    SoundTableError,
    counts_of,
    packet_bytes,
    packets_of,
    read_table,
)

from .member import Member


def indexed_sound_problems(member: Member) -> Iterator[str]:
    """Compare the table of a sound with its facts and the member."""
    try:
        table = read_table(member.table)
    except SoundTableError as error:
        yield f"its table is missing or inconsistent ({error}); run `maskstream index` again"
        return
    if table.form.sample_rate != member.facts["sample_rate"]:
        yield f"its table says {table.form.sample_rate} Hz, not {member.facts['sample_rate']}"
    yield from _table_problems(table, int(member.facts["n_samples"]), len(member.data))


def indexed_sound_decode_problems(member: Member) -> Iterator[str]:
    """Decode the member from its beginning and compare it with its table, if the table is consistent."""
    if not any(indexed_sound_problems(member)):
        facts = member.facts
        yield from _decode_problems(
            read_table(member.table), member.data, int(facts["n_samples"]), int(facts["channels"])
        )


def _table_problems(table: SoundTable, n_samples: int, size_bytes: int) -> Iterator[str]:
    """Find inconsistencies in the table of a member with `size_bytes` bytes, without decoding."""
    if table.kind == "pcm" and not 0 <= table.begin <= size_bytes - n_samples * table.frame_bytes:
        yield f"its {n_samples} samples of {table.frame_bytes} bytes do not fit into {size_bytes} bytes"
    if table.kind != "packets":
        return
    pieces, cells = table.pieces, table.cells
    if not len(pieces) or not len(cells) or len(cells) != -(-n_samples // table.cell_samples):
        yield f"its table has {len(cells)} cells and {len(pieces)} packets for {n_samples} samples"
        return
    ends = pieces["start"] + pieces["size"]
    if pieces["start"].min() < 0 or ends.max() > size_bytes or (pieces["start"][1:] < ends[:-1]).any():
        yield f"its packets do not follow each other in {size_bytes} bytes"
    if (cells["decode"] > cells["packet"]).any() or (cells["packet"] >= cells["stop"]).any():
        yield "its cells do not start before they end"
    if cells["stop"].max() > len(pieces) or (cells["sample"] > np.arange(len(cells)) * table.cell_samples).any():
        yield "its cells do not lie within its packets"


def _decode_problems(table: SoundTable, body: bytes, n_samples: int, channels: int) -> Iterator[str]:
    """Compare a decode of the whole member with the table, and each cell's own decode with it."""
    from maskstream.shards.media.sound_packets import decoded, decoded_whole

    try:
        if table.kind == "whole":
            parts = list(decoded_whole(body, table.form.codec))
        elif table.kind == "pcm":
            parts = list(decoded(table.form, [body[table.begin : table.begin + n_samples * table.frame_bytes]]))
        else:
            packets = packets_of(table.pieces)
            parts = list(decoded(table.form, packet_bytes(body, 0, table.pieces, packets)))
            if [len(part) for part in parts] != counts_of(table.pieces, packets).tolist():
                yield "its packets decode to other numbers of samples than when it was indexed"
                return
            yield from _cell_problems(table, body, packets, parts)
    except SoundTableError as error:
        yield str(error)
        return
    found = sum(map(len, parts))
    priming = -int(table.cells["sample"][0]) if table.kind == "packets" else 0
    if found - priming < n_samples:
        yield f"has {found - priming} samples, not {n_samples}"
    if any(part.shape[1] != channels for part in parts if len(part)):
        yield f"does not decode to {channels} channels"


def _cell_problems(table: SoundTable, body: bytes, packets: np.ndarray, whole: list[np.ndarray]) -> Iterator[str]:
    """Find the first cell whose samples differ from those of the whole decode."""
    from maskstream.shards.media.sound_packets import decoded

    for number, cell in enumerate(table.cells):
        begin, kept, stop = np.searchsorted(
            packets, [int(cell[name]) for name in ("decode", "packet", "stop")]
        ).tolist()
        if begin == 0:
            continue
        data = packet_bytes(
            body, 0, table.pieces[packets[begin] : packets[stop]], packets[begin : stop + 1] - packets[begin]
        )
        found = list(decoded(table.form, data))[kept - begin :]
        if not all(map(np.array_equal, found, whole[kept:stop])):
            yield f"cell {number} decodes to other samples than when it was indexed, with this version of FFmpeg"
            return
