"""The GOPs of a video whose packets are all known, its frame rate, and its index."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from maskstream.shards.arrays import Float64s, Int64s

from .mp4 import Packets
from .video_index import VideoIndex

_STANDARD = tuple(Fraction(n) for n in (1, 2, 5, 6, 8, 10, 12, 15, 18, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120))
_NTSC = tuple(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120))
MAX_RATE = Fraction(120)


def measure_frame_rate(pts: Int64s, time_base: Fraction, declared: Fraction | None) -> tuple[Fraction, bool]:
    """Return the constant rate of a video in frames per second, and whether its actual rate is variable.

    pts: Sorted time stamps in units of `time_base` (seconds). The rate is constant if every frame is within half a
    frame of its time at `declared` (the container's rate) or at the average rate. For a variable rate, the result is
    the rate of the median interval if that is near the average, else the average; it is rounded to a standard rate, an
    integer or the inverse of an integer, and is at most 120.
    """
    fallback = declared or Fraction(25)
    span = Fraction(int(pts[-1] - pts[0])) * time_base if len(pts) > 1 else Fraction(0)
    if span == 0:
        return fallback, False
    average = (len(pts) - 1) / span
    seconds = (pts - pts[0]).astype(np.float64) * float(time_base)
    if declared and _is_near(seconds, declared):
        return declared, False
    for rate in (_find_nearest_standard(average, 0.001), average.limit_denominator(1001)):
        if rate and _is_near(seconds, rate):
            return rate, False
    usual = 1 / float(np.median(np.diff(seconds)) or 1 / average)
    wanted = Fraction(usual) if abs(usual / float(average) - 1) < 0.1 else average
    whole = Fraction(round(wanted)) if wanted >= 1 else Fraction(1, round(1 / wanted))
    rounded = _find_nearest_standard(wanted, 0.01) or whole
    return min(rounded, MAX_RATE), True


def _is_near(seconds: Float64s, rate: Fraction) -> bool:
    """Return True if every frame is within half a frame of its time at a rate."""
    return bool(np.abs(seconds * float(rate) - np.arange(len(seconds))).max() < 0.5)


def _find_nearest_standard(rate: Fraction, tolerance: float) -> Fraction | None:
    best = min(_STANDARD + _NTSC, key=lambda r: abs(r / rate - 1))
    return best if abs(best / rate - 1) <= tolerance else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Gops:
    """Per GOP, int64: its first packet, its first frame, and its leading frames (stored after its keyframe, displayed
    before it).
    """

    packet: Int64s
    first_frame: Int64s
    lead: Int64s


def list_gops(packets: Packets, entries: Int64s) -> Gops:
    """Return the GOPs that start at the packets `entries`."""
    shown = packets.shown if packets.shown is not None else np.ones_like(packets.keyframe)
    times = np.sort(packets.pts[shown])
    first = np.searchsorted(times, packets.pts[entries])
    before = np.concatenate([[0], np.cumsum(shown)])[entries]
    return Gops(packet=entries, first_frame=first, lead=first - before)


def candidates(packets: Packets, n_frames: int) -> Int64s:
    """Return the keyframes whose times allow them to be entry points.

    Every packet stored before such a keyframe is displayed before it, every packet displayed before it is stored before
    the next keyframe, and its GOP has at least one frame.
    """
    latest = np.maximum.accumulate(packets.pts)
    earliest = np.minimum.accumulate(packets.pts[::-1])[::-1]
    kept: list[int] = []
    for p in np.flatnonzero(packets.keyframe).tolist():
        if p and latest[p - 1] > packets.pts[p]:
            continue
        if not kept or earliest[p] > packets.pts[kept[-1]]:
            kept.append(p)
    entries = np.array(kept, np.int64)
    own = np.diff(list_gops(packets, entries).first_frame, append=n_frames) > 0
    return entries[own]


def index_of_packets(
    codec: str,
    packets: Packets,
    entries: Int64s,
    rate: Fraction,
    size: tuple[int, int],
    header_size: int = 0,
) -> VideoIndex:
    """Return the index, as for a foreign tar, of a video of frames of size = (width, height) that decodes from
    `entries`.

    rate: Frames per second. header_size: Size of the header before its packet table, in bytes.
    """
    gops, bounds = list_gops(packets, entries), np.append(entries, len(packets.start))
    ends = packets.start + packets.size
    shown = len(packets.pts) if packets.shown is None else int(packets.shown.sum())
    return VideoIndex(
        codec=codec,
        fps=float(rate),
        n_frames=shown,
        width=size[0],
        height=size[1],
        header_size=header_size,
        first_frame=gops.first_frame,
        offset=packets.start[entries],
        size=ends[bounds[1:] - 1] - packets.start[entries],
        lead=gops.lead,
        table_offset=0,
        packets=np.diff(bounds),
    )


def average_rate(ticks: Int64s, time_base: Fraction, declared: Fraction | None) -> Fraction:
    """Return the frame rate of a video: the constant one of `measure_frame_rate`, or the average of a variable one."""
    rate, variable = measure_frame_rate(ticks, time_base, declared)
    return (len(ticks) - 1) / (int(ticks[-1] - ticks[0]) * time_base) if variable else rate
