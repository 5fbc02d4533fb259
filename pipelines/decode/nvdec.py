"""Capabilities of hardware decoders: determine from packets which clips NVDEC, or DALI's decoder on a CPU, can decode.

NVDEC's limits follow NVIDIA's support matrix for data-center GPUs (A100, H100, H200): 8 bits, 4:2:0, H.264 from 48 x 16
and HEVC from 144 x 144 pixels. It returns no frame before the first IDR frame of H.264, so a clip that starts in an
open GOP would consist of uninitialised memory. DALI compares the coded size with the displayed size: if they differ, it
reads chroma from the wrong rows, or creates a decoder for each clip.
"""

import ctypes
from functools import cache

import torch
from av.video.frame import VideoFrame

from maskstream.shards.arrays import Int64s
from maskstream.shards.media.mp4 import Packets, Track

from .cpu import PLANAR_420, parse_h264_kind

CODECS = {"cuda": ("h264", "hevc"), "cpu": ("vp9",)}
"""Codecs decoded on each type of device. NVDEC would count the hidden frames of VP9 and AV1."""
LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1")
"""Driver libraries that NVDEC needs; containers have the second one only with the capability "video"."""

_LEAST = {"h264": (48, 16), "hevc": (144, 144), "vp9": (0, 0)}
_MOST = {"h264": (4096, 4096), "hevc": (8192, 8192), "vp9": (16384, 16384)}
_LENGTH_SIZE_AT = {"h264": 4, "hevc": 21}
"""Position of the length size in avcC and hvcC."""


def refused(device: str, track: Track, data: memoryview, packets: Packets, kept: Int64s, size: tuple[int, int]) -> str:
    """Return why the decoder on the type of device `device` cannot decode the packets `kept`; "" if it can.

    `size` is the width and height in pixels. The keyframe is checked separately by `describe_unusual`.
    """
    codec, decoder = track.codec, "NVDEC" if device == "cuda" else "DALI on a CPU"
    if codec not in CODECS.get(device, ()):
        return f"{codec}, which {decoder} does not decode here"
    coded = tuple(-(-side // 16) * 16 for side in size) if codec == "h264" else size
    least, most = _LEAST[codec], _MOST[codec]
    if any(side < low for side, low in zip(coded, least, strict=True)):
        return f"{codec} of {size[0]}x{size[1]} pixels; {decoder} needs at least {least[0]}x{least[1]}"
    if any(side > high for side, high in zip(coded, most, strict=True)):
        return f"{codec} of {size[0]}x{size[1]} pixels; {decoder} takes at most {most[0]}x{most[1]}"
    if codec == "h264":
        start, n_bytes = int(packets.start[kept[0]]), int(packets.size[kept[0]])
        if not parse_h264_kind(data, start, n_bytes, (track.extradata[4] & 3) + 1)[1]:
            return f"a clip that starts in an open GOP, where {decoder} returns no frames"
    sets = [extract_parameter_sets(track, data, packets, key) for key in kept.tolist() if packets.keyframe[key]]
    if any(own and own != sets[0] for own in sets):
        return f"{codec} whose parameter sets change within the clip"
    return ""


def describe_unusual(track: Track, frame: VideoFrame, coded: tuple[int, int], in_band: bool) -> str:
    """Return why a video with this keyframe is decoded on the CPU; "" for 8-bit 4:2:0 without invisible parts.

    `coded` is the width and height including invisible parts, in pixels. H.264 may have invisible parts unless its
    parameter sets are `in_band`, because a header's can be rewritten (shards/media/h264_sps.py).
    """
    if frame.format.name not in PLANAR_420:
        return f"{frame.format.name}; only 8-bit 4:2:0 is decoded"
    if (track.codec == "hevc" or (track.codec == "h264" and in_band)) and coded != (frame.width, frame.height):
        where = "packets" if in_band else "header"
        return (
            f"{track.codec} of {frame.width}x{frame.height} pixels, coded as {coded[0]}x{coded[1]} according to the "
            f"parameter sets in its {where}"
        )
    return ""


def extract_parameter_sets(track: Track, data: memoryview, packets: Packets, key: int) -> list[bytes]:
    """Return the sequence parameter sets before the first slice of an H.264 or HEVC packet; other codecs have none."""
    if track.codec not in _LENGTH_SIZE_AT or len(track.extradata) <= _LENGTH_SIZE_AT[track.codec]:
        return []
    is_h264, lengths = track.codec == "h264", (track.extradata[_LENGTH_SIZE_AT[track.codec]] & 3) + 1
    at, end = int(packets.start[key]), int(packets.start[key] + packets.size[key])
    found: list[bytes] = []
    while at + lengths < end:
        n_bytes, head = int.from_bytes(data[at : at + lengths], "big"), data[at + lengths]
        kind, slices, own = (head & 31, range(1, 6), 7) if is_h264 else (head >> 1 & 63, range(32), 33)
        if kind in slices:
            break
        if kind == own:
            found.append(bytes(data[at + lengths : at + lengths + n_bytes]))
        at += lengths + n_bytes
    return found


def missing_libraries() -> list[str]:
    """Return the driver libraries required by NVDEC that this process cannot load."""
    missing = []
    for name in LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


@cache
def missing_torchcodec() -> str:
    """Return why torchcodec cannot be used; "" if it can."""
    try:
        import torchcodec
        from torchcodec.decoders import Demuxer, VideoPacketDecoder  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        return f"it needs torchcodec 0.17 or later, built for this torch ({torch.__version__}), and FFmpeg: {said}"
    return "" if torchcodec.ffmpeg_major_version else "torchcodec finds no FFmpeg: install its shared libraries"
