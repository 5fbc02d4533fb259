"""Locates the packets of a sound in a member of a tar: with FFmpeg's demuxer, and in the pages of Ogg (RFC 3533)."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer

from maskstream.preprocess.encode.audio.mp3_frames import id3_end
from maskstream.preprocess.source import RejectError
from maskstream.shards.media.local_media import MediaError, open_media
from maskstream.shards.media.sound_table import CONTINUED, PIECE, Records, SoundForm

_HEAD = 27
_SERIAL = slice(14, 18)

Pieces = list[tuple[int, int]]
"""The offset and size of each piece of a packet; a packet that continues on the next page has several pieces."""


def ogg_packets(data: bytes) -> list[Pieces] | None:
    """All packets, including headers; None if there is more than one stream or a page is damaged."""
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
    """The packets of a sound.

    form: what a decoder of the packets needs. pieces: PIECE, sample counts are 0 or CONTINUED. packets: their bytes.
    priming: how many samples precede the sound, according to the container.
    """

    form: SoundForm
    pieces: Records
    packets: list[bytes]
    priming: int


def container_of(data: bytes, component: str) -> str:
    """FFmpeg's name of a member's container. Raises RejectError("open") if it cannot be indexed."""
    if not data:
        raise RejectError("open", "is empty (0 bytes)")
    at = id3_end(data)
    head = data[at : at + 12]
    if head[:4] in _KINDS:
        return _KINDS[head[:4]]
    if head[4:8] == _FTYP:
        return "mov,mp4,m4a,3gp,3g2,mj2"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    if component == "mp3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
        return "mp3"
    raise RejectError("open", f"begins with {head[:8]!r}, so it is no wav, flac, ogg, opus, mp3, m4a or aac")


def demuxed_sound(data: bytes, container: str) -> DemuxedSound | None:
    """Demux the first audio track of a member; None if it does not store packets in the form that decoders take."""
    try:
        with open_media(data, container) as opened:
            context = opened.streams.audio[0].codec_context
            packets, near, priming = _demuxed(opened)
            form = SoundForm(
                codec=context.codec.name,
                layout=context.layout.name,
                sample_rate=context.sample_rate,
                setup=bytes(context.extradata or b""),
            )
    except (av.FFmpegError, MediaError, ValueError, IndexError):
        return None
    places = _ogg_places(data, packets) if container == "ogg" else _places(data, packets, near)
    if not packets or places is None or len(form.codec) > 24 or len(form.layout) > 24:
        return None
    return DemuxedSound(form=form, pieces=_pieces(places), packets=packets, priming=priming)


def _demuxed(container: InputContainer) -> tuple[list[bytes], list[int], int]:
    """The packets, their positions according to FFmpeg (-1: unknown), and the number of priming samples."""
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
    """The position of each packet: FFmpeg's, or else the next occurrence of its bytes; None if one is missing."""
    places: list[Pieces] = []
    end = max(near[0], 0) if near else 0
    for packet, at in zip(packets, near, strict=True):
        begin = at if at >= end and data.startswith(packet, at) else data.find(packet, end)
        if begin < 0:
            return None
        end = begin + len(packet)
        places.append([(begin, len(packet))])
    return places


def _ogg_places(data: bytes, packets: list[bytes]) -> list[Pieces] | None:
    """The pieces of each packet: FFmpeg's packets are the last ones of the stream, headers precede them."""
    found = ogg_packets(data)
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
