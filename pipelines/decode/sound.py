"""Decode a segment of audio: from a FLAC member, only the frames that contain it; in a foreign tar, the bytes that its
table lists.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
import soxr

from maskstream.shards.arrays import Float32s, Int64s
from maskstream.shards.errors import DataError
from maskstream.shards.media.flac import FlacHeader, has_more_frames
from maskstream.shards.media.sound_packets import decode_whole, decoded
from maskstream.shards.media.sound_table import (
    CELL,
    HEAD,
    MEMORYLESS,
    PIECE,
    SoundForm,
    SoundHead,
    SoundTableError,
    count_samples,
    group_packets,
    slice_packet,
)
from maskstream.shards.stores.base import Range, Store

_STRAY_FRAMES = 8
"""Maximum number of false frame headers in the frames of a segment."""
MARGIN_S = 0.05
"""Margin in seconds on both sides of a segment with which resampling it equals resampling the whole recording."""

_DTYPES = {"s16": np.int16, "s32": np.int32}
"""Sample formats of libavcodec's FLAC decoder, with interleaved channels."""


class SoundError(DataError):
    """Audio cannot be decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Bytes of whole FLAC frames that contain the samples [first, stop)."""

    header: FlacHeader
    frames: bytes
    n_frames: int
    """Number of frames."""
    at: int
    """Number of the first sample in `frames`."""
    first: int
    stop: int
    low: int
    """First sample including the margin for resampling."""
    high: int
    """End of the samples including the margin for resampling."""
    read_bytes: int
    """Number of bytes read."""


def find_segment_range(member: Range, header: FlacHeader, first: int, stop: int, *, rate: int) -> Range:
    """Return the byte range that `read_segment` reads."""
    _, _, edges = _frames(member, header, first, stop, rate)
    return Range(member.name, member.offset + int(edges[0]), int(edges[-1] - edges[0]))


def read_segment(store: Store, member: Range, header: FlacHeader, first: int, stop: int, *, rate: int) -> Segment:
    """Read the samples [first, stop), at the source's rate, of the FLAC `member` in one read.

    Args:
        store: Store of the shard.
        member: Byte range of the member.
        header: Header from the manifest.
        first: First sample.
        stop: End of the samples.
        rate: Sample rate after later resampling, in Hz.

    Raises:
        StoreError: The frames cannot be read.
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


def _frames(member: Range, header: FlacHeader, first: int, stop: int, rate: int) -> tuple[int, tuple[int, int], Int64s]:
    """Return the number of the frames' first sample, the samples [low, high) to keep, and the frames' offsets with the
    end.
    """
    margin = 0 if rate == header.sample_rate else int(MARGIN_S * header.sample_rate)
    low, high = max(first - margin, 0), min(stop + margin, header.n_samples)
    at, edges = header.frames(low, high, member.size)
    return at, (low, high), edges


def decode_segment(
    segment: Segment, *, rate: int, gain: float, channels: int | Literal["mono"] | None = None
) -> Float32s:
    """Decode the requested samples, float32 (n, channels), scaled by `gain` and resampled to `rate` Hz.

    Args:
        segment: Bytes to decode.
        rate: Output sample rate in Hz.
        gain: Factor of the samples.
        channels: Number of leading channels to keep, "mono" for the mean of all, None for all.

    Raises:
        SoundError: The bytes cannot be decoded, or there are fewer channels.
    """
    header = segment.header
    samples = _decoded(header, segment.frames, segment.n_frames)[segment.low - segment.at : segment.high - segment.at]
    if len(samples) != segment.high - segment.low:
        raise SoundError(f"has only {len(samples)} of the samples {segment.low} to {segment.high}")
    scaled = keep_channels(samples, channels).astype(np.float32)
    scaled *= np.float32(gain / (1 << header.bits - 1))
    skip, n = segment.first - segment.low, segment.stop - segment.first
    return finished(scaled, header.sample_rate, rate, skip, n, mono=channels == "mono")


def keep_channels(samples: npt.NDArray[Any], channels: int | Literal["mono"] | None) -> npt.NDArray[Any]:
    """Return the first `channels` of samples (n, channels), or all for "mono" and None.

    Raises:
        SoundError: There are fewer channels.
    """
    if isinstance(channels, int) and channels > samples.shape[1]:
        raise SoundError(f"has {samples.shape[1]} channels, fewer than channels={channels}; use fewer, or 'mono'")
    return samples[:, : None if channels == "mono" else channels]


def finished(samples: Float32s, source: int, rate: int, skip: int, n: int, *, mono: bool) -> Float32s:
    """Skip `skip` samples and return the next `n`, averaged over channels if `mono`, and resampled to `rate` Hz."""
    channels = samples.shape[1]
    if mono and channels > 1:
        total = samples[:, :1].copy()  # not a matrix product: BLAS would start its own threads
        for channel in range(1, channels):
            total += samples[:, channel : channel + 1]
        samples = total * np.float32(1 / channels)
    return _resample(samples, source, rate, skip, n)


def _decoded(header: FlacHeader, frames: bytes, n_frames: int) -> npt.NDArray[np.signedinteger]:
    """Decode all samples of the FLAC frames, int16 or int32 (n, channels).

    A frame of 12 bytes may decode to 2 MB, so frames that the manifest does not list are counted first.
    """
    if has_more_frames(frames, 2 * n_frames + _STRAY_FRAMES):
        raise SoundError(f"has more frames than the {n_frames} in the manifest")
    decoder = av.CodecContext.create("flac", "r")
    decoder.extradata = header.stream_info
    decoder.thread_count = 1
    decoder.options = {"err_detect": "crccheck+explode"}  # a corrupt frame raises an error
    parts = []
    try:
        for packet in (av.Packet(frames), None):  # one packet may contain several frames
            for frame in decoder.decode(packet):
                parts.append(_samples(frame))
    except (av.FFmpegError, ValueError) as error:
        raise SoundError(f"cannot be decoded ({error})") from error
    if not parts:
        raise SoundError("contains no decodable frame")
    if any(part.shape[1] != header.channels for part in parts):
        raise SoundError(f"has frames that do not have {header.channels} channels")
    samples: npt.NDArray[Any] = np.concatenate(parts)
    if (unused := 8 * samples.itemsize - header.bits) < 0:
        raise SoundError(f"has {8 * samples.itemsize}-bit samples, not {header.bits}-bit")
    return samples >> unused if unused else samples


def _samples(frame: av.AudioFrame) -> npt.NDArray[np.signedinteger]:
    """Return a view of a frame's samples, int16 or int32 (n, channels)."""
    channels = frame.layout.nb_channels
    plane: Any = frame.planes[0]
    samples: npt.NDArray[Any] = np.frombuffer(plane, dtype=_DTYPES[frame.format.name])
    return samples[: frame.samples * channels].reshape(-1, channels)


