"""Index one audio file: its facts, its sums, and its table in the packets file.

Audio is divided into cells. The table stores for each cell the packet at which decoding starts, so that its samples
equal a decode from the beginning; the packets before the cell's first packet are the preroll, which only brings the
decoder into the right state.

FFmpeg's demuxer locates the packets in a member of a tar; in Ogg they are located by its pages (RFC 3533).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import av
import numpy as np
import xxhash
from av.container import InputContainer

from maskstream.preprocess.encode.audio.encoder import check_sound
from maskstream.preprocess.encode.audio.sound import Sound, find_id3_end, read_sound
from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Float32s, Int64s
from maskstream.shards.media.local_media import MediaError, open_media
from maskstream.shards.media.sound_packets import decoded
from maskstream.shards.media.sound_table import (
    CELL,
    CONTINUED,
    PIECE,
    Records,
    SoundForm,
    SoundTable,
    SoundTableError,
    group_packets,
)
from maskstream.shards.members.member import Member
from maskstream.shards.members.sound import SOUND

from .tar_file import Indexed

_HEAD = 27
_SERIAL = slice(14, 18)

Pieces = list[tuple[int, int]]
"""Offset and size of each piece of a packet; a packet that continues on the next page has several pieces."""


def read_ogg_packets(data: bytes) -> list[Pieces] | None:
    """Return the pieces of all packets, including headers; None if there are several streams or a page is damaged."""
    packets: list[Pieces] = []
    open_packet: Pieces = []
    at, serial = 0, data[_SERIAL]
    while data[at : at + 4] == b"OggS":
        head = data[at : at + _HEAD]
        if len(head) < _HEAD or head[_SERIAL] != serial:
            return None
        lacing = data[at + _HEAD : at + _HEAD + head[26]]
        at += _HEAD + head[26]
        size = 0
        for length in lacing:
            size += length
            if length < 255:
                packets.append([*open_packet, (at, size)])
                open_packet, at, size = [], at + size, 0
        if size:
            open_packet, at = [*open_packet, (at, size)], at + size
        if at > len(data):
            return None
    return packets


_KINDS = {
    b"RIFF": "wav",
    b"RF64": "wav",
    b"fLaC": "flac",
    b"OggS": "ogg",
}
_FTYP = b"ftyp"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemuxedSound:
    """The packets of an audio file.

    Attributes:
        form: Parameters that a decoder of the packets needs.
        pieces: Records of PIECE, with sample counts of 0 or CONTINUED.
        packets: Bytes of each packet.
        priming: Number of samples before the start of the audio, according to the container.
    """

    form: SoundForm
    pieces: Records
    packets: list[bytes]
    priming: int


def find_container(data: bytes, component: str) -> str:
    """Return FFmpeg's name of a member's container.

    Args:
        data: Bytes of the member.
        component: Suffix of the member, which identifies an MP3 without a header.

    Raises:
        RejectError: The member is empty, or its format cannot be indexed.
    """
    if not data:
        raise RejectError("open", "is empty (0 bytes)")
    at = find_id3_end(data)
    head = data[at : at + 12]
    if head[:4] in _KINDS:
        return _KINDS[head[:4]]
    if head[4:8] == _FTYP:
        return "mov,mp4,m4a,3gp,3g2,mj2"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    if component == "mp3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
        return "mp3"
    raise RejectError("open", f"begins with {head[:8]!r}, so it is not wav, flac, ogg, opus, mp3, m4a or aac")


def demux_sound(data: bytes, container: str) -> DemuxedSound | None:
    """Demux the first audio track of a member.

    Args:
        data: Bytes of the member.
        container: FFmpeg's name of its container.

    Returns:
        The packets; None if the member does not store packets in the form that decoders take.
    """
    try:
        with open_media(data, container) as opened:
            context = opened.streams.audio[0].codec_context
            packets, near, priming = _demux_packets(opened)
            form = SoundForm(
                codec=context.codec.name,
                layout=context.layout.name,
                sample_rate=context.sample_rate,
                setup=bytes(context.extradata or b""),
            )
    except (av.FFmpegError, MediaError, ValueError, IndexError):
        return None
    places = _find_ogg_packets(data, packets) if container == "ogg" else _places(data, packets, near)
    if not packets or places is None or len(form.codec) > 24 or len(form.layout) > 24:
        return None
    return DemuxedSound(form=form, pieces=_pieces(places), packets=packets, priming=priming)


def _demux_packets(container: InputContainer) -> tuple[list[bytes], list[int], int]:
    """Return the packets, their positions according to FFmpeg (-1: unknown), and the number of priming samples."""
    packets: list[bytes] = []
    near: list[int] = []
    priming = 0
    for packet in container.demux(container.streams.audio[0]):
        if not packet.size:
            continue
        if not packets and packet.has_sidedata("skip_samples"):
            priming = int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[:4], "little")
        packets.append(bytes(packet))
        near.append(-1 if packet.pos is None else packet.pos)
    return packets, near, priming


def _places(data: bytes, packets: list[bytes], near: list[int]) -> list[Pieces] | None:
    """Return the position of each packet: FFmpeg's, or else the next occurrence of its bytes; None if one is
    missing.
    """
    places: list[Pieces] = []
    end = max(near[0], 0) if near else 0
    for packet, at in zip(packets, near, strict=True):
        begin = at if at >= end and data.startswith(packet, at) else data.find(packet, end)
        if begin < 0:
            return None
        end = begin + len(packet)
        places.append([(begin, len(packet))])
    return places


def _find_ogg_packets(data: bytes, packets: list[bytes]) -> list[Pieces] | None:
    """Return the pieces of each packet: FFmpeg's packets are the last ones of the stream, after the headers."""
    found = read_ogg_packets(data)
    if found is None or len(found) < len(packets):
        return None
    places = found[len(found) - len(packets) :]
    stored = (b"".join(data[at : at + size] for at, size in pieces) for pieces in places)
    return places if all(a == b for a, b in zip(stored, packets, strict=True)) else None


