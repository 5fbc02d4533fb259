"""What a hardware decoder takes: which clips NVDEC, or DALI's decoder on a CPU, decodes, told from their first packet.

NVDEC's limits are those of NVIDIA's support matrix for data-center cards (A100, H100, H200): 8 bits, 4:2:0, H.264 from
48 x 16 and HEVC from 144 x 144 pixels. It gives no picture before the first IDR of H.264, so a clip that begins in an
open GOP would come back as whatever was in memory.
"""

import ctypes
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from maskstream.shards.media.mp4 import Int64Array, Packets, Track

from .cpu import PLANAR_420, frames_at, h264_kind, read_colours

CODECS = {"cuda": ("h264", "hevc"), "cpu": ("vp9",)}
"""The codecs decoded on each type of device. NVDEC would count the hidden frames of VP9 and AV1."""
LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1")
"""What NVDEC needs of the driver; containers have the second one only with the capability "video"."""

_LEAST = {"h264": (48, 16), "hevc": (144, 144), "vp9": (0, 0)}
_MOST = {"h264": (4096, 4096), "hevc": (8192, 8192), "vp9": (16384, 16384)}
_KEPT_FORMATS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFormat:
    """The pixel format of decoded frames, as FFmpeg names it, and their colours: "bt601" or "bt709", full range."""

    pixels: str
    standard: str
    full_range: bool


class _Formats:
    """The formats of the videos with the same header, of which one keyframe was decoded."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, PictureFormat] = OrderedDict()
        self._lock = threading.Lock()

    def of(
        self, header: bytes, track: Track, data: memoryview, packets: Packets, key: int, size: tuple[int, int]
    ) -> PictureFormat:
        with self._lock:
            found = self._known.get(header)
        if found is None:
            (frame,) = frames_at(track, data, _only(packets, key), packets.pts[key : key + 1], size)
            standard, full_range = read_colours(frame)
            found = PictureFormat(pixels=frame.format.name, standard=standard, full_range=full_range)
            with self._lock:
                self._known[header] = found
                if len(self._known) > _KEPT_FORMATS:
                    self._known.popitem(last=False)
        return found


_formats = _Formats()


def picture_format(
    header: bytes, track: Track, data: memoryview, packets: Packets, kept: Int64Array, size: tuple[int, int]
) -> PictureFormat:
    """The format of the frames of a video, of the keyframe that the packets `kept` begin with.

    header: `ftyp moov`; videos of one header have one format, so one keyframe is decoded of each. size: width, height.
    Raises DecodeError if the keyframe cannot be decoded.
    """
    return _formats.of(header, track, data, packets, int(kept[0]), size)


def refused(
    device: str, track: Track, data: memoryview, packets: Packets, kept: Int64Array, size: tuple[int, int]
) -> str:
    """Why the decoder on the type of device `device` cannot decode the packets `kept`, in words; "" if it can.

    size: the width and height in pixels. The pixel format is not looked at; see `unusual`.
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
        if not h264_kind(data, start, n_bytes, (track.extradata[4] & 3) + 1)[1]:
            return f"a clip that begins in an open GOP, where {decoder} gives no pictures"
    return ""


def unusual(form: PictureFormat) -> str:
    """Why frames of this format are decoded on the CPU, in words; "" for 8 bits and 4:2:0."""
    return "" if form.pixels in PLANAR_420 else f"{form.pixels}; 8 bits and 4:2:0 are decoded"


def missing_libraries() -> list[str]:
    """The libraries of the driver that NVDEC needs and this process cannot load."""
    return [name for name in LIBRARIES if not _loads(name)]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _only(packets: Packets, key: int) -> Packets:
    """One of the packets."""
    one = slice(key, key + 1)
    return Packets(
        start=packets.start[one], size=packets.size[one], pts=packets.pts[one], keyframe=np.ones(1, dtype=np.bool_)
    )
