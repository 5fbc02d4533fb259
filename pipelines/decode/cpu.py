"""Decode the frames of a clip with PyAV, crop and resize them in YUV, and convert the result to RGB.

Only the packets that the clip needs enter the decoder (`select_packets_for`). Crop, resize and colour conversion are
one pass over the Y, U and V planes (pixels.py). Each thread keeps its decoders open, one per codec and extradata,
because opening one costs as much as decoding two frames.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from operator import add
from types import MappingProxyType

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.flow.codec import Motion, ask_for_vectors
from maskstream.pipelines.flow.codec import motion_vectors as motion_vectors_of
from maskstream.shards.arrays import Float64s, Int16s, Int64s, UInt8s
from maskstream.shards.errors import DataError
from maskstream.shards.media.gop_notes import KeyFlow
from maskstream.shards.media.limits import most_pixels
from maskstream.shards.media.mp4 import DECODERS, Mp4Error, Packets, Track, read_fragments, track_of

_H264_SLICE, _H264_IDR = 1, 5


def select_pts(packets: Packets, first_frame: int, numbers: Int64s) -> Int64s:
    """Return the presentation times of frames `numbers`, in a run of GOPs that starts at frame `first_frame`.

    Hidden frames, and frames displayed before the first keyframe, which belong to the previous GOP, are not counted.

    Raises:
        Mp4Error: A frame is missing.
    """
    counts = packets.pts >= packets.pts[0]
    shown = np.sort(packets.pts[counts if packets.shown is None else counts & packets.shown])
    places = numbers - first_frame
    if places.min() < 0 or places.max() >= len(shown):
        raise Mp4Error(
            f"frames {numbers.min()}..{numbers.max()} are outside the {len(shown)} frames starting at {first_frame}"
        )
    pts: Int64s = shown[places]
    return pts


def select_packets_for(data: memoryview, track: Track, packets: Packets, pts: Int64s) -> Int64s:
    """Return the indexes (in decoding order) of the packets needed to decode the frames shown at `pts`.

    In H.264, unneeded frames that nothing references (nal_ref_idc 0) are skipped, as are packets between the last
    needed frame and the next IDR frame. In FFV1 with only keyframes, as depth is stored, only the requested packets are
    needed; in other codecs, all packets up to the last requested one.

    Raises:
        Mp4Error: `data` ends before the last packet.
    """
    wanted = set(pts.tolist())
    is_wanted = [p in wanted for p in packets.pts.tolist()]
    last = len(is_wanted) - is_wanted[::-1].index(True)
    starts, sizes = packets.start[:last].tolist(), packets.size[:last].tolist()
    if (end := max(map(add, starts, sizes))) > len(data):
        raise Mp4Error(f"the packets needed end at byte {end}, but only {len(data)} bytes were read")
    if track.codec == "ffv1" and bool(packets.keyframe[:last].all()):
        return np.flatnonzero(is_wanted)
    if track.codec != "h264":
        return np.arange(last)
    length_size = (track.extradata[4] & 3) + 1
    keep: list[int] = []
    needed = False
    for i in range(last - 1, -1, -1):
        needed = needed or is_wanted[i]
        is_reference, is_idr = parse_h264_kind(data, starts[i], sizes[i], length_size)
        if needed and (is_reference or is_wanted[i]):
            keep.append(i)
        if is_idr:
            needed = False
    return np.asarray(keep[::-1], dtype=np.int64)


def parse_h264_kind(data: memoryview, start: int, size: int, length_size: int) -> tuple[bool, bool]:
    """Return whether an AVCC packet is a reference and whether it is an IDR frame, from its first slice."""
    at, end = start, start + size
    while at + length_size < end:
        nal = data[at + length_size]
        if _H264_SLICE <= nal & 31 <= _H264_IDR:
            return nal & 0x60 != 0, nal & 31 == _H264_IDR
        at += length_size + int.from_bytes(data[at : at + length_size], "big")
    return True, False


_DECODERS_PER_THREAD = 4
_FULL_RANGE, _BT709 = 2, 1
_BLACK = 16  # black level in limited range; lower values are black too
HALF_CHROMA = ("bt601", False)
"""Colours whose chroma is resized to half of an even output and doubled, as in OpenCV; for others, it is resized to the
full output.
"""
PIXELS_VERSION = 2
"""Version of the arithmetic from planes to pixels, part of a loader's identity; version 1 was OpenCV's."""
PLANAR_420 = ("yuv420p", "yuvj420p")
"""FFmpeg's names of 8-bit 4:2:0 formats, limited and full range."""
# Luma coefficients (K_R, K_B) of ITU-R BT.601 and BT.709.
_KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