def _resample(samples: Float32s, source: int, rate: int, skip: int, n: int) -> Float32s:
    """Skip `skip` samples and return the next `n`, resampled from `source` to `rate` Hz."""
    if source == rate:
        return samples[skip : skip + n]
    made: Float32s = soxr.resample(samples, source, rate, quality="HQ")
    begin = round(skip * rate / source)
    return made[begin : begin + -(-n * rate // source)]


MAX_READ = 1 << 26
"""Largest read from a table in bytes; the table of two hours of Opus has a tenth of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Consecutive packets for one decoder. Packets before number `kept` only initialise the decoder's state."""

    packets: list[bytes]
    counts: Int64s
    """int64: number of samples that each packet from `kept` on decodes to."""
    kept: int
    skip: int
    """Samples to skip."""
    n: int
    """Samples to keep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedSegment:
    """Bytes read for the samples [first, stop); [low, high) includes the margins for resampling."""

    form: SoundForm
    runs: list[Run]
    """Runs of packets; empty if the whole member must be decoded."""
    member: bytes
    """The whole member if it can only be decoded completely; else empty."""
    first: int
    stop: int
    low: int
    high: int
    read_bytes: int


@dataclass(kw_only=True, slots=True)
class _Reader:
    """Reads from a table and a member, and counts the bytes."""

    store: Store
    table: tuple[str, int]
    member: Range
    read_bytes: int = 0

    def of_table(self, at: int, size: int) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise SoundTableError(f"it requests a read of {size} bytes; the limit is {MAX_READ}")
        self.read_bytes += size
        return self.store.read(self.table[0], self.table[1] + at, size) if size else b""

    def of_member(self, at: int, size: int) -> bytes:
        name, offset, whole = self.member
        if at < 0 or at + size > whole:
            raise SoundError(
                f"its table refers to bytes {at} to {at + size}, but the member has {whole} bytes; run "
                "`maskstream index` again"
            )
        self.read_bytes += size
        return self.store.read(name, offset + at, size)


def read_indexed(
    store: Store,
    table: tuple[str, int],
    member: Range,
    first: int,
    stop: int,
    *,
    n_samples: int,
    rate: int,
) -> IndexedSegment:
    """Read the samples [first, stop), at the source's rate, of a `member` with `n_samples` samples.

    Args:
        store: Store of the shard.
        table: File and offset of the audio's table.
        member: Byte range of the member.
        first: First sample.
        stop: End of the samples.
        n_samples: Number of samples in the member.
        rate: Sample rate after later resampling, in Hz.

    Raises:
        SoundError: Table and member contradict each other.
        StoreError: They cannot be read.
    """
    reader = _Reader(store=store, table=table, member=member)
    try:
        head = SoundHead.parse(reader.of_table(0, HEAD.itemsize))
        form = head.form(reader.of_table(HEAD.itemsize, head.setup_bytes))
        margin = 0 if rate == head.sample_rate else int(MARGIN_S * head.sample_rate)
        low, high = max(first - margin, 0), min(stop + margin, n_samples)
        runs: list[Run] = []
        whole = b""
        if head.kind == "pcm":
            data = reader.of_member(head.begin + low * head.frame_bytes, (high - low) * head.frame_bytes)
            counts = np.array([high - low])
            runs.append(Run(packets=[data], counts=counts, kept=0, skip=0, n=high - low))
        elif head.kind == "packets":
            runs.extend(_list_runs(reader, head, low, high))
        else:
            whole = reader.of_member(0, member.size)
    except SoundError:
        raise
    except (SoundTableError, IndexError, ValueError) as error:
        raise SoundError(
            f"its table is missing or contradicts itself ({error}); run `maskstream index` again"
        ) from error
    return IndexedSegment(
        form=form,
        runs=runs,
        member=whole,
        first=first,
        stop=stop,
        low=low,
        high=high,
        read_bytes=reader.read_bytes,
    )


def decode_indexed(segment: IndexedSegment, *, rate: int, channels: int | Literal["mono"] | None = None) -> Float32s:
    """Decode the requested samples, float32 (n, channels), resampled to `rate` Hz; full scale is 1.

    Args:
        segment: Bytes to decode.
        rate: Output sample rate in Hz.
        channels: Number of leading channels to keep, "mono" for the mean of all, None for all.

    Raises:
        SoundError: The bytes cannot be decoded, or there are fewer channels.
    """
    try:
        parts = (
            [_decode_member(segment)] if segment.member else [_decode_run(segment.form, run) for run in segment.runs]
        )
        samples: npt.NDArray[Any] = np.concatenate(parts) if len(parts) > 1 else parts[0]
    except (SoundTableError, ValueError) as error:
        raise SoundError(f"cannot be decoded ({error})") from error
    if len(samples) != segment.high - segment.low:
        raise SoundError(f"has only {len(samples)} of the samples {segment.low} to {segment.high}")
    skip, n = segment.first - segment.low, segment.stop - segment.first
    kept: Float32s = keep_channels(samples, channels)
    return finished(kept, segment.form.sample_rate, rate, skip, n, mono=channels == "mono")


def _list_runs(reader: _Reader, head: SoundHead, low: int, high: int) -> Iterator[Run]:
    """Yield the runs of packets that contain the samples [low, high)."""
    first, stop = head.locate_cells(low, high)
    cells = np.frombuffer(reader.of_table(*head.cells_at(first, stop)), CELL)
    begins = [0, *(np.flatnonzero(cells["runs_on"][:-1] == 0) + 1).tolist(), len(cells)]
    for a, b in pairwise(begins):
        begin = max(low, (first + a) * head.cell_samples)
        end = high if b == len(cells) else (first + b) * head.cell_samples
        yield _run(reader, head, cells[a:b], begin, end)


def _run(reader: _Reader, head: SoundHead, cells: npt.NDArray[np.void], low: int, high: int) -> Run:
    """Return the run that contains the samples [low, high) of the `cells`."""
    decode, stop = int(cells["decode"][0]), int(cells["stop"][-1])
    pieces = np.frombuffer(reader.of_table(*head.find_pieces(decode, stop)), PIECE)
    packets = group_packets(pieces)
    kept = int(np.searchsorted(packets, int(cells["packet"][0]) - decode))
    ends = int(cells["sample"][0]) + np.cumsum(count_samples(pieces, packets)[kept:])
    past = kept + int(np.searchsorted(ends, high)) + 1
    before = int(np.searchsorted(ends, low, side="right"))
    skipped = before if head.codec in MEMORYLESS else 0
    packets = packets[kept + skipped if skipped else 0 : past + 1]
    pieces = pieces[packets[0] : packets[-1]]
    packets = packets - packets[0]
    kept = 0 if skipped else kept
    counts = count_samples(pieces, packets)[kept:]
    base, last = int(pieces["start"][0]), pieces[-1]
    data = reader.of_member(base, int(last["start"]) + int(last["size"]) - base)
    at = int(ends[skipped]) - int(counts[0])
    return Run(packets=slice_packet(data, base, pieces, packets), counts=counts, kept=kept, skip=low - at, n=high - low)


def _decode_run(form: SoundForm, run: Run) -> Float32s:
    found: list[Float32s] = []
    counts = [None] * run.kept + run.counts.tolist()
    for part, count in zip(decoded(form, run.packets), counts, strict=True):
        if count is not None and len(part) != count:
            raise SoundTableError("its packets decode to different numbers of samples than at indexing")
        found += [] if count is None else [part]
    samples = np.concatenate(found) if len(found) > 1 else found[0]
    return samples[run.skip : run.skip + run.n]


def _decode_member(segment: IndexedSegment) -> Float32s:
    """Decode a member from its start and keep the samples [low, high)."""
    parts: list[Float32s] = []
    n = 0
    for part in decode_whole(segment.member, segment.form.codec):
        parts.append(part[max(segment.low - n, 0) : segment.high - n])
        n += len(part)
        if n >= segment.high:
            break
    if not parts:
        raise SoundTableError("has no samples")
    return np.concatenate(parts)
