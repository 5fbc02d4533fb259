"""Determine from a stream's syntax whether its decoder restarts at every keyframe.

If so, each GOP decodes alone exactly as in a decode of the whole file, which then need not be verified by decoding. In
case of doubt the answer is False: GOPs are then decoded alone and compared (`check.find_exact_entries`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext

from maskstream.shards.media.h264_sps import UnknownSpsError, read_sps
from maskstream.shards.media.mp4 import read_fragments, read_header

from .fragments import Fragments

_X264 = re.compile(rb"x264 - core (\d{1,6})")
_444_PROFILES = (44, 144, 244)

Rule = Callable[[memoryview, bool], bool]
"""Return whether a packet is consistent with a restart at every keyframe; the flag is True for a keyframe."""


def restarts_at_keyframes(parsed: Fragments) -> bool:
    """Return whether a decoder that starts at any fragment, with the file's header, has the same state as one that also
    read all earlier fragments.

    H.264: every keyframe is IDR, parameter sets equal the header's, and the number of reordered frames is declared.
    HEVC: the same, without leading pictures. VP9 and AV1: visible keyframes and a single sequence header.
    """
    first = np.searchsorted(parsed.fragment, np.arange(len(parsed.key_rank)))
    if (np.diff(parsed.fragment) < 0).any() or not np.array_equal(parsed.key_rank, first):
        return False  # frames are displayed before the keyframe of their GOP, or after the next one
    if len(first) == 1:
        return True
    data = memoryview(parsed.data)
    track = read_header(bytes(data[: parsed.start[0]]))
    fragments = [data[start:stop] for start, stop in zip(parsed.start[:-1], parsed.start[1:], strict=True)]
    packets = [read_fragments(fragment, track) for fragment in fragments]
    is_reordered = any((np.diff(some.pts) < 0).any() for some in packets)
    try:
        rule = _RULES[track.codec](track.extradata, is_reordered)
        return all(
            rule(fragment[at : at + size], n == 0)
            for fragment, some in zip(fragments, packets, strict=True)
            for n, (at, size) in enumerate(zip(some.start.tolist(), some.size.tolist(), strict=True))
        )
    except (KeyError, IndexError, UnknownSpsError):
        return False


def restart_rule(context: VideoCodecContext) -> Callable[[Packet[Stream]], bool]:
    """Whether a packet of a stream that is being read is consistent with a restart at every keyframe; always False for
    codecs and containers for which this is unknown.
    """
    try:
        rule = _RULES[context.codec.canonical_name](bytes(context.extradata or b""), True)
    except (KeyError, IndexError, UnknownSpsError):
        return lambda packet: False

    def agrees(packet: Packet[Stream]) -> bool:
        try:
            return not packet.size or rule(memoryview(packet), packet.is_keyframe)
        except IndexError:
            return False

    return agrees


def _split_units(packet: memoryview, length_size: int) -> Iterator[memoryview]:
    """The NAL units of a packet in MP4."""
    at = 0
    while at < len(packet):
        size = int.from_bytes(packet[at : at + length_size], "big")
        at += length_size
        if not 0 < size <= len(packet) - at:
            raise IndexError(f"a unit of {size} bytes")
        yield packet[at : at + size]
        at += size


def _parse_sets(data: bytes, at: int, count: int) -> tuple[list[bytes], int]:
    """Return `count` parameter sets with lengths of two bytes, and where they end."""
    found = []
    for _ in range(count):
        size = int.from_bytes(data[at : at + 2], "big")
        found.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    if at > len(data):
        raise IndexError("a parameter set is truncated")
    return found, at


def _make_h264_rule(extradata: bytes, is_reordered: bool) -> Rule:
    length_size = (extradata[4] & 3) + 1
    sps, at = _parse_sets(extradata, 6, extradata[5] & 31)
    pps, _ = _parse_sets(extradata, at + 1, extradata[at])
    known = {*sps, *pps} if len(sps) == len(pps) == 1 else set()
    if not sps or not pps or (is_reordered and not all(read_sps(one).says_reordering for one in sps)):
        return lambda packet, is_key: False
    oldest = 151 if any(one[1] in _444_PROFILES for one in sps) else 34
    """Since this x264 version, FFmpeg decodes identically whether or not it has read x264's version from the stream."""

    def rule(packet: memoryview, is_key: bool) -> bool:
        has_idr = False
        for unit in _split_units(packet, length_size):
            kind = unit[0] & 31
            if kind == 5:
                has_idr = True
            elif (
                (kind == 1 and is_key)
                or kind in (2, 3, 4, 14, 20, 21)  # data partitions, layers and views
                or (kind in (7, 8, 13, 15) and bytes(unit) not in known)
                or (kind == 6 and (x264 := _X264.search(unit)) and int(x264[1]) < oldest)
            ):
                return False
        return has_idr or not is_key

    return rule


