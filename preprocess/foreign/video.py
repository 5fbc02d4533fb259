"""Indexes one video: its index, and its table in the packets file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maskstream.preprocess.encode.video.timing import frame_rate
from maskstream.shards.media.mp4 import Packets
from maskstream.shards.media.packet_table import table_bytes
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.members.video import video_member

from .indexed import Indexed
from .video_entries import candidates, decoded, exact_entries, gops_at
from .video_packets import DemuxedVideo, demuxed_video


def index_video(data: bytes, *, check: bool = True) -> Indexed:
    """Index the member `data`. With `check`, every entry point is decoded and compared with a full decode.

    Without `check`, the container's keyframes are trusted, and only the first frame is decoded. Raises RejectError if
    the member cannot be indexed.
    """
    video = demuxed_video(data)
    whole = decoded(data, only_first=not check)
    n_frames = len(video.ticks)
    entries = exact_entries(data, video, whole.digests) if check else candidates(video.packets, n_frames)
    index = _index(video, entries, whole.width, whole.height)
    table = video.header + table_bytes(_from(video.packets, int(entries[0])))
    return Indexed(member=replace(video_member(data, index), table=table))


def _index(video: DemuxedVideo, entries: np.ndarray, width: int, height: int) -> VideoIndex:
    packets, gops = video.packets, gops_at(video.packets, entries)
    rate, variable = frame_rate(video.ticks, video.time_base, video.rate)
    if variable:
        rate = (len(video.ticks) - 1) / (int(video.ticks[-1] - video.ticks[0]) * video.time_base)
    bounds = np.append(entries, len(packets.start))
    ends = packets.start + packets.size
    return VideoIndex(
        codec=video.codec,
        fps=float(rate),
        n_frames=len(video.ticks),
        width=width,
        height=height,
        header_size=len(video.header),
        first_frame=gops.first_frame,
        offset=packets.start[entries],
        size=ends[bounds[1:] - 1] - packets.start[entries],
        lead=gops.lead,
        table_offset=0,
        packets=np.diff(bounds),
    )


def _from(packets: Packets, first: int) -> Packets:
    """The packets from `first` on."""
    return replace(
        packets,
        start=packets.start[first:],
        size=packets.size[first:],
        pts=packets.pts[first:],
        keyframe=packets.keyframe[first:],
        shown=None if packets.shown is None else packets.shown[first:],
    )