def _pieces(places: list[Pieces]) -> Records:
    table = np.zeros(sum(map(len, places)), PIECE)
    flat = [
        (at, size, CONTINUED if n + 1 < len(place) else 0) for place in places for n, (at, size) in enumerate(place)
    ]
    table["start"], table["size"], table["samples"] = np.array(flat, np.int64).reshape(-1, 3).T
    return table


CELL_S, LONG_CELL_S = 0.5, 10.0
LONG_S = 40.0
"""Shorter audio whose decoder depends on all earlier packets is decoded from the beginning, which costs less than a
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
"""Prerolls in packets, tried in order, for codecs whose decoder depends on a bounded number of earlier packets: because
of overlapping windows, or of MP3's bit reservoir (511 bytes, some 30 packets at the lowest bit rates).
"""
_PREROLL_S = (2.5, 5.0, 10.0)
"""Prerolls in seconds, tried in order, for other codecs, where the influence of earlier packets decays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """A decode from the beginning.

    Attributes:
        digests: Hash of the samples of each packet.
        counts: Number of samples of each packet, int64.
        ends: Number of the sample after each packet's last one, int64; the first sample of the audio is 0.
    """

    digests: list[int]
    counts: Int64s
    ends: Int64s


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """Packets, and the digests of their decode from the beginning."""

    form: SoundForm
    packets: Sequence[bytes]
    digests: Sequence[int]

    def is_exact(self, begin: int, first: int, stop: int) -> bool:
        """Return whether the packets [first, stop) yield the same samples if decoding starts at `begin`."""
        if begin == 0:
            return True
        for n, samples in enumerate(decoded(self.form, self.packets[begin:stop]), begin):
            if n >= first and digest(samples) != self.digests[n]:
                return False
        return True


def digest(samples: Float32s) -> int:
    """Return the hash of one packet's samples."""
    return xxhash.xxh3_64_intdigest(samples.tobytes())


def divide_cells(form: SoundForm, packets: Sequence[bytes], timeline: Timeline, n_samples: int) -> tuple[int, Records]:
    """Divide audio into cells that decode exactly.

    Args:
        form: Parameters of the decoder.
        packets: Bytes of each packet.
        timeline: Decode from the beginning.
        n_samples: Number of samples of the audio.

    Returns:
        The samples per cell, and the cells as records of CELL, with packet numbers instead of piece numbers.
    """
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
    """Return whether a decode that is exact in one cell stays exact in the next.

    The noise substitution of AAC depends on all earlier packets; it shows as a cell that is not exact.
    """
    if form.codec == "aac":
        is_lc = form.setup[0] >> 3 == 2 if form.setup else packets[0][2] >> 6 == 1
        return is_lc and int(timeline.counts.max()) <= _AAC_FRAME
    return form.codec in _PREROLL_PACKETS


def _empty_cells(timeline: Timeline, n_samples: int, size: int) -> tuple[int, Records]:
    """Return cells whose decoding starts at packet 0 and may continue into the next cell."""
    first = np.arange(0, n_samples, size)
    packet = np.searchsorted(timeline.ends, first, side="right")
    last = np.searchsorted(timeline.ends, np.minimum(first + size, n_samples))
    cells = np.zeros(len(first), CELL)
    cells["packet"], cells["stop"], cells["runs_on"] = packet, last + 1, 1
    cells["sample"] = timeline.ends[packet] - timeline.counts[packet]
    return size, cells


