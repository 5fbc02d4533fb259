"""Copies the packets of a source, unchanged, into a fragmented MP4."""

from __future__ import annotations

import io
from pathlib import Path

import av

from ..reject import RejectError, reason_of
from .fragments import mp4_writer
from .source import decodable, open_video, packets_of


def remuxed(path: Path) -> bytes:
    """The source's packets from the first keyframe on, including those that an edit list hides.

    Decoding times, which some containers lack, are derived from the presentation times. Raises RejectError if MP4
    cannot hold the packets.
    """
    buffer = io.BytesIO()
    with open_video(path, ignore_editlist="1") as (source, stream), mp4_writer(buffer) as container:
        try:
            packets = [packet for packet in packets_of(source, stream) if packet.size]
            packets = [packets[n] for n in decodable([(packet.pts, packet.is_keyframe) for packet in packets])]
            if any(packet.pts is None for packet in packets):
                raise RejectError("encode", "has packets without time stamps; use profile train")
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
