"""The sound of a raw file, as the numbers that its codec gives: nothing is scaled, mixed or resampled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.container import InputContainer

from .reject import RejectError

MAX_SECONDS = 2 * 3600
"""A sound is held in memory as a whole; longer ones must be cut into windows."""
_EXACT_LENGTH = frozenset({"w64", "flac", "aiff", "au", "caf"})
"""Containers that say how many samples there are, so that one that was cut off shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sound:
    """samples: int32 or float32 (n, channels). bits: of the integers, 8 to 32; 0 for floats in [-1, 1] (or beyond)."""

    samples: npt.NDArray[np.int32] | npt.NDArray[np.float32]
    bits: int
    sample_rate: int
    codec: str
    container: str


def read_sound(path: Path, window_ms: tuple[int, int] | None = None) -> Sound:
    """The first audio track of the file, or of it the milliseconds [first, stop) from its beginning.

    RejectError where there is none, where it is damaged, cut off or longer than two hours, or where its form changes.
    """
    try:
        with av.open(str(path), "r", metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise RejectError("open", "has no audio track")
            if container.format.name == "wav" and (lacking := missing_bytes(path)) > 0:
                raise RejectError("decode", f"is cut off: its header promises {lacking} bytes more")
            return _decoded(container, window_ms)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RejectError("open", f"cannot be opened or decoded ({words_of(error)})") from error


def missing_bytes(path: Path) -> int:
    """How many bytes of its data chunk a RIFF file lacks; FFmpeg does not mind. 0 for other files and for streams,
    whose headers promise nothing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return 0
        file.seek(12)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return 0 if length in (0, 0xFFFFFFFF) else max(0, file.tell() + length - size)
            file.seek(length + length % 2, 1)
    return 0


def _decoded(container: InputContainer, window_ms: tuple[int, int] | None) -> Sound:
    stream = container.streams.audio[0]
    parts: list[npt.NDArray[np.int32] | npt.NDArray[np.float32]] = []
    form: tuple[str, int, int] | None = None
    n, wanted = 0, None
    try:
        for frame in container.decode(stream):
            if form is None:
                form = form_of(frame)
                wanted = None if window_ms is None else window_ms[1] * frame.sample_rate // 1000
            if form_of(frame) != form:
                raise RejectError("decode", f"changes its form from {form} to {form_of(frame)}")
            parts.append(samples_of(frame))
            n += frame.samples
            if n > MAX_SECONDS * frame.sample_rate:
                raise RejectError("decode", f"is longer than {MAX_SECONDS} s; cut it into windows")
            if wanted is not None and n >= wanted:
                break
    except av.FFmpegError as error:
        raise RejectError("decode", f"is damaged after {n} samples ({words_of(error)})") from error
    if form is None or n == 0:
        raise RejectError("decode", "is empty")
    name = container.format.name
    _check_whole(container, name, n if wanted is None else None, form[1])
    samples: npt.NDArray[Any] = np.concatenate(parts)
    if window_ms is not None:
        samples = samples[window_ms[0] * form[1] // 1000 : wanted]
    bits = 0
    if samples.dtype == np.int32:
        samples, bits = integers(form[0], samples)
    return Sound(samples=samples, bits=bits, sample_rate=form[1], codec=stream.codec_context.name, container=name)


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


def _check_whole(container: InputContainer, name: str, n: int | None, rate: int) -> None:
    """RejectError where the container promises more than there is."""
    stream = container.streams.audio[0]
    if n is None or name not in _EXACT_LENGTH or not stream.duration or stream.time_base is None:
        return
    promised = float(stream.duration * stream.time_base)
    if n < (promised - 0.05) * rate:
        raise RejectError("decode", f"is cut off: {n / rate:.2f} s of {promised:.2f} s are there")


def words_of(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
