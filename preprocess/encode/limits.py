"""Limits on the cost of one source. A source that exceeds one becomes a reject.

Encoders check pixels, frames and audio with the functions of this file, before or while they decode. Executors
supervise time and memory from outside the process (`executors/`). Anything that is not a regular file is refused before
a library opens it: a pipe would wait for its writer forever.

The limits in force belong to the source that is being encoded, like a decimal context to a computation; encoders of any
modality, including your own, need not pass them on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from maskstream.preprocess.executors.base import Attempt
from maskstream.preprocess.source import RejectError
from maskstream.shards.config import Config
from maskstream.shards.flag import RunFlag
from maskstream.shards.limits import Bounds, PositiveFloat, PositiveInt
from maskstream.shards.media.limits import MAX_PIXELS

Pixels = Annotated[int, Bounds(min=1, max=MAX_PIXELS, note="pixels, the most that loaders read")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits(Config):
    """Limits above which sources are rejected. They affect the result, so they belong to a split's settings.

    A crash, a time limit and a memory limit are only detected in worker processes, not with workers=0.

    Attributes:
        time_s: Seconds that encoding a source may take.
        time_per_s: Seconds that encoding may take per second of media, if that is longer.
        frame_pixels: Width x height of a video frame.
        image_pixels: Width x height of an image.
        frames: Decoded frames of a source.
        sound_s: Seconds of audio.
        sound_values: Audio samples x channels, which are held in memory.
        memory_gb: Memory of a worker process in GB; 0: no limit. None: 2 GiB, or 64 times the size of the source's
            files, or the needs of its allowed pixels and audio, whichever is larger.
    """

    time_s: Annotated[
        float,
        RunFlag(
            "Seconds that a source may take, or 20 times its duration if that is longer; slower ones are rejected.",
            "--time-limit",
            min=1,
        ),
    ] = 60.0
    time_per_s: PositiveFloat = 20.0
    frame_pixels: Pixels = 1 << 26
    image_pixels: Pixels = MAX_PIXELS
    frames: PositiveInt = 1 << 20
    sound_s: PositiveFloat = 7200.0
    sound_values: PositiveInt = 1 << 30
    memory_gb: Annotated[
        float | None,
        RunFlag(
            "GB of memory that a worker may use; sources that need more are rejected; 0 sets no limit [default: 2, or "
            "what the size, pixels and audio of the source justify].",
            "--memory-limit",
            min=0,
        ),
    ] = None

    def attempt(self, unit: str, duration_s: float = 0.0, needs_bytes: int = 0) -> Attempt:
        """Return an attempt for an executor to supervise.

        Args:
            unit: Id of the source.
            duration_s: Duration of its media in seconds.
            needs_bytes: Memory that it may need.
        """
        memory_bytes = max(MEMORY_BYTES, needs_bytes) if self.memory_gb is None else round(self.memory_gb * 1e9)
        return Attempt(unit, max(self.time_s, self.time_per_s * duration_s), memory_bytes or None)


MEMORY_BYTES = 2 << 30
"""Memory that any source may use by default."""
MEMORY_PER_BYTE = 64
"""Default memory limit in multiples of a source's size: points and meshes grow to ten to thirty times the size of
LAZ.
"""
_BYTES_PER_PIXEL = 32
"""Upper bound for encoding an image: 16 bits and four channels, and their copies."""
_BYTES_PER_FRAME_PIXEL = 192
"""Upper bound for transcoding a video per pixel of a frame; the decoder and the encoder both hold many frames."""
_BYTES_PER_VALUE = 40
"""Upper bound for encoding audio per value."""
_MIN_BYTES_PER_S = 1000


DEFAULT = Limits()


def _unreported(attempt: Attempt) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Watched:
    unit: str
    limits: Limits
    report: Callable[[Attempt], None]
    duration_s: float = 0.0
    needs_bytes: int = 0

    @property
    def attempt(self) -> Attempt:
        return self.limits.attempt(self.unit, self.duration_s, self.needs_bytes)


_IN_FORCE: ContextVar[_Watched] = ContextVar("limits", default=_Watched("", DEFAULT, _unreported))  # noqa: B039


@contextmanager
def limited(
    unit: str, limits: Limits, report: Callable[[Attempt], None] = _unreported, size_bytes: int = 0
) -> Iterator[None]:
    """Put limits in force for the block, which encodes one source.

    Args:
        unit: Id of the source.
        limits: Limits to apply.
        report: Function that is called with each new attempt.
        size_bytes: Size of the source's files.
    """
    watched = _Watched(unit, limits, report, needs_bytes=MEMORY_PER_BYTE * size_bytes)
    token = _IN_FORCE.set(watched)
    try:
        report(watched.attempt)
        yield
    finally:
        _IN_FORCE.reset(token)


def get_limits() -> Limits:
    """Return the limits of the source that is being encoded; outside of a job, the defaults."""
    return _IN_FORCE.get().limits


def lasts(duration_s: float, size_bytes: int | None = None) -> None:
    """Report the duration of the source's media, which may extend its time limit.

    Args:
        duration_s: Duration in seconds.
        size_bytes: Size of the file whose header declares the duration. It then counts only up to the duration that a
            file of this size can contain.
    """
    watched = _IN_FORCE.get()
    if size_bytes is not None:
        duration_s = min(duration_s, size_bytes / _MIN_BYTES_PER_S)
    _go_on(replace(watched, duration_s=max(duration_s, watched.duration_s)))


def _needs(needs_bytes: int) -> None:
    """Raise the memory limit of the source, which is within another limit."""
    watched = _IN_FORCE.get()
    if needs_bytes > max(MEMORY_BYTES, watched.needs_bytes):
        _go_on(replace(watched, needs_bytes=1 << (needs_bytes - 1).bit_length()))  # in steps, because audio grows


def _go_on(watched: _Watched) -> None:
    """Update the facts about the source, and report them if they change the attempt."""
    before = _IN_FORCE.get().attempt
    _IN_FORCE.set(watched)
    if watched.attempt != before:
        watched.report(watched.attempt)


def check_frame_size(width: int, height: int) -> None:
    """Raise RejectError if a frame of a video is too large."""
    _check(width * height, get_limits().frame_pixels, f"has frames of {width}x{height} = {{}} pixels")
    _needs(_BYTES_PER_FRAME_PIXEL * width * height)


def check_image_size(width: int, height: int) -> None:
    """Raise RejectError if an image is too large."""
    _check(width * height, get_limits().image_pixels, f"has {width}x{height} = {{}} pixels")
    _needs(_BYTES_PER_PIXEL * width * height)


def check_frames(count: int) -> None:
    """Raise RejectError if a source has too many frames."""
    _check(count, get_limits().frames, "has {} frames or more")


def check_sound(n_samples: int, sample_rate: int, channels: int) -> None:
    """Raise RejectError if audio is too long."""
    limits = get_limits()
    if n_samples > limits.sound_s * sample_rate:
        raise RejectError("decode", f"is longer than {limits.sound_s:g} s; cut it into windows")
    check_sound_values(n_samples * channels)


def check_sound_values(count: int) -> None:
    """Raise RejectError if audio takes too much memory."""
    _check(count, get_limits().sound_values, "has {} samples (of all channels) or more")
    _needs(_BYTES_PER_VALUE * count)


def _check(value: int, limit: int, what: str) -> None:
    if value > limit:
        raise RejectError("check", f"{what.format(value)}; the limit is {limit}")


def check_source_file(path: Path) -> None:
    """Raise RejectError if the path is a folder, pipe, socket or device, or cannot be accessed."""
    from maskstream.shards.media.local_media import MediaError, read_regular_size  # it imports av

    try:
        read_regular_size(path)
    except MediaError as error:
        raise RejectError("open", str(error)) from error
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error


def read_source_file(path: Path) -> bytes:
    """Read a source's file.

    Args:
        path: File to read.

    Raises:
        RejectError: This is not a regular file, it cannot be read, or it is empty.
    """
    check_source_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    if not data:
        raise RejectError("open", "is empty: it has 0 bytes")
    return data
