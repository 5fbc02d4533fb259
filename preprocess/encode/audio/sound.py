"""Reads the sound of a raw file as decoded; nothing is scaled, mixed or resampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.container import InputContainer

from maskstream.preprocess.encode.limits import check_sound, lasts
from maskstream.preprocess.source import RejectError, reason_of
from maskstream.shards.media.local_media import MediaError, open_media

from .truncation import missing_after_decoding, missing_before_decoding

_PRIMING = 3
"""The most priming packets (decoded but not played) at a track's start. If more packets are hidden, an edit list hides
them, and the declared duration may not account for it.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sound:
    """A decoded sound.

    samples: int32 or float32 (n, channels). bits: 8 to 32 for integers, 0 for floats, whose full scale is 1.
    """

    samples: npt.NDArray[np.int32] | npt.NDArray[np.float32]
    bits: int
    sample_rate: int
    codec: str
    container: str


def read_sound(
    source: Path | bytes, window_ms: tuple[int, int] | None = None, *, container: str | None = None
) -> Sound:
    """Decode the first audio track of a file, or its milliseconds [first, stop).

    source: the path or the bytes. container: FFmpeg's name of the format; None probes it. Raises RejectError if there
    is no audio track, or it is damaged, truncated (truncation.py), too long (`Limits`; a sound is held in
    memory as a whole), or changes its format.
    """
    try:
        with open_media(source, container) as opened:
            if not opened.streams.audio:
                raise RejectError("open", "has no audio track")
            lasts((opened.duration or 0) / av.time_base, opened.size)
            is_whole = window_ms is None or opened.format.name == "wav"
            if is_whole and (missing := missing_before_decoding(source, opened.format.name)):
                raise RejectError("decode", f"is truncated: {missing}")
            return _decoded(opened, window_ms)
    except MediaError as error:
        raise RejectError("open", str(error)) from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RejectError("open", f"cannot be opened or decoded ({reason_of(error)})") from error


@dataclass(kw_only=True, slots=True)
class _Track:
    """The part of a track read so far: its format, its frames, and the numbers of samples and of packets (all, corrupt,
    hidden).
    """

    form: tuple[str, int, int] | None = None
    parts: list[npt.NDArray[np.int32] | npt.NDArray[np.float32]] = field(default_factory=list)
    n: int = 0
    packets: int = 0
    corrupt: int = 0
    hidden: int = 0

    def add(self, frame: AudioFrame) -> None:
        """Append a frame. Raises RejectError if its format differs from that of the frames before."""
        self.form = self.form or form_of(frame)
        if form_of(frame) != self.form:
            raise RejectError("decode", f"changes its format from {self.form} to {form_of(frame)}")
        self.parts.append(samples_of(frame))
        self.n += frame.samples
        check_sound(self.n, frame.sample_rate, frame.layout.nb_channels)


def _decoded(container: InputContainer, window_ms: tuple[int, int] | None) -> Sound:
    stream = container.streams.audio[0]
    expected = len(stream.index_entries) if "mov" in container.format.name else 0
    track = _Track()
    ended = _read(container, track, None if window_ms is None else window_ms[1])
    missing = missing_after_decoding(container, track.packets, expected, track.corrupt, track.n) if ended else None
    if track.form is None or track.n == 0:
        raise RejectError("decode", f"is truncated: {missing}" if track.corrupt else "is empty")
    if missing and track.hidden <= _PRIMING:
        raise RejectError("decode", f"is truncated: {missing}")
    samples: npt.NDArray[Any] = np.concatenate(track.parts)
    kind, rate, _ = track.form
    if window_ms is not None:
        samples = samples[window_ms[0] * rate // 1000 : window_ms[1] * rate // 1000]
    bits = 0
    if samples.dtype == np.int32:
        samples, bits = integers(kind, samples)
    name = container.format.name
    return Sound(samples=samples, bits=bits, sample_rate=rate, codec=stream.codec_context.name, container=name)


def _read(container: InputContainer, track: _Track, until_ms: int | None) -> bool:
    """Decode the first track up to a time; returns whether its end was reached. An incomplete packet is an end."""
    stream = container.streams.audio[0]
    try:
        for packet in container.demux(stream):
            track.packets += bool(packet.size)
            track.hidden += packet.is_discard
            if packet.is_corrupt and "mov" in container.format.name:
                track.corrupt += 1
                return True
            for frame in stream.decode(packet):
                track.add(frame)
                if until_ms is not None and track.n >= until_ms * frame.sample_rate // 1000:
                    return False
    except av.FFmpegError as error:
        raise RejectError("decode", f"is damaged after {track.n} samples ({reason_of(error)})") from error
    return True


def form_of(frame: AudioFrame) -> tuple[str, int, int]:
    """Sample format (without FFmpeg's mark of planar formats), rate and channels."""
    return frame.format.name.removesuffix("p"), frame.sample_rate, frame.layout.nb_channels


def samples_of(frame: AudioFrame) -> npt.NDArray[np.int32] | npt.NDArray[np.float32]:
    """The samples of a frame as int32 or float32 (n, channels)."""
    array = frame.to_ndarray()
    channels = frame.layout.nb_channels
    array = array.T if frame.format.is_planar else array.reshape(-1, channels)
    kind = frame.format.name.removesuffix("p")
    if kind == "u8":
        return array.astype(np.int32) - 128
    if kind in ("flt", "dbl"):
        return array.astype(np.float32)
    if kind == "s64":
        return (array.astype(np.int64) >> 32).astype(np.int32)
    return array.astype(np.int32)


def integers(kind: str, samples: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], int]:
    """The samples and their bits. FFmpeg stores 24 bits in the upper bits of 32; they are shifted down."""
    if kind in ("u8", "s16"):
        return samples, 8 if kind == "u8" else 16
    return (samples, 32) if (samples & 0xFF).any() else (samples >> 8, 24)
