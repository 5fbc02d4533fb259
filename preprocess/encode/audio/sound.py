"""The sound of a raw file, as the numbers that its codec gives: nothing is scaled, mixed or resampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.container import InputContainer

from ..reject import RejectError
from .cut_off import lacking_after, lacking_before

MAX_SECONDS = 2 * 3600
"""A sound is held in memory as a whole; longer ones must be cut into windows."""
_PRIMING = 3
"""Packets at the beginning of a track that are decoded and not heard; more are hidden by an edit list, which a
container's length may not take into account.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sound:
    """samples: int32 or float32 (n, channels). bits: of the integers, 8 to 32; 0 for floats in [-1, 1] (or beyond)."""

    samples: npt.NDArray[np.int32] | npt.NDArray[np.float32]
    bits: int
    sample_rate: int
    codec: str
    container: str


def read_sound(
    source: Path | bytes, window_ms: tuple[int, int] | None = None, *, container: str | None = None
) -> Sound:
    """The first audio track of a file, or of it the milliseconds [first, stop) from its beginning.

    source: its path, or all its bytes. container: FFmpeg's name of its format, None to find out. RejectError where
    there is no track, where it is damaged, cut off (cut_off.py) or longer than two hours, or where its form changes.
    """
    try:
        file = BytesIO(source) if isinstance(source, bytes) else str(source)
        with av.open(file, "r", format=container, metadata_errors="ignore") as opened:
            if not opened.streams.audio:
                raise RejectError("open", "has no audio track")
            is_whole = window_ms is None or opened.format.name == "wav"
            if is_whole and (lacking := lacking_before(source, opened.format.name)):
                raise RejectError("decode", f"is cut off: {lacking}")
            return _decoded(opened, window_ms)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RejectError("open", f"cannot be opened or decoded ({words_of(error)})") from error


@dataclass(kw_only=True, slots=True)
class _Track:
    """What has been read of a track: its form, its frames, and how many samples, packets and incomplete packets."""

    form: tuple[str, int, int] | None = None
    parts: list[npt.NDArray[np.int32] | npt.NDArray[np.float32]] = field(default_factory=list)
    n: int = 0
    packets: int = 0
    corrupt: int = 0
    hidden: int = 0

    def add(self, frame: AudioFrame) -> None:
        """A frame; RejectError where it has another form than those before."""
        self.form = self.form or form_of(frame)
        if form_of(frame) != self.form:
            raise RejectError("decode", f"changes its form from {self.form} to {form_of(frame)}")
        self.parts.append(samples_of(frame))
        self.n += frame.samples
        if self.n > MAX_SECONDS * frame.sample_rate:
            raise RejectError("decode", f"is longer than {MAX_SECONDS} s; cut it into windows")


def _decoded(container: InputContainer, window_ms: tuple[int, int] | None) -> Sound:
    stream = container.streams.audio[0]
    expected = len(stream.index_entries) if "mov" in container.format.name else 0
    track = _Track()
    ended = _read(container, track, None if window_ms is None else window_ms[1])
    lacking = lacking_after(container, track.packets, expected, track.corrupt, track.n) if ended else None
    if track.form is None or track.n == 0:
        raise RejectError("decode", f"is cut off: {lacking}" if track.corrupt else "is empty")
    if lacking and track.hidden <= _PRIMING:
        raise RejectError("decode", f"is cut off: {lacking}")
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
    """Decode the first track up to a time; whether it was read to its end. An incomplete packet ends it."""
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
        raise RejectError("decode", f"is damaged after {track.n} samples ({words_of(error)})") from error
    return True


def form_of(frame: AudioFrame) -> tuple[str, int, int]:
    """Sample format (planar or not is one), rate, channels."""
    return frame.format.name.removesuffix("p"), frame.sample_rate, frame.layout.nb_channels


def samples_of(frame: AudioFrame) -> npt.NDArray[np.int32] | npt.NDArray[np.float32]:
    """A frame as int32 or float32 (n, channels)."""
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
    """The samples and their bits: FFmpeg holds 24 bits in the upper ones of 32."""
    if kind in ("u8", "s16"):
        return samples, 8 if kind == "u8" else 16
    return (samples, 32) if (samples & 0xFF).any() else (samples >> 8, 24)


def words_of(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
