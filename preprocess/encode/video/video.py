"""Encode one raw video: the bytes of its member, its index and its description.

H.264 is encoded by one thread, so the same frames yield the same bytes.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange

from maskstream.preprocess.encode.limits import check_frames, lasts
from maskstream.preprocess.source import RejectError, Span, explain
from maskstream.shards.media.gop_notes import ANCHORED
from maskstream.shards.media.video_index import VideoIndex

from .check import check_slices, decode_fully, decode_strictly, find_exact_entries
from .convert import BT601, Converter, deinterlace_frames
from .fragments import build_video_index, open_mp4_writer, parse_output, remux
from .notes import Notes, one_thread
from .profile import PROFILES, VideoProfile
from .restarts import restarts_at_keyframes
from .source import Damage, Ending, SourceFacts, cut_window, decode, open_part, orientation, probe, resample, timed


def encode_x264(frames: Iterable[VideoFrame], convert: Converter, rate: Fraction, profile: VideoProfile) -> bytes:
    """Convert the frames and encode them as a fragmented MP4 at `rate` frames per second; b"" without frames.

    Raises RejectError if FFmpeg cannot convert or encode a frame.
    """
    buffer = io.BytesIO()
    try:
        _encode_into(buffer, frames, convert, rate, profile)
    except av.FFmpegError as error:
        raise RejectError("encode", f"cannot be converted or encoded ({explain(error)})") from error
    return buffer.getvalue()


def _encode_into(
    buffer: io.BytesIO, frames: Iterable[VideoFrame], convert: Converter, rate: Fraction, profile: VideoProfile
) -> None:
    context: VideoCodecContext | None = None
    last: tuple[VideoFrame, VideoFrame] | None = None
    unit = 1 / rate
    with open_mp4_writer(buffer) as container:
        stream = container.add_stream(
            "libx264",
            rate=rate,
            options={
                "preset": profile.preset,
                "crf": str(profile.crf),
                "tune": "fastdecode",
                "x264-params": profile.x264_params + (":asm=avx2" if _has_avx512() else ""),
                "a53cc": "0",
            },
        )
        for n, frame in enumerate(frames):
            last = last if last is not None and last[0] is frame else (frame, convert(frame))
            if context is None:
                context = _set_up(stream.codec_context, last[1], rate)
            picture = last[1]
            picture.pts, picture.time_base = n, unit
            picture.pict_type = PictureType.NONE
            container.mux(stream.encode(picture))
        if context is not None:
            container.mux(stream.encode(None))


@cache
def _has_avx512() -> bool:
    """Whether the processor has AVX-512. With it, x264's rate control (mbtree) is not deterministic; up to AVX2 it is,
    on every machine.
    """
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " avx512" in cpuinfo.read_text()


def _set_up(context: VideoCodecContext, picture: VideoFrame, rate: Fraction) -> VideoCodecContext:
    context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuv420p"
    context.thread_count = 1
    context.time_base = 1 / rate
    context.color_range = ColorRange.MPEG
    context.colorspace = context.color_primaries = context.color_trc = BT601
    return context


def record_times(frames: Iterator[VideoFrame], times: list[float | None]) -> Iterator[VideoFrame]:
    """Pass the frames on and append the time stamp of each, in seconds, to `times`."""
    for frame in frames:
        times.append(frame.time)
        yield frame


def find_first_time(times: Sequence[float | None], rate: Fraction | None) -> float | None:
    """The time of the first frame in seconds; None if time stamps are missing or not ascending (H.264 with B-frames in
    AVI).

    rate: the constant frame rate, or None. Time stamps at a constant rate may be off by half a frame, so the result is
    the median of the start times that they imply. At a variable rate it is the first stamp.
    """
    stamps = [time for time in times if time is not None]
    if not stamps or len(stamps) < len(times) or stamps != sorted(stamps):
        return None
    if rate is None:
        return stamps[0]
    return float(np.median(np.array(stamps) - np.arange(len(stamps)) / float(rate)))


__all__ = ["PROFILES", "EncodedVideo", "RejectError", "VideoProfile", "encode_video"]

_COPIED = ("h264", "hevc", "vp9", "av1")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedVideo:
    """The `mp4` member of a sample, the index of its frames, and the contents of its `json` member.

    start_s: time of the first frame on the source's clock; None if unknown (profile copy, or no time stamps). signals:
    cuts, and the longest black and frozen spans in seconds; of the profiles `train` and `fast`.
    """

    data: bytes
    index: VideoIndex
    meta: dict[str, Any]
    start_s: float | None = None
    signals: dict[str, float] = field(default_factory=dict)


def encode_video(
    path: Path,
    profile: VideoProfile,
    window: tuple[int, int] | Span | None = None,
    *,
    damage: Damage = "reject",
    least_whole: float = 0.5,
) -> EncodedVideo:
    """Encode a video, or a part of it, with a profile.

    The result is a fragmented MP4 with one fragment per GOP and no audio. With the profiles `train` and `fast` it
    contains the flow into each GOP, its scene cuts, and the energy of its anchors if the profile requests it
    (shards/media/gop_notes.py). It was decoded GOP by GOP, and every entry of the index yields exactly its frames. The
    same input yields the same bytes.

    Args:
        path: Video file.
        profile: How to store it.
        window: Frames [first, stop) in display order, or a span; None for the whole video.
        damage: How to treat a video that is partly damaged or truncated.
        least_whole: Fraction of its frames that must remain, else it is rejected.

    Raises:
        RejectError: The source cannot be opened or decoded, is truncated, or does not suit the profile.
    """
    if isinstance(window, tuple) and not 0 <= window[0] < window[1]:
        raise RejectError("open", f"the window {window} must be (first, stop) with 0 <= first < stop")
    if profile.name == "copy":
        if window is not None:
            raise RejectError("encode", f"profile copy stores whole files, not the part {window}; use profile train")
        return _copy_video(path)
    return _encode_frames(path, profile, window, Ending(damage, least_whole))


def _encode_frames(
    path: Path, profile: VideoProfile, window: tuple[int, int] | Span | None, ending: Ending
) -> EncodedVideo:
    if isinstance(window, Span):
        facts, shown = open_part(path, window, ending.damage)
        shown = ending.of(shown)
    else:
        facts = _read_facts(path, window, ending.damage)
        shown = cut_window(ending.of(decode(path, ending.damage)), window)
    return encode_frames(facts, shown, profile, window, Converter(profile.short_side, facts.pixel_aspect), ending)


def encode_frames(
    facts: SourceFacts,
    shown: Iterator[VideoFrame],
    profile: VideoProfile,
    window: tuple[int, int] | Span | None,
    convert: Converter,
    ending: Ending,
) -> EncodedVideo:
    """Encode the frames of a video, or of a part of it, with known facts. Raise RejectError as `encode_video` does."""
    most = 2 * facts.n_frames + 32
    if isinstance(window, Span):
        most += ceil(max(0, (window.stop_s or 0) - window.start_s) * facts.rate)
    rate = facts.rate if profile.fps is None else min(facts.rate, Fraction(profile.fps).limit_denominator(1001))
    times: list[float | None] = []
    frames = deinterlace_frames(record_times(shown, times))
    if facts.variable or rate != facts.rate:  # else every frame is shown once
        frames = resample(timed(frames, facts), rate, facts.last_interval)
    data = encode_x264(_check_frame_limit(frames, most), convert, rate, profile)
    if convert.first is None:
        raise ending.found or RejectError("decode", f"none of its {facts.n_frames} frames can be decoded")
    damage = ending.facts(ending.n_frames if isinstance(window, tuple) else facts.n_expected)
    width, height = convert.size
    parsed = parse_output(data)
    anchored = profile.name in ANCHORED
    notes = Notes(parsed.key_rank.tolist(), energy=profile.energy) if anchored else None
    with one_thread():
        check_slices(parsed, width, height, notes.add if notes else None, motion=profile.energy)
    if notes:
        parsed = notes.written(parsed)
    entries = list(range(len(parsed.key_rank)))
    index = build_video_index(
        parsed, entries, codec="h264", fps=float(rate), width=width, height=height, anchored=anchored
    )
    return EncodedVideo(
        data=parsed.data,
        index=index,
        meta=_build_meta(index, profile, facts, convert.first, vfr=facts.variable) | damage,
        start_s=find_first_time(times, None if facts.variable else facts.rate),
        signals=notes.cuts.signals(float(rate)) if notes else {},
    )


def _read_facts(path: Path, window: tuple[int, int] | None, damage: Damage = "reject") -> SourceFacts:
    """The facts of a source, which is not too long."""
    facts = probe(path, damage)
    check_frames(facts.n_frames if window is None else min(facts.n_frames, window[1]))
    lasts(float(facts.n_frames / facts.average_rate))
    return facts


def _check_frame_limit(frames: Iterator[VideoFrame], limit: int) -> Iterator[VideoFrame]:
    """The frames. Raises RejectError for more than `limit`, which only damaged time stamps cause."""
    for n, frame in enumerate(frames):
        if n == limit:
            raise RejectError("decode", f"has damaged time stamps: filling their gaps needs more than {limit} frames")
        yield frame


def _copy_video(path: Path) -> EncodedVideo:
    facts = _read_facts(path, None)
    if facts.codec not in _COPIED:
        raise RejectError("encode", f"is {facts.codec}; profile copy stores {', '.join(_COPIED)}; use profile train")
    parsed = parse_output(remux(path))
    once = decode_strictly(parsed) if restarts_at_keyframes(parsed) else None
    whole = once or decode_fully(parsed)
    if whole.corrupt:
        raise RejectError("decode", "the decoder flags a frame as damaged")
    if whole.interlaced or any(orientation(whole.first)):
        what = "interlaced" if whole.interlaced else "rotated by its metadata"
        raise RejectError("encode", f"is {what}, which profile copy cannot keep; use profile train")
    if len(whole.sizes) > 1:
        raise RejectError("encode", f"changes its size ({sorted(whole.sizes)}); use profile train")
    entries = list(range(len(parsed.key_rank))) if once else find_exact_entries(parsed, whole.digests)
    index = build_video_index(
        parsed,
        entries,
        codec=facts.codec,
        fps=float(facts.average_rate if facts.variable else facts.rate),
        width=whole.first.width,
        height=whole.first.height,
    )
    return EncodedVideo(
        data=parsed.data, index=index, meta=_build_meta(index, PROFILES["copy"], facts, whole.first, vfr=facts.variable)
    )


def _build_meta(
    index: VideoIndex, profile: VideoProfile, facts: SourceFacts, first: VideoFrame, *, vfr: bool
) -> dict[str, Any]:
    return {
        "fps": index.fps,
        "n_frames": index.n_frames,
        "width": index.width,
        "height": index.height,
        "duration_s": index.n_frames / index.fps,
        "profile": profile.name,
        "codec": index.codec,
        "vfr": vfr,
        "original": {
            "codec": facts.codec,
            "width": first.width,
            "height": first.height,
            "fps": float(facts.average_rate),
            "n_frames": facts.n_frames,
            "rotation": first.rotation,
        },
    }
