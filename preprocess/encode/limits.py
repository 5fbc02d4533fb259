"""The limits of what one source may cost. A source that passes one becomes a reject.

Those of pixels, frames and sound are checked by encoders, in the functions of this file, before or while they decode.
Those of time and memory are supervised by an executor, from outside of the process (`executors/`). What is no regular
file is refused before a library opens it: a pipe would wait for its writer without end.

The limits in force belong to the source that is encoded, like a decimal context to a computation; encoders of any
modality, and your own, need not pass them on.
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
    """Which sources are too large. They decide which sources are rejected, so they belong to a split's settings.

    time_s, time_per_s: a source may be encoded for `time_s` seconds, or for `time_per_s` seconds per second of its
    media, whichever is longer. frame_pixels: width times height of a video's frame. image_pixels: of an image. frames:
    how many frames of a source are decoded. sound_s: seconds of a sound. sound_values: its samples times its channels,
    which are held in memory. memory_gb: what a worker process may take for itself, in GB; 0: no limit; None: 2 GiB, or
    64 times the size of the source's files if that is more, or what the pixels and sound need that it may have.

    A crash, a time limit and a memory limit are noticed in worker processes only, not with workers=0.
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
        """An attempt at a source of `duration_s` seconds that may need so much memory, as an executor supervises it."""
        memory_bytes = max(MEMORY_BYTES, needs_bytes) if self.memory_gb is None else round(self.memory_gb * 1e9)
        return Attempt(unit, max(self.time_s, self.time_per_s * duration_s), memory_bytes or None)


MEMORY_BYTES = 2 << 30
"""What any source may take by default."""
MEMORY_PER_BYTE = 64
"""So many times its size a source may take by default: points and meshes become ten to thirty times as large as LAZ."""
_BYTES_PER_PIXEL = 32
"""What encoding a picture takes at most: 16 bits and four channels, and their copies."""
_BYTES_PER_FRAME_PIXEL = 192
"""What decoding and encoding a video takes at most for each pixel of a frame, of which both hold many."""
_BYTES_PER_VALUE = 40
"""What encoding a sound takes at most for each value."""
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
    """Put `limits` in force for the block, which encodes the source `unit` of `size_bytes`; `report` gets attempts."""
    watched = _Watched(unit, limits, report, needs_bytes=MEMORY_PER_BYTE * size_bytes)
    token = _IN_FORCE.set(watched)
    try:
        report(watched.attempt)
        yield
    finally:
        _IN_FORCE.reset(token)


def get_limits() -> Limits:
    """The limits of the source that is encoded now; outside of a job, the defaults."""
    return _IN_FORCE.get().limits


def lasts(duration_s: float, size_bytes: int | None = None) -> None:
    """Tell how long the media of the source is, which may give it more time. A duration that a header of a file of
    `size_bytes` declares counts only as far as so many bytes can hold media.
    """
    watched = _IN_FORCE.get()
    if size_bytes is not None:
        duration_s = min(duration_s, size_bytes / _MIN_BYTES_PER_S)
    _go_on(replace(watched, duration_s=max(duration_s, watched.duration_s)))


def _needs(needs_bytes: int) -> None:
    """The source may take so much memory, for it is within another limit."""
    watched = _IN_FORCE.get()
    if needs_bytes > max(MEMORY_BYTES, watched.needs_bytes):
        _go_on(replace(watched, needs_bytes=1 << (needs_bytes - 1).bit_length()))  # in steps, for sounds grow


def _go_on(watched: _Watched) -> None:
    """Put what is known of the source now in force, and report it if it changes the attempt."""
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
    """Raise RejectError if a sound is too long."""
    limits = get_limits()
    if n_samples > limits.sound_s * sample_rate:
        raise RejectError("decode", f"is longer than {limits.sound_s:g} s; cut it into windows")
    check_sound_values(n_samples * channels)


def check_sound_values(count: int) -> None:
    """Raise RejectError if a sound takes too much memory."""
    _check(count, get_limits().sound_values, "has {} samples (of all channels) or more")
    _needs(_BYTES_PER_VALUE * count)


def _check(value: int, limit: int, what: str) -> None:
    if value > limit:
        raise RejectError("check", f"{what.format(value)}; the limit is {limit}")


def check_source_file(path: Path) -> None:
    """Raise RejectError for a folder, a pipe, a socket or a device, and for a file that cannot be looked at."""
    from maskstream.shards.media.local_media import MediaError, read_regular_size  # it imports av

    try:
        read_regular_size(path)
    except MediaError as error:
        raise RejectError("open", str(error)) from error
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error


def read_source_file(path: Path) -> bytes:
    """The bytes of a source's file. Raises RejectError as `check_source_file` does, and for an empty file."""
    check_source_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    if not data:
        raise RejectError("open", "is empty: it has 0 bytes")
    return data
