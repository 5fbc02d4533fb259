"""Encodes depth without loss: FFV1 in a fragmented MP4 of which each frame is a GOP, so a clip reads only its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame

from ....shards.media.depth import DEPTH_FORMAT, depth_of
from ....shards.members.member import Member
from ....shards.members.video import video_member
from ...source import RejectError, reason_of
from ..video.check import check_slices
from ..video.fragments import mp4_writer, parsed_output, video_index
from .walk import UInt16s

OPTIONS = {"level": "3", "g": "1", "slices": "4", "slicecrc": "1"}
"""Those of FFmpeg's encoder: version 3, all frames keyframes, each slice with a checksum."""


def depth_member(depth: Sequence[UInt16s], fps: int) -> Member:
    """Depth, uint16 (H, W) each in millimetres, as a member of kind `video`, decoded and compared once.

    Raises RejectError if the frames differ in size, or do not come back as they were.
    """
    if len({one.shape for one in depth}) != 1:
        raise RejectError("encode", f"has depth of the sizes {sorted({one.shape for one in depth})}, not of one")
    height, width = depth[0].shape
    parsed = parsed_output(_encoded(depth, fps))
    wrong: list[int] = []

    def compare(number: int, frame: VideoFrame) -> None:
        if not np.array_equal(depth_of(frame), depth[number]):
            wrong.append(number)

    check_slices(parsed, width, height, compare)
    if wrong or len(parsed.key_rank) != len(depth):
        raise RejectError("check", f"has {len(depth)} frames of depth, of which {wrong or 'some'} do not decode alike")
    entries = list(range(len(depth)))
    index = video_index(parsed, entries, codec="ffv1", fps=float(fps), width=width, height=height)
    return video_member(parsed.data, index)


def _encoded(depth: Sequence[UInt16s], fps: int) -> bytes:
    buffer, (height, width) = io.BytesIO(), depth[0].shape
    try:
        with mp4_writer(buffer) as container:
            stream = container.add_stream("ffv1", rate=fps, options=OPTIONS)
            stream.width, stream.height, stream.pix_fmt = width, height, DEPTH_FORMAT
            stream.codec_context.thread_count, stream.codec_context.gop_size = 1, 1
            for number, one in enumerate(depth):
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(one), format=DEPTH_FORMAT)
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise RejectError("encode", f"has depth that cannot be encoded ({reason_of(error)})") from error
    return buffer.getvalue()