class DecodeError(DataError):
    """The decoder rejected the bytes, or did not return the frames that the index lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedFrames:
    """Decoded frames in the requested order, with times and motion vectors."""

    frames: list[VideoFrame]
    """T frames; a repeated frame number returns the same object."""
    pts_s: Float64s
    """float64 (T,): seconds from the start of the video."""
    vectors: dict[int, Motion]
    """Motion vectors or stored flow by frame number, for requested frames that have any."""


class _Decoders(threading.local):
    """Open decoders of one thread, least recently used first."""

    def __init__(self) -> None:
        self.open: OrderedDict[tuple[str, bytes, tuple[int, int], bool, int], VideoCodecContext] = OrderedDict()

    def take(self, track: Track, motion_vectors: bool, most: int) -> VideoCodecContext:
        """Remove a decoder in its initial state from the pool until `give_back`; `most` is the maximum number of pixels
        per frame.
        """
        found = self.open.pop((track.codec, track.extradata, track.size, motion_vectors, most), None)
        if found is not None:
            return found
        context = av.CodecContext.create(DECODERS[track.codec], "r")
        if not isinstance(context, VideoCodecContext):
            raise DecodeError(f"{track.codec} is not a video codec")
        context.extradata = track.extradata or None
        if track.size != (0, 0):
            context.width, context.height = track.size
        context.thread_count = 1
        context.thread_type = "NONE"
        context.options = {"max_pixels": str(most)}
        if motion_vectors:
            ask_for_vectors(context)
        return context

    def give_back(self, track: Track, motion_vectors: bool, most: int, context: VideoCodecContext) -> None:
        context.flush_buffers()
        self.open[track.codec, track.extradata, track.size, motion_vectors, most] = context
        while len(self.open) > _DECODERS_PER_THREAD:
            self.open.popitem(last=False)


_decoders = _Decoders()


def decode_frames(
    header: bytes | Track,
    fragments: memoryview,
    first_frame: int,
    numbers: Int64s,
    *,
    size: tuple[int, int],
    packets: Packets | None = None,
    vectors_of: Int64s | None = None,
    stored: Mapping[int, KeyFlow] = MappingProxyType({}),
    whole: int | None = None,
) -> DecodedFrames:
    """Decode frames `numbers` (display order in the whole video) from fragments that start at `first_frame`.

    Args:
        header: `ftyp moov`, or the track that it describes.
        fragments: Bytes of the fragments.
        first_frame: Number of their first frame.
        numbers: int64 (T,), frames to decode.
        size: Width and height of all frames in pixels.
        packets: Packets of the bytes, for containers not written by maskstream; by default parsed from the fragments.
        vectors_of: int64 (n,), frames whose motion is requested, which are also decoded; none by default.
        stored: Stored flow of such frames by number.
        whole: Size of the complete run of fragments, if the bytes end with the last packet needed; by default, their
            size.

    Raises:
        Mp4Error: The bytes are not such fragments.
        DecodeError: They do not decode to the frames.
    """
    return decode_coded(
        find_coded(header, fragments, first_frame, numbers, packets, vectors_of, whole), size=size, stored=stored
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CodedFrames:
    """Packets of a track to decode: the frames of a clip, then the frames whose motion is requested (`moving`).

    Everything that decoding needs is prepared before the first clip is decoded; see `ClipRowMaker.fill`.
    """

    track: Track
    packets: list[av.Packet[Stream]]
    pts: list[int]
    """Presentation times of the clip's frames, then of the frames in `moving`."""
    pts_s: Float64s
    """float64 (T,): times of the clip's frames in seconds."""
    moving: list[int]
    """Numbers of the frames whose motion is requested."""


def find_coded(
    header: bytes | Track,
    fragments: memoryview,
    first_frame: int,
    numbers: Int64s,
    packets: Packets | None = None,
    vectors_of: Int64s | None = None,
    whole: int | None = None,
) -> CodedFrames:
    """Find the packets that `decode_frames` decodes; same arguments.

    Raises:
        Mp4Error: The bytes are not such fragments.
    """
    track = track_of(header)
    moving = np.empty(0, dtype=np.int64) if vectors_of is None else vectors_of
    frames = np.concatenate([numbers, moving])
    found = None if packets else _find_packets(fragments, track, whole, first_frame, frames)
    if found is None:
        packets = packets or read_fragments(fragments, track, whole)
        pts = select_pts(packets, first_frame, frames)
        needed = _select_packets(track, fragments, packets, pts)
    else:
        needed, pts = found
    return CodedFrames(
        track=track,
        packets=needed,
        pts=pts.tolist(),
        pts_s=pts[: len(numbers)] / track.timescale,
        moving=moving.tolist(),
    )


