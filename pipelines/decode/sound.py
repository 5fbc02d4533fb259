"""A stretch of a FLAC member: only the bytes of its frames are read, and only they are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
import soxr

from ...shards.flac import READ_AHEAD, FlacError, FlacHeader, flac_header, header_bytes
from ...shards.store import LocalStore

MARGIN_S = 0.05
"""What a resampler needs to see on both sides of a stretch to give what it would in the midst of the whole."""


class SoundError(Exception):
    """A sound that cannot be decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Some whole frames, whose first sample is number `at`; wanted of them are the samples [first, stop).

    low, high: with the margins that resampling needs. read_bytes: how much was read.
    """

    header: FlacHeader
    frames: list[bytes]
    at: int
    first: int
    stop: int
    low: int
    high: int
    read_bytes: int


def read_stretch(store: LocalStore, member: tuple[Path, int, int], first: int, stop: int, *, rate: int) -> Stretch:
    """Reads samples [first, stop), counted at the source's rate, of the FLAC member (path, offset, size).

    rate: what they are going to be resampled to. Raises SoundError where the member is no FLAC, StoreError where it
    cannot be read.
    """
    path, offset, size = member
    try:
        head = store.read(path, offset, min(size, READ_AHEAD))
        if (longer := min(header_bytes(head), size)) > len(head):
            head = store.read(path, offset, longer)
        header = flac_header(head)
    except FlacError as error:
        raise SoundError(str(error)) from error
    margin = 0 if rate == header.sample_rate else int(MARGIN_S * header.sample_rate)
    low, high = max(first - margin, 0), min(stop + margin, header.n_samples)
    at, edges = header.frames(low, high, size)
    begin, end = int(edges[0]), int(edges[-1])
    inside = end <= len(head)
    data = head[begin:end] if inside else store.read(path, offset + begin, end - begin)
    frames = [data[a:b] for a, b in zip((edges[:-1] - begin).tolist(), (edges[1:] - begin).tolist(), strict=True)]
    read = len(head) if inside else len(head) + len(data)
    return Stretch(header=header, frames=frames, at=at, first=first, stop=stop, low=low, high=high, read_bytes=read)


def decode_stretch(
    stretch: Stretch, *, rate: int, gain: float, channels: int | Literal["mono"] | None = None
) -> npt.NDArray[np.float32]:
    """The samples that are wanted, float32 (n, channels), times `gain`, resampled to `rate`.

    channels: the first so many, "mono" for the mean of all, None for all. SoundError where they cannot be decoded, or
    there are fewer channels.
    """
    header = stretch.header
    samples = _decoded(header, stretch.frames)[stretch.low - stretch.at : stretch.high - stretch.at]
    if len(samples) != stretch.high - stretch.low:
        raise SoundError(f"has only {len(samples)} of the samples {stretch.low} to {stretch.high}")
    if isinstance(channels, int) and channels > header.channels:
        raise SoundError(f"has {header.channels} channels, wanted are {channels}")
    scaled = samples[:, : None if channels == "mono" else channels].astype(np.float32)
    scaled *= np.float32(gain / (1 << header.bits - 1))
    if channels == "mono" and header.channels > 1:
        scaled = scaled @ np.full((header.channels, 1), 1 / header.channels, dtype=np.float32)
    return _resampled(scaled, header.sample_rate, rate, stretch.first - stretch.low, stretch.stop - stretch.first)


def _decoded(header: FlacHeader, frames: list[bytes]) -> npt.NDArray[np.signedinteger]:
    """All samples of some frames, int16 or int32 (n, channels)."""
    decoder = av.CodecContext.create("flac", "r")
    decoder.extradata = header.stream_info
    decoder.thread_count = 1
    parts = []
    try:
        for packet in [*map(av.Packet, frames), None]:
            for frame in decoder.decode(packet):
                array = frame.to_ndarray()
                parts.append(array.T if frame.format.is_planar else array.reshape(-1, header.channels))
    except (av.FFmpegError, ValueError) as error:
        raise SoundError(f"cannot be decoded ({error})") from error
    if not parts:
        raise SoundError("holds no frame that can be decoded")
    if any(part.shape[1] != header.channels for part in parts):
        raise SoundError(f"has frames that are not of {header.channels} channels")
    samples: npt.NDArray[Any] = np.concatenate(parts)
    return samples >> 8 if header.bits == 24 else samples


def _resampled(samples: npt.NDArray[np.float32], source: int, rate: int, skip: int, n: int) -> npt.NDArray[np.float32]:
    """`n` samples of the source's rate, after `skip` of them, at `rate`."""
    if source == rate:
        return samples[skip : skip + n]
    made: npt.NDArray[np.float32] = soxr.resample(samples, source, rate, quality="HQ")
    begin = round(skip * rate / source)
    return made[begin : begin + -(-n * rate // source)]
