"""Check written videos: decode them slice by slice, as a loader will, and compare the frames."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import numpy as np
import xxhash
from av.codec.context import Flags2
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from maskstream.preprocess.source import RejectError, explain
from maskstream.shards.media.limits import most_pixels
from maskstream.shards.media.local_media import MediaError, open_media
from maskstream.shards.media.mp4 import DECODERS, Mp4Error, Packets, Track, read_fragments, read_header

from .fragments import Fragments


def check_slices(
    parsed: Fragments,
    width: int,
    height: int,
    seen: Callable[[int, VideoFrame], None] | None = None,
    *,
    motion: bool = False,
) -> None:
    """Raise RejectError unless every fragment decodes on its own to exactly its frames, in the right size.

    This is for closed GOPs at a constant rate: frame n is displayed at n intervals and lies in the fragment of its GOP.

    Args:
        parsed: Fragments of the video.
        width: Width in pixels.
        height: Height in pixels.
        seen: Function that is called with the number of each frame and the frame, in order.
        motion: Decode motion vectors for `seen`.
    """
    n_frames = len(parsed.pts)
    interval = int(parsed.pts[-1]) // max(1, n_frames - 1)
    if not np.array_equal(parsed.pts, interval * np.arange(n_frames)):
        raise RejectError("check", "the frames do not have a constant frame rate from time 0")
    track = read_header(parsed.data[: parsed.start[0]])
    decoder = _decoder(track, most_pixels(width, height))
    if motion:
        decoder.flags2 |= Flags2.export_mvs
    is_right, number = (False, width, height), 0
    for f in range(len(parsed.key_rank)):
        expected = parsed.pts[parsed.fragment == f]
        fragment = memoryview(parsed.data)[parsed.start[f] : parsed.start[f + 1]]
        try:
            shown = []
            for frame in _decode_alone(decoder, fragment, read_fragments(fragment, track)):
                shown.append((frame.pts, (frame.is_corrupt, frame.width, frame.height)))
                if seen is not None and shown[-1][1] == is_right:
                    seen(number, frame)
                number += 1
        except (av.FFmpegError, Mp4Error) as error:
            raise RejectError("check", f"GOP {f} does not decode by itself: {explain(error)}") from error
        if [pts for pts, _ in shown] != expected.tolist():
            raise RejectError("check", f"GOP {f} decodes to {len(shown)} frames, expected {len(expected)}")
        if any(facts != is_right for _, facts in shown):
            raise RejectError("check", f"GOP {f} decodes to frames that are damaged or not {width}x{height}")


def _decoder(track: Track, most: int) -> VideoCodecContext:
    """Return a decoder in its initial state; most: the largest number of pixels of a frame."""
    context = av.CodecContext.create(DECODERS[track.codec], "r")
    if not isinstance(context, VideoCodecContext):
        raise RejectError("check", f"{track.codec} is not a video codec")
    context.extradata = track.extradata or None
    if track.size != (0, 0):
        context.width, context.height = track.size
    context.thread_count, context.thread_type = 1, "NONE"
    context.options = {"max_pixels": str(most)}
    return context


def _decode_alone(decoder: VideoCodecContext, fragment: memoryview, packets: Packets) -> Iterator[VideoFrame]:
    """Yield the frames of a fragment with a decoder in its initial state, and reset it afterwards."""
    for at, size, pts in zip(packets.start.tolist(), packets.size.tolist(), packets.pts.tolist(), strict=True):
        packet = av.Packet(fragment[at : at + size])  # type: ignore[arg-type]
        packet.pts = pts
        yield from decoder.decode(packet)
    yield from decoder.decode(None)
    decoder.flush_buffers()


@dataclass(frozen=True, kw_only=True, slots=True)
class FullDecode:
    """The result of decoding a whole file: checksums of frames in display order, the first frame and all sizes."""

    digests: list[bytes]
    first: VideoFrame
    sizes: set[tuple[int, int]]
    interlaced: bool
    corrupt: bool


def decode_fully(parsed: Fragments, *, strict: bool = False) -> FullDecode:
    """Decode a whole file.

    Args:
        parsed: Fragments of the video.
        strict: Also raise for errors that the decoder would skip or conceal; then only keyframes have checksums.

    Raises:
        RejectError: Packets and frames differ in number.
    """
    digests: list[bytes] = []
    wanted, n_frames = set(parsed.key_rank.tolist()), 0
    sizes: set[tuple[int, int]] = set()
    first: VideoFrame | None = None
    interlaced = corrupt = False
    try:
        for _, frame in _shown(parsed.data, strict=strict):
            first = first or frame
            if not strict or n_frames in wanted:
                digests.append(hash_frame(frame))
            n_frames += 1
            sizes.add((frame.width, frame.height))
            interlaced |= frame.interlaced_frame
            corrupt |= frame.is_corrupt
    except (av.FFmpegError, MediaError) as error:
        raise RejectError("decode", f"is damaged: {n_frames} frames decode, then {explain(error)}") from error
    if first is None or n_frames != len(parsed.pts):
        raise RejectError(
            "decode",
            f"{len(parsed.pts)} packets decode to {n_frames} frames, which cannot be indexed; use profile train",
        )
    return FullDecode(digests=digests, first=first, sizes=sizes, interlaced=interlaced, corrupt=corrupt)


def decode_strictly(parsed: Fragments) -> FullDecode | None:
    """Decode a whole file without any error, with keyframes that are the same when decoded alone; return None if there
    is an error.

    Otherwise the decoder's output depends on its starting point: HEVC leaves the contents of another frame in regions
    that it cannot decode.
    """
    try:
        whole = decode_fully(parsed, strict=True)
        alone = [_hash_keyframe(parsed.slice(f, f + 1)) for f in range(len(parsed.key_rank))]
    except (RejectError, av.FFmpegError, MediaError):
        return None
    return None if whole.corrupt or alone != whole.digests else whole


def _hash_keyframe(data: bytes) -> bytes:
    """Return the checksum of the first frame of an MP4, from its first packet alone; b"" if that yields no frame."""
    with open_media(data) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packet = next(container.demux(stream))
        return next((hash_frame(frame) for frame in (*packet.decode(), *stream.decode(None))), b"")


def find_exact_entries(parsed: Fragments, digests: list[bytes]) -> list[int]:
    """Return the entry points: fragments from which every frame after the keyframe decodes as in the full decode.

    A fragment that is not an entry point joins the slice of the entry point before it, and that slice is checked again.
    """
    n_fragments = len(parsed.key_rank)
    entries: list[int] = []
    for f in range(n_fragments):
        entries.append(f)
        while not _is_exact(parsed, digests, entries[-1], f + 1):
            if len(entries) == 1:
                raise RejectError("check", f"the first {f + 1} GOPs do not decode by themselves; use profile train")
            entries.pop()
    return entries


def _is_exact(parsed: Fragments, digests: list[bytes], first: int, stop: int) -> bool:
    is_last = stop == len(parsed.key_rank)
    start, end = int(parsed.key_rank[first]), len(parsed.pts) if is_last else int(parsed.key_rank[stop])
    reach = stop if is_last or not parsed.lead(stop) else stop + 1
    held = parsed.fragment[start:end]
    if held.min() < first or held.max() >= reach:
        return False
    try:
        got = [hash_frame(frame) for _, frame in _shown(parsed.slice(first, reach))]
    except (av.FFmpegError, MediaError):
        return False
    return got[: end - start] == digests[start:end] and (reach > stop or len(got) == end - start)


def _shown(data: bytes, *, strict: bool = False) -> Iterator[tuple[int, VideoFrame]]:
    """Yield times and frames of an MP4, except frames that are displayed before its first keyframe."""
    with open_media(data) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if strict:
            stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+careful+explode"}
        first: int | None = None
        for packet in container.demux(stream):
            first = packet.pts if first is None else first
            for frame in packet.decode():
                if frame.pts is not None and first is not None and frame.pts >= first:
                    yield frame.pts, frame


def hash_frame(frame: VideoFrame) -> bytes:
    """Return the checksum of a frame's pixels, without row padding."""
    digest = xxhash.xxh3_128()
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        row_bytes = plane.width * ((frame.format.components[0].bits + 7) // 8)
        digest.update(rows[: plane.height, :row_bytes].tobytes())
    return digest.digest()