def _find_packets(
    fragments: memoryview, track: Track, whole: int | None, first_frame: int, frames: Int64s
) -> tuple[list[av.Packet[Stream]], Int64s] | None:
    """Find the packets to decode and the pts of the frames with a kernel; None if it does not support the data."""
    if track.codec != "h264" or len(track.extradata) < 5 or not fragments:
        return None
    from .packets import find_packets

    data = np.frombuffer(fragments, np.uint8)
    data.setflags(write=False)  # for all memory, because numba would compile the kernel separately for writable arrays
    rows, pts = find_packets(
        data,
        len(data) if whole is None else whole,
        track.default_duration,
        track.default_size,
        (track.extradata[4] & 3) + 1,
        first_frame,
        frames,
    )
    return (_build_packets(fragments, rows.tolist()), pts) if len(rows) else None


def decode_coded(
    coded: CodedFrames, *, size: tuple[int, int], stored: Mapping[int, KeyFlow] = MappingProxyType({})
) -> DecodedFrames:
    """Decode the result of `find_coded`, as `decode_frames` does.

    Raises:
        DecodeError: The packets do not decode to the frames.
    """
    by_pts, _ = _decode(coded.track, coded.packets, coded.pts, size, motion_vectors=len(coded.moving) > 0)
    frames = [by_pts[p] for p in coded.pts]
    vectors: dict[int, Motion] = {}
    n = len(coded.pts_s)
    for number, frame in zip(coded.moving, frames[n:], strict=True):
        if (flow := stored.get(number)) is not None:
            vectors[number] = flow
        elif (motion := motion_vectors_of(frame)) is not None:
            vectors[number] = bytes(motion)  # a copy, so that the frame can be released
    del frames[n:]
    return DecodedFrames(frames=frames, pts_s=coded.pts_s, vectors=vectors)


def decode_keyframe(
    track: Track, data: memoryview, packets: Packets, key: int, size: tuple[int, int]
) -> tuple[VideoFrame, tuple[int, int]]:
    """Decode the keyframe `key` of packets in `data`; also returns the coded width and height.

    Raises:
        DecodeError: As in `decode_frames`.
    """
    own = slice(key, key + 1)
    alone = Packets(
        start=packets.start[own], size=packets.size[own], pts=packets.pts[own], keyframe=np.ones(1, dtype=np.bool_)
    )
    by_pts, coded = _decode(
        track, _select_packets(track, data, alone, alone.pts), alone.pts.tolist(), size, motion_vectors=False
    )
    return by_pts[int(alone.pts[0])], coded


def _select_packets(track: Track, data: memoryview, packets: Packets, pts: Int64s) -> list[av.Packet[Stream]]:
    """Build the packets to decode for the frames shown at `pts`."""
    needed = select_packets_for(data, track, packets, pts)
    columns = packets.start[needed], packets.size[needed], packets.pts[needed]
    return _build_packets(data, np.stack(columns, axis=1).tolist())


def _build_packets(data: memoryview, rows: list[list[int]]) -> list[av.Packet[Stream]]:
    """Build packets with these starts, sizes and pts."""
    made: list[av.Packet[Stream]] = []
    for start, n_bytes, shown_at in rows:
        packet = av.Packet(data[start : start + n_bytes])  # type: ignore[arg-type]
        packet.pts = shown_at
        made.append(packet)
    return made


