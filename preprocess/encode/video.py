"""One raw video to the bytes, the index and the description of a sample."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from ...shards.sample import VideoIndex
from .check import check_slices, exact_entries, full_decode
from .convert import BT601, Converter, deinterlaced
from .fragments import mp4_writer, parsed_output, video_index
from .profile import PROFILES, VideoProfile
from .reject import RejectError
from .source import SourceFacts, decode, open_video, probe, reason_of, symmetry_of, timed, windowed
from .timing import resample

__all__ = ["PROFILES", "EncodedVideo", "RejectError", "VideoProfile", "encode_video"]

_COPIED = ("h264", "hevc", "vp9", "av1")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedVideo:
    """A sample's `mp4` member, where its frames lie, and what its `json` member says."""

    data: bytes
    index: VideoIndex
    meta: dict[str, Any]


def encode_video(path: Path, profile: VideoProfile, window: tuple[int, int] | None = None) -> EncodedVideo:
    """The video at `path`, or its frames [first, stop) of `window` in display order, stored as `profile` says.

    The result is a fragmented MP4 with one fragment per GOP and no audio; it was decoded GOP by GOP, and each of the
    index's entries gives exactly its frames. The same input gives the same bytes. Raises RejectError where the source
    cannot be opened or decoded, is truncated, or does not suit the profile.
    """
    if window is not None and not 0 <= window[0] < window[1]:
        raise RejectError("open", f"window {window} is not [first, stop) with 0 <= first < stop")
    if profile.name == "copy":
        if window is not None:
            raise RejectError("encode", f"profile copy takes whole files, not the frames {window}; use profile train")
        return _copied(path)
    return _encoded(path, profile, window)


def _encoded(path: Path, profile: VideoProfile, window: tuple[int, int] | None) -> EncodedVideo:
    facts = probe(path)
    with open_video(path) as (_, stream):
        pixel_aspect = stream.sample_aspect_ratio
    convert = Converter(profile.short_side, pixel_aspect)
    rate = facts.rate if profile.fps is None else min(facts.rate, Fraction(profile.fps).limit_denominator(1001))
    timeline = timed(deinterlaced(windowed(decode(path), window)), facts)
    data = _x264(resample(timeline, rate, facts.last_interval), convert, rate, profile)
    if convert.first is None:
        raise RejectError("decode", f"none of its {facts.n_frames} frames can be decoded")
    parsed = parsed_output(data)
    width, height = convert.size
    check_slices(parsed, width, height)
    entries = list(range(len(parsed.key_rank)))
    index = video_index(parsed, entries, codec="h264", fps=float(rate), width=width, height=height)
    return EncodedVideo(
        data=parsed.data, index=index, meta=_meta(index, profile, facts, convert.first, vfr=facts.variable)
    )


def _x264(frames: Iterable[VideoFrame], convert: Converter, rate: Fraction, profile: VideoProfile) -> bytes:
    buffer = io.BytesIO()
    context: VideoCodecContext | None = None
    last: tuple[VideoFrame, VideoFrame] | None = None
    with mp4_writer(buffer) as container:
        stream = container.add_stream("libx264", rate=rate, options=_x264_options(profile))
        for n, frame in enumerate(frames):
            last = last if last is not None and last[0] is frame else (frame, convert(frame))
            if context is None:
                context = _set_up(stream.codec_context, last[1], rate)
            picture = last[1]
            picture.pts, picture.time_base = n, 1 / rate
            picture.pict_type = PictureType.NONE
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _x264_options(profile: VideoProfile) -> dict[str, str]:
    return {
        "preset": profile.preset,
        "crf": str(profile.crf),
        "tune": "fastdecode",
        "x264-params": profile.x264_params,
        "a53cc": "0",
    }


def _set_up(context: VideoCodecContext, picture: VideoFrame, rate: Fraction) -> VideoCodecContext:
    context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuv420p"
    context.thread_count = 1
    context.time_base = 1 / rate
    context.color_range = ColorRange.MPEG
    context.colorspace = context.color_primaries = context.color_trc = BT601
    return context


def _copied(path: Path) -> EncodedVideo:
    facts = probe(path)
    if facts.codec not in _COPIED:
        raise RejectError(
            "encode", f"profile copy takes {', '.join(_COPIED)}, this is {facts.codec}; use profile train"
        )
    parsed = parsed_output(_remuxed(path))
    whole = full_decode(parsed)
    if whole.corrupt:
        raise RejectError("decode", "the decoder flags a frame as damaged")
    if whole.interlaced or any(symmetry_of(whole.first)):
        what = "interlaced" if whole.interlaced else "rotated by its metadata"
        raise RejectError("encode", f"is {what}, which profile copy cannot keep; use profile train")
    if len(whole.sizes) > 1:
        raise RejectError("encode", f"changes its size ({sorted(whole.sizes)}); use profile train")
    entries = exact_entries(parsed, whole.digests)
    index = video_index(
        parsed,
        entries,
        codec=facts.codec,
        fps=float(facts.average_rate if facts.variable else facts.rate),
        width=whole.first.width,
        height=whole.first.height,
    )
    return EncodedVideo(
        data=parsed.data, index=index, meta=_meta(index, PROFILES["copy"], facts, whole.first, vfr=facts.variable)
    )


def _remuxed(path: Path) -> bytes:
    """The source's packets from its first keyframe on (all of them, also those that an edit list hides).

    Decoding times, which some containers lack, are made anew from the presentation times.
    """
    buffer = io.BytesIO()
    with open_video(path, ignore_editlist="1") as (source, stream), mp4_writer(buffer) as container:
        try:
            packets = _displayable([packet for packet in source.demux(stream) if packet.size])
            copy = container.add_stream_from_template(stream, opaque=True)
            pts = [packet.pts or 0 for packet in packets]
            delay = max(early - shown for early, shown in zip(sorted(pts), pts, strict=True))
            for packet, dts in zip(packets, sorted(pts), strict=True):
                packet.dts = dts - delay
                packet.stream = copy
                container.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            raise RejectError("encode", f"cannot be muxed as MP4 ({reason_of(error)}); use profile train") from error
    return buffer.getvalue()


def _displayable(packets: list[av.Packet[VideoStream]]) -> list[av.Packet[VideoStream]]:
    """The packets that decode by themselves: the first keyframe and what is stored and shown after it."""
    first = next((n for n, packet in enumerate(packets) if packet.is_keyframe), len(packets))
    if first == len(packets):
        raise RejectError("decode", "has no keyframe")
    if any(packet.pts is None for packet in packets):
        raise RejectError("encode", "has packets without time stamps; use profile train")
    shown = packets[first].pts or 0
    return [packet for packet in packets[first:] if (packet.pts or 0) >= shown]


def _meta(
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
