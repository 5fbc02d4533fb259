"""The kind `sound`: a FLAC stream, or an indexed audio file of a foreign tar."""

import hashlib
from collections.abc import Iterator

import numpy as np

from maskstream.shards.media.flac import FlacError, FlacHeader, encode_for_md5, parse_flac_header
from maskstream.shards.media.sound_table import (
    SoundTable,
    SoundTableError,
    count_samples,
    group_packets,
    read_table,
    slice_packet,
)

from .member import ENDING, TABLE_FACTS, Kind, Member


def find_indexed_sound_problems(member: Member) -> Iterator[str]:
    """Compare the table of an audio file with its facts and the member."""
    try:
        table = read_table(member.table)
    except SoundTableError as error:
        yield f"its table is missing or inconsistent ({error}); run `maskstream index` again"
        return
    if table.form.sample_rate != member.facts["sample_rate"]:
        yield f"its table has {table.form.sample_rate} Hz, not {member.facts['sample_rate']}"
    yield from _find_table_problems(table, int(member.facts["n_samples"]), len(member.data))


def find_indexed_sound_decode_problems(member: Member) -> Iterator[str]:
    """Decode the member from its beginning and compare it with its table, if the table is consistent."""
    if not any(find_indexed_sound_problems(member)):
        facts = member.facts
        yield from _find_packet_table_problems(
            read_table(member.table), member.data, int(facts["n_samples"]), int(facts["channels"])
        )


def _find_table_problems(table: SoundTable, n_samples: int, size_bytes: int) -> Iterator[str]:
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


def _find_packet_table_problems(table: SoundTable, body: bytes, n_samples: int, channels: int) -> Iterator[str]:
    """Compare a decode of the whole member with the table, and each cell's own decode with it."""
    from maskstream.shards.media.sound_packets import decode_whole, decoded

    try:
        if table.kind == "whole":
            parts = list(decode_whole(body, table.form.codec))
        elif table.kind == "pcm":
            parts = list(decoded(table.form, [body[table.begin : table.begin + n_samples * table.frame_bytes]]))
        else:
            packets = group_packets(table.pieces)
            parts = list(decoded(table.form, slice_packet(body, 0, table.pieces, packets)))
            if [len(part) for part in parts] != count_samples(table.pieces, packets).tolist():
                yield "its packets decode to different numbers of samples than when it was indexed"
                return
            yield from _find_cell_problems(table, body, packets, parts)
    except SoundTableError as error:
        yield str(error)
        return
    found = sum(map(len, parts))
    priming = -int(table.cells["sample"][0]) if table.kind == "packets" else 0
    if found - priming < n_samples:
        yield f"has {found - priming} samples, not {n_samples}"
    if any(part.shape[1] != channels for part in parts if len(part)):
        yield f"does not decode to {channels} channels"


def _find_cell_problems(table: SoundTable, body: bytes, packets: np.ndarray, whole: list[np.ndarray]) -> Iterator[str]:
    """Find the first cell whose samples differ from the decode of the whole file."""
    from maskstream.shards.media.sound_packets import decoded

    for number, cell in enumerate(table.cells):
        begin, kept, stop = np.searchsorted(
            packets, [int(cell[name]) for name in ("decode", "packet", "stop")]
        ).tolist()
        if begin == 0:
            continue
        data = slice_packet(
            body, 0, table.pieces[packets[begin] : packets[stop]], packets[begin : stop + 1] - packets[begin]
        )
        found = list(decoded(table.form, data))[kept - begin :]
        if not all(map(np.array_equal, found, whole[kept:stop])):
            yield f"cell {number} decodes to different samples than when it was indexed, with this version of FFmpeg"
            return


def sound_member(data: bytes, *, gain: float = 1.0, start_s: float | None = None) -> Member:
    """Return a FLAC stream as a member.

    Args:
        data: Bytes of the stream.
        gain: Gain; see SOUND.
        start_s: Start in seconds; see SOUND.

    Raises:
        FlacError: The stream does not have a seek point per frame.
    """
    facts, lists = parse_flac_header(data).columns(len(data))
    facts["gain"] = gain
    return Member(
        kind=SOUND.name, data=data, facts=facts if start_s is None else {**facts, "start_s": start_s}, lists=lists
    )


def find_sound_problems(member: Member) -> Iterator[str]:
    """Compare the header of a FLAC stream, or the table of foreign audio, with the facts."""
    if "table_size" in member.facts:
        yield from find_indexed_sound_problems(member)
        return
    try:
        header = parse_flac_header(member.data)
    except FlacError as error:
        yield str(error)
        return
    points = header.points
    if (np.diff(points, axis=0) <= 0).any() or points[-1, 0] >= header.n_samples or points[-1, 1] >= len(member.data):
        yield "the points of its seek table do not ascend within the stream"
        return
    try:
        facts, lists = header.columns(len(member.data))
    except FlacError as error:
        yield str(error)
        return
    for name, found in facts.items():
        if found != member.facts[name]:
            yield f"its header has {name} {found}, not {member.facts[name]}"
    if not np.array_equal(lists["frame_size"], member.lists["frame_size"]):
        yield "the sizes of its frames differ from the manifest"


def find_sound_decode_problems(member: Member) -> Iterator[str]:
    """Compare the decoded samples with the MD5 of a FLAC stream, or with the table of foreign audio."""
    if "table_size" in member.facts:
        yield from find_indexed_sound_decode_problems(member)
        return
    try:
        header = parse_flac_header(member.data)
    except FlacError:
        return  # sound_problems reports it
    yield from _decode_problems(header, member.data)


def _decode_problems(header: FlacHeader, body: bytes) -> Iterator[str]:
    import av

    from maskstream.shards.media.local_media import MediaError, open_media

    digest, n = hashlib.md5(usedforsecurity=False), 0
    try:
        with open_media(body, "flac") as container:
            for frame in container.decode(audio=0):
                samples = frame.to_ndarray().reshape(-1, header.channels).astype(np.int32)
                samples >>= 8 if header.bits == 24 else 0
                digest.update(encode_for_md5(samples, header.bits))
                if (n := n + len(samples)) > header.n_samples:
                    break
    except (av.FFmpegError, MediaError, ValueError) as error:
        yield f"cannot be decoded ({error})"
        return
    if n != header.n_samples:
        yield f"has {n} samples{' or more' * (n > header.n_samples)}, not {header.n_samples}"
    elif digest.digest() != header.md5:
        yield "its samples differ from those that were encoded (MD5)"


SOUND = Kind(
    name="sound",
    facts={
        "sample_rate": int,
        "channels": int,
        "n_samples": int,
        "gain": float,
        "bits": int,
        "header_size": int,
        "frame_samples": int,
        "start_s": float,
        **TABLE_FACTS,
    },
    words=(ENDING,),
    lists=("frame_size",),
    check=find_sound_problems,
    decode=find_sound_decode_problems,
)
"""sample_rate in hertz; n_samples of one channel; gain: factor that restores the level of the source; bits of a stored
sample; header_size in bytes; frame_samples: samples of each FLAC frame but the last, and frame_size the bytes of each;
start_s: start in seconds after the sample's first frame.
"""
