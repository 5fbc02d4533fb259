"""Encodes frames as H.264 in a fragmented MP4. It uses one encoder thread, so the same frames give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange

from maskstream.preprocess.source import RejectError, reason_of

from .convert import BT601, Converter
from .fragments import mp4_writer
from .profile import VideoProfile


def encode_x264(frames: Iterable[VideoFrame], convert: Converter, rate: Fraction, profile: VideoProfile) -> bytes:
    """Convert the frames and encode them as a fragmented MP4 at `rate` frames per second; b"" without frames.

    Raises RejectError if FFmpeg cannot convert or encode a frame.
    """
    buffer = io.BytesIO()
    try:
        _encode_into(buffer, frames, convert, rate, profile)
    except av.FFmpegError as error:
        raise RejectError("encode", f"cannot be converted or encoded ({reason_of(error)})") from error
    return buffer.getvalue()


def _encode_into(
    buffer: io.BytesIO, frames: Iterable[VideoFrame], convert: Converter, rate: Fraction, profile: VideoProfile
) -> None:
    context: VideoCodecContext | None = None
    last: tuple[VideoFrame, VideoFrame] | None = None
    unit = 1 / rate
    with mp4_writer(buffer) as container:
        stream = container.add_stream("libx264", rate=rate, options=_x264_options(profile))
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


def _x264_options(profile: VideoProfile) -> dict[str, str]:
    return {
        "preset": profile.preset,
        "crf": str(profile.crf),
        "tune": "fastdecode",
        "x264-params": profile.x264_params + (":asm=avx2" if _has_avx512() else ""),
        "a53cc": "0",
    }


def _set_up(context: VideoCodecContext, picture: VideoFrame, rate: Fraction) -> VideoCodecContext:
    context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuv420p"
    context.thread_count = 1
    context.time_base = 1 / rate
    context.color_range = ColorRange.MPEG
    context.colorspace = context.color_primaries = context.color_trc = BT601
    return context