def _decode(
    track: Track, packets: list[av.Packet[Stream]], pts: list[int], size: tuple[int, int], motion_vectors: bool
) -> tuple[dict[int, VideoFrame], tuple[int, int]]:
    """Return the requested frames by pts, and the coded width and height, including invisible parts."""
    wanted = set(pts)
    width, height = size
    found: dict[int, VideoFrame] = {}
    most = most_pixels(width, height)
    decoder = _decoders.take(track, motion_vectors, most)
    try:
        for packet in (*packets, None):
            for frame in decoder.decode(packet):
                if frame.width != width or frame.height != height:
                    raise DecodeError(f"has a frame of {frame.width}x{frame.height} pixels, not {width}x{height}")
                if (shown_at := frame.pts) in wanted:
                    if frame.is_corrupt:
                        raise DecodeError(f"the decoder marked the frame at pts {shown_at} as corrupt")
                    found[shown_at] = frame
    except av.error.FFmpegError as error:
        raise DecodeError(f"{track.codec} decoder: {error}") from error
    missing = wanted - found.keys()
    if missing:
        raise DecodeError(f"the {track.codec} decoder did not return {len(missing)} of {len(wanted)} frames")
    coded = decoder.coded_width, decoder.coded_height
    _decoders.give_back(track, motion_vectors, most, decoder)
    return found, coded


def to_rgb(frames: list[VideoFrame], crop: Crop, size: tuple[int, int], out: UInt8s) -> None:
    """Crop, resize and convert each frame into `out`, uint8 (T, H, W, 3), C-contiguous, with (H, W) = `size`.

    `crop` is in pixels of the frames, with even offsets and sizes (4:2:0 chroma); its flip is applied last. Resizing is
    bilinear with pixel centres at half; if the crop is at least twice the output size, it averages areas instead.
    Results are identical on every machine.

    Raises:
        ValueError: The crop is not within a frame.
    """
    from .pixels import write_rgb

    at: dict[int, int] = {}
    for t, frame in enumerate(frames):
        at.setdefault(id(frame), t)
    box, _kept, tables = _list_planes([(t, frames[t]) for t in at.values()], crop)
    for colours, table in tables.items():
        write_rgb(np.array(table), box, crop.flip, compute_colour_numbers(*colours), _is_half(colours, size), out)
    for t, frame in enumerate(frames):
        if at[id(frame)] != t:
            out[t] = out[at[id(frame)]]


def to_tokens(frames: list[VideoFrame], crop: Crop, grid: tuple[int, int], chosen: Int64s, out: UInt8s) -> None:
    """Crop, resize and convert the chosen tokens of a clip into `out`, uint8 (K, tubelet, p, p, 3), C-contiguous.

    Pixels are identical to the whole clip's from `to_rgb`.

    Args:
        frames: Frames of the clip.
        crop: As in `to_rgb`.
        grid: Tokens of a time step along H and W.
        chosen: int64 (K,), sorted token numbers in (t h w) order.
        out: Output.
    """
    from .pixels import write_tokens

    box, _kept, tables = _list_planes(enumerate(frames), crop)
    size, rows = (grid[0] * out.shape[2], grid[1] * out.shape[3]), out.reshape(*out.shape[:3], 3 * out.shape[3])
    for colours, table in tables.items():
        half = _is_half(colours, size)
        write_tokens(np.array(table), box, crop.flip, compute_colour_numbers(*colours), half, grid, chosen, rows)


def _is_half(colours: tuple[str, bool], size: tuple[int, int]) -> bool:
    """Return whether chroma is resized to half of a size (H, W)."""
    return colours == HALF_CHROMA and size[0] % 2 == 0 and size[1] % 2 == 0


def _list_planes(
    frames: Iterable[tuple[int, VideoFrame]], crop: Crop
) -> tuple[tuple[int, int, int, int], list[VideoFrame], dict[tuple[str, bool], list[list[int]]]]:
    """Prepare kernel inputs for numbered frames: the crop, the frames that own the planes (which must stay alive), and
    the `frames` of `write_rgb`, grouped by colours.
    """
    kept, tables = [], defaultdict(list)
    for t, frame in frames:
        planar = frame if frame.format.name in PLANAR_420 else frame.reformat(format="yuv420p")
        width, height = planar.width, planar.height
        if not (0 <= crop.x < crop.x + crop.width <= width and 0 <= crop.y < crop.y + crop.height <= height):
            raise ValueError(f"{crop} is not within a frame of {width}x{height} pixels; clip it to the frame")
        y, u, v = planar.planes
        lines = y.line_size, u.line_size, v.line_size
        kept.append(planar)
        tables[read_colours(planar)].append([t, y.buffer_ptr, u.buffer_ptr, v.buffer_ptr, *lines])
    return (crop.x, crop.y, crop.width, crop.height), kept, tables


def read_colours(frame: VideoFrame) -> tuple[str, bool]:
    """Return the standard of a frame's colours, "bt601" or "bt709", and whether they are full range."""
    return "bt709" if frame.colorspace == _BT709 else "bt601", frame.color_range == _FULL_RANGE


