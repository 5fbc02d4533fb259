"""A segment of a FLAC member; only the FLAC frames that hold it are read and decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
import soxr

from maskstream.shards.errors import DataError
from maskstream.shards.media.flac import FlacHeader, has_more_frames
from maskstream.shards.stores.base import Range, Store

_STRAY_FRAMES = 8
"""How many headers of frames may be found by chance in the frames of a segment."""
MARGIN_S = 0.05
"""Seconds on both sides of a segment with which resampling it equals resampling the whole sound."""

_DTYPES = {"s16": np.int16, "s32": np.int32}
"""The sample formats of libavcodec's FLAC decoder, with interleaved channels."""


class SoundError(DataError):
    """A sound cannot be decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The bytes of whole FLAC frames that hold the samples [first, stop).

    n_frames: their number. at: the number of the first sample in `frames`. low, high: the samples [low, high) include
    the margins for resampling. read_bytes: the number of bytes read.
    """

    header: FlacHeader
    frames: bytes
    n_frames: int
    at: int
    first: int
    stop: int
    low: int
    high: int
    read_bytes: int


def segment_range(member: Range, header: FlacHeader, first: int, stop: int, *, rate: int) -> Range:
    """The byte range that `read_segment` reads."""
    _, _, edges = _frames(member, header, first, stop, rate)
    return Range(member.name, member.offset + int(edges[0]), int(edges[-1] - edges[0]))


def read_segment(store: Store, member: Range, header: FlacHeader, first: int, stop: int, *, rate: int) -> Segment:
    """Reads the samples [first, stop), counted at the source's rate, of the FLAC `member`, in one read.

    header: from the manifest. rate: the rate of a later resampling, in Hz. Raises StoreError if the frames cannot be
    read.
    """
    at, (low, high), edges = _frames(member, header, first, stop, rate)
    data = store.read(member.name, member.offset + int(edges[0]), int(edges[-1] - edges[0]))
    return Segment(
        header=header,
        frames=data,
        n_frames=len(edges) - 1,
        at=at,
        first=first,
        stop=stop,
        low=low,
        high=high,
        read_bytes=len(data),
    )


def _frames(
    member: Range, header: FlacHeader, first: int, stop: int, rate: int
) -> tuple[int, tuple[int, int], npt.NDArray[np.int64]]:
    """The number of the frames' first sample, the samples [low, high) to keep, and the frames' offsets with the end."""
    margin = 0 if rate == header.sample_rate else int(MARGIN_S * header.sample_rate)
    low, high = max(first - margin, 0), min(stop + margin, header.n_samples)
    at, edges = header.frames(low, high, member.size)
    return at, (low, high), edges


def decode_segment(
    segment: Segment, *, rate: int, gain: float, channels: int | Literal["mono"] | None = None
) -> npt.NDArray[np.float32]:
    """Decodes the wanted samples, float32 (n, channels), times `gain`, resampled to `rate` Hz.

    channels: the number of first channels to keep, "mono" for the mean of all, None for all. Raises SoundError if the
    bytes cannot be decoded or there are fewer channels.
    """
    header = segment.header
    samples = _decoded(header, segment.frames, segment.n_frames)[segment.low - segment.at : segment.high - segment.at]
    if len(samples) != segment.high - segment.low:
        raise SoundError(f"has only {len(samples)} of the samples {segment.low} to {segment.high}")
    scaled = kept_channels(samples, channels).astype(np.float32)
    scaled *= np.float32(gain / (1 << header.bits - 1))
    skip, n = segment.first - segment.low, segment.stop - segment.first
    return finished(scaled, header.sample_rate, rate, skip, n, mono=channels == "mono")


def kept_channels(samples: npt.NDArray[Any], channels: int | Literal["mono"] | None) -> npt.NDArray[Any]:
    """The first `channels` of samples (n, channels), or all for "mono" and None; SoundError if there are fewer."""
    if isinstance(channels, int) and channels > samples.shape[1]:
        raise SoundError(f"has {samples.shape[1]} channels, fewer than channels={channels}; use fewer, or 'mono'")
    return samples[:, : None if channels == "mono" else channels]


def finished(
    samples: npt.NDArray[np.float32], source: int, rate: int, skip: int, n: int, *, mono: bool
) -> npt.NDArray[np.float32]:
    """The `n` samples after the first `skip`, their mean over channels if `mono`, resampled to `rate` Hz."""
    channels = samples.shape[1]
    if mono and channels > 1:
        total = samples[:, :1].copy()  # not a matrix product: BLAS would start its own threads
        for channel in range(1, channels):
            total += samples[:, channel : channel + 1]
        samples = total * np.float32(1 / channels)
    return _resampled(samples, source, rate, skip, n)


def _decoded(header: FlacHeader, frames: bytes, n_frames: int) -> npt.NDArray[np.signedinteger]:
    """All samples of the FLAC frames, int16 or int32 (n, channels).

    A frame of 12 bytes may decode to 2 MB, so frames that the manifest does not list are counted before.
    """
    if has_more_frames(frames, 2 * n_frames + _STRAY_FRAMES):
        raise SoundError(f"has more frames than the {n_frames} in the manifest")
    decoder = av.CodecContext.create("flac", "r")
    decoder.extradata = header.stream_info
    decoder.thread_count = 1
    decoder.options = {"err_detect": "crccheck+explode"}  # a corrupt frame raises an error
    parts = []
    try:
        for packet in (av.Packet(frames), None):  # one packet may hold many frames
            for frame in decoder.decode(packet):
                parts.append(_samples(frame))
    except (av.FFmpegError, ValueError) as error:
        raise SoundError(f"cannot be decoded ({error})") from error
    if not parts:
        raise SoundError("holds no frame that can be decoded")
    if any(part.shape[1] != header.channels for part in parts):
        raise SoundError(f"has frames that are not of {header.channels} channels")
    samples: npt.NDArray[Any] = np.concatenate(parts)
    if (unused := 8 * samples.itemsize - header.bits) < 0:
        raise SoundError(f"has samples of {8 * samples.itemsize} bits, not {header.bits}")
    return samples >> unused if unused else samples


def _samples(frame: av.AudioFrame) -> npt.NDArray[np.signedinteger]:
    """A view of a frame's samples, int16 or int32 (n, channels)."""
    channels = frame.layout.nb_channels
    plane: Any = frame.planes[0]
    samples: npt.NDArray[Any] = np.frombuffer(plane, dtype=_DTYPES[frame.format.name])
    return samples[: frame.samples * channels].reshape(-1, channels)


def _resampled(samples: npt.NDArray[np.float32], source: int, rate: int, skip: int, n: int) -> npt.NDArray[np.float32]:
    """The `n` samples after the first `skip`, resampled from `source` to `rate` Hz."""
    if source == rate:
        return samples[skip : skip + n]
    made: npt.NDArray[np.float32] = soxr.resample(samples, source, rate, quality="HQ")
    begin = round(skip * rate / source)
    return made[begin : begin + -(-n * rate // source)]