def _set_preroll(trial: _Trial, timeline: Timeline, rate: int, cells: Records) -> bool:
    """Set the shortest exact preroll of each cell; return False if none of the first cells has one.

    Each cell is decoded separately, because an exact decode may not stay exact in the next cell.
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
    """Return the packet at which decoding starts, the cell's first packet, and the packet after its last."""
    return int(cell["decode"]), int(cell["packet"]), int(cell["stop"])


_PCM = "pcm_"
_CHUNK = 1 << 16
"""PCM samples that are compared at a time."""


def index_sound(data: bytes, component: str) -> Indexed:
    """Index an audio file.

    A full decode is the reference. A table that reads only part of the member is used only if its decode equals the
    reference.

    Args:
        data: Bytes of the member.
        component: Suffix of the member.

    Raises:
        RejectError: The member cannot become a sample.
    """
    from maskstream.preprocess.encode.audio.fbank_sums import compute_fbank_sums

    container = find_container(data, component)
    sound = read_sound(data, container=container)
    check_sound(sound)
    n, channels = sound.samples.shape
    facts: dict[str, int | float] = {
        "sample_rate": sound.sample_rate,
        "channels": channels,
        "n_samples": n,
        "gain": 1.0,
    }
    sums = compute_fbank_sums(sound.samples, np.float32(_scale(sound)), sound.sample_rate)
    table = _choose_table(data, container, sound).to_bytes()
    return Indexed(member=Member(kind=SOUND.name, data=data, facts=facts, table=table), sums=sums)


def _choose_table(data: bytes, container: str, sound: Sound) -> SoundTable:
    """Return the table that reads the fewest bytes."""
    demuxed = demux_sound(data, container)
    try:
        if demuxed is not None and demuxed.form.sample_rate == sound.sample_rate:
            made = (
                _index_pcm(data, demuxed, sound)
                if demuxed.form.codec.startswith(_PCM)
                else _read_packets(demuxed, sound)
            )
            if made is not None:
                return made
    except SoundTableError:
        pass
    return SoundTable(kind="whole", form=SoundForm(codec=container, layout="", sample_rate=sound.sample_rate))


def _index_pcm(data: bytes, demuxed: DemuxedSound, sound: Sound) -> SoundTable | None:
    """Return the table of contiguous PCM samples; None if they are not contiguous."""
    start, size = demuxed.pieces["start"], demuxed.pieces["size"]
    n = len(sound.samples)
    frame_bytes, rest = divmod(int(size.sum()), n)
    if rest or (start[1:] != start[:-1] + size[:-1]).any():
        return None
    begin = int(start[0])
    for first in range(0, n, _CHUNK):
        stop = min(first + _CHUNK, n)
        part = data[begin + first * frame_bytes : begin + stop * frame_bytes]
        if not np.array_equal(next(decoded(demuxed.form, [part])), _convert_to_float(sound, first, stop)):
            return None
    return SoundTable(kind="pcm", form=demuxed.form, begin=begin, frame_bytes=frame_bytes)


def _read_packets(demuxed: DemuxedSound, sound: Sound) -> SoundTable | None:
    """Return the table of packets that decode in sequence to the samples of the audio; None if they do not."""
    timeline = _decode_timeline(demuxed, sound, demuxed.priming) or _decode_timeline(demuxed, sound, 0)
    if timeline is None:
        return None
    size, cells = divide_cells(demuxed.form, demuxed.packets, timeline, len(sound.samples))
    pieces, firsts = demuxed.pieces.copy(), group_packets(demuxed.pieces)
    pieces["samples"][firsts[1:] - 1] = timeline.counts
    for name in ("decode", "packet", "stop"):
        cells[name] = firsts[cells[name]]
    return SoundTable(kind="packets", form=demuxed.form, cell_samples=size, cells=cells, pieces=pieces)


def _decode_timeline(demuxed: DemuxedSound, sound: Sound, priming: int) -> Timeline | None:
    """Decode the packets, with `priming` samples before the audio; return None if the result differs from the audio."""
    n, at = len(sound.samples), -priming
    digests: list[int] = []
    counts: list[int] = []
    for samples in islice(decoded(demuxed.form, demuxed.packets), len(demuxed.packets)):
        first, stop = max(at, 0), min(at + len(samples), n)
        if first < stop and not np.array_equal(samples[first - at : stop - at], _convert_to_float(sound, first, stop)):
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


def _convert_to_float(sound: Sound, first: int, stop: int) -> Float32s:
    """Return samples of the full decode as float32; full scale is 1."""
    part = sound.samples[first:stop].astype(np.float32)
    part *= np.float32(_scale(sound))
    return part