def _make_hevc_rule(extradata: bytes, is_reordered: bool) -> Rule:
    length_size = (extradata[21] & 3) + 1
    at, known, kinds = 23, set[bytes](), []
    for _ in range(extradata[22]):
        kind = extradata[at] & 63
        found, at = _parse_sets(extradata, at + 3, int.from_bytes(extradata[at + 1 : at + 3], "big"))
        if kind in (32, 33, 34):
            known.update(found)
            kinds += [kind] * len(found)
    if set(kinds) != {32, 33, 34}:
        return lambda packet, is_key: False
    known = known if len(kinds) == 3 else set()

    def rule(packet: memoryview, is_key: bool) -> bool:
        has_idr = False
        for unit in _split_units(packet, length_size):
            kind, layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3
            if kind < 32 and (layer or (is_key and kind not in (19, 20)) or 6 <= kind <= 9):
                return False
            has_idr |= kind in (19, 20)
            if kind in (32, 33, 34) and bytes(unit) not in known:
                return False
        return has_idr or not is_key

    return rule


def _make_vp9_rule(extradata: bytes, is_reordered: bool) -> Rule:
    def rule(packet: memoryview, is_key: bool) -> bool:
        if not is_key:
            return True
        bits = f"{int.from_bytes(packet[:2], 'big'):016b}"
        at = 5 if bits[2:4] == "11" else 4  # profile 3 has a reserved bit
        # show_existing_frame is 0, the frame type is 0 (key), and the frame is displayed
        return bits[:2] == "10" and bits[at : at + 3] == "001"

    return rule


def _make_av1_rule(extradata: bytes, is_reordered: bool) -> Rule:
    declared = {bytes(body) for kind, body in _parse_obus(memoryview(extradata)[4:]) if kind == 1}
    used: set[bytes] = set()

    def rule(packet: memoryview, is_key: bool) -> bool:
        units = list(_parse_obus(packet))
        headers = {bytes(body) for kind, body in units if kind == 1}
        used.update(headers or declared if is_key else headers)
        frame = next((body[0] for kind, body in units if kind in (3, 6)), 0)
        # the first frame of a keyframe: show_existing_frame is 0, the frame type is 0 (key), and the frame is displayed
        return len(used) == 1 and not _is_reduced(*used) and (not is_key or frame >> 4 == 0b0001)

    return rule


def _is_reduced(header: bytes) -> bool:
    """Return whether a sequence header is for still images, whose frames have other headers."""
    return bool(header[0] & 0b00001000)


def _parse_obus(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Kind and contents of the units of AV1. Raises IndexError for one that belongs to a layer or is cut off."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 1
        if head & 4:
            raise IndexError("a unit of a layer")
        size, shift = len(data) - at, 0
        if head & 2:
            size = 0
            while True:
                byte = data[at]
                at += 1
                size |= (byte & 127) << shift
                shift += 7
                if not byte & 128:
                    break
        if size > len(data) - at:
            raise IndexError(f"a unit of {size} bytes")
        yield head >> 3 & 15, data[at : at + size]
        at += size


_RULES: dict[str, Callable[[bytes, bool], Rule]] = {
    "h264": _make_h264_rule,
    "hevc": _make_hevc_rule,
    "vp9": _make_vp9_rule,
    "av1": _make_av1_rule,
}