def cut_planes(frame: VideoFrame, crop: Crop) -> list[UInt8s]:
    """Return views of the crop in the Y, U and V planes; nothing is copied."""
    views = []
    y, x, rows, columns = crop.y, crop.x, crop.height, crop.width
    for plane in frame.planes:
        line = plane.line_size
        views.append(np.ndarray((rows, columns), np.uint8, plane, y * line + x, (line, 1)))  # type: ignore[arg-type]
        if len(views) == 1:
            y, x, rows, columns = y // 2, x // 2, -(-rows // 2), -(-columns // 2)
    return views


@cache
def build_rgb_matrix(standard: str, full_range: bool) -> Float64s:
    """Return the 3 x 4 matrix from (Y, U, V, 1) in [0, 255] to (R, G, B), from the standard's luma coefficients;
    read-only.
    """
    kr, kb = _KR_KB[standard]
    kg = 1 - kr - kb
    y_gain, c_gain, black = (1.0, 1.0, 0.0) if full_range else (255 / 219, 255 / 224, 16.0)
    columns = np.array(
        [
            [y_gain, 0.0, 2 * (1 - kr) * c_gain],
            [y_gain, -2 * (1 - kb) * kb / kg * c_gain, -2 * (1 - kr) * kr / kg * c_gain],
            [y_gain, 2 * (1 - kb) * c_gain, 0.0],
        ]
    )
    shift = columns @ np.array([black, 128.0, 128.0])
    matrix = np.concatenate([columns, -shift[:, None]], axis=1)
    matrix.setflags(write=False)
    return matrix


@cache
def compute_colour_numbers(standard: str, full_range: bool) -> Int16s:
    """Return the integers of the RGB conversion, int16 (6,), read-only: the black level, and the weights of Y in all
    channels, of V in red, of U and V in green, and of U in blue.

    Y, minus black and at least 0, is scaled by 2^7 and its weight is in 2^-14; U and V, minus 128, are scaled by 2^8
    and weighted in 2^-13. Products lose their lower 16 bits, so sums have 5 fractional bits.
    """
    matrix = build_rgb_matrix(standard, full_range)
    shares = [2 * matrix[0, 0], matrix[0, 2], matrix[1, 1], matrix[1, 2], matrix[2, 1]]
    numbers = np.array([0 if full_range else _BLACK, *np.rint(np.multiply(shares, 2**13))], dtype=np.int16)
    numbers.setflags(write=False)
    return numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class CropPlanes:
    """Crop of T frames in 4:2:0."""

    luma: UInt8s
    """uint8 (T, h, w)."""
    chroma: UInt8s
    """uint8 (T, 2, ceil(h / 2), ceil(w / 2)): U and V."""
    flip: bool
    """Whether the output is mirrored."""
    standard: str
    """Colour standard, "bt601" or "bt709"."""
    full_range: bool
    """Whether colours are full range."""


def allocate_planes(
    of: tuple[int, ...],
    height: int,
    width: int,
    empty: Callable[[tuple[int, ...], npt.DTypeLike], UInt8s] = np.empty,
) -> tuple[UInt8s, UInt8s]:
    """Allocate luma uint8 (*of, H, W) and chroma (*of, 2, ceil(H / 2), ceil(W / 2)); `empty` allocates an array."""
    luma = empty((*of, height, width), np.uint8)
    return luma, empty((*of, 2, -(-height // 2), -(-width // 2)), np.uint8)


def crop_planes(frames: list[VideoFrame], crop: Crop, into: tuple[UInt8s, UInt8s] | None = None) -> CropPlanes:
    """Crop the planes of frames; `crop` is in pixels of the frames, with even offsets and sizes.

    `into` is memory for luma and chroma; by default it is allocated.
    """
    luma, chroma = into or allocate_planes((len(frames),), crop.height, crop.width)
    done: dict[int, int] = {}
    for t, frame in enumerate(frames):
        if (before := done.setdefault(id(frame), t)) != t:
            luma[t], chroma[t] = luma[before], chroma[before]
            continue
        planar = frame if frame.format.name in PLANAR_420 else frame.reformat(format="yuv420p")
        luma[t], chroma[t, 0], chroma[t, 1] = cut_planes(planar, crop)
    standard, full_range = read_colours(frames[0])
    return CropPlanes(luma=luma, chroma=chroma, flip=crop.flip, standard=standard, full_range=full_range)
