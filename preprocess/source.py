"""Sources: the raw file (or window of a file) behind each sample, and the error that rejects one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from maskstream.shards.errors import MaskstreamError

PAUSES_S = (1.0, 5.0, 15.0)
"""Seconds to wait between attempts to read a file."""
SOURCE = "source"
"""Group key that keeps all samples of a raw file in the same split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Part of a file between two times.

    Frames and samples belong to it if they begin in [start_s, stop_s), to within a millisecond.

    Attributes:
        start_s: Start in seconds from the beginning of the file, as media players count.
        stop_s: End in seconds; None is the end of the file.
        listed: List and line that define the part, for error messages.
    """

    start_s: float
    stop_s: float | None = None
    listed: str = field(default="", compare=False)

    def __str__(self) -> str:
        until = "the end" if self.stop_s is None else f"{self.stop_s:g} s"
        return f"{self.start_s:g} s to {until}{f' ({self.listed})' if self.listed else ''}"

    def check_end(self, end_s: float) -> None:
        """Raise RejectError if more than 1 s, or half, of the part lies beyond a file's end at `end_s`."""
        if end_s <= self.start_s:
            raise RejectError("check", f"ends at {end_s:.2f} s, before the part from {self}")
        if self.stop_s is not None and self.stop_s - end_s > min(LATE_S, (self.stop_s - self.start_s) / 2):
            raise RejectError("check", f"ends at {end_s:.2f} s, within the part from {self}")


ROUNDING_S = Fraction(1, 1000)
"""Rounding error of times in lists and containers, in seconds."""
LATE_S = 1.0
"""How far a part may exceed its file, in seconds, because lists round to seconds. It is cut at the file's end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One raw file, or a window of it, that becomes one sample.

    Attributes:
        id: Name of the source within the dataset, independent of the dataset's folder.
        path: Raw file; not a real file if `computed`.
        label: Index into the label names; -1 for none.
        window: Range [first, stop) in frames of a video (display order), milliseconds of audio, or the unit that the
            modality's encoder documents. None is the whole file.
        span: Range in seconds, instead of `window`, of a video, audio file or pose sequence.
        meta: Further annotations from the dataset's lists (JSON values), stored in the sample's `json`.
        parts: Further files of the same sample, such as recordings of other microphones.
        computed: Whether the sample is computed from `meta` alone.
        made_by: Importable function that a worker calls with the source to simulate, draw or read the encoder's input
            itself. An error in it rejects the source.
        cut_from: Id of the source that a job cut this one from.
        kept: File that may hold the source's video as encoded when it was cut.
    """

    id: str
    path: Path
    label: int = -1
    window: tuple[int, int] | None = None
    span: Span | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parts: tuple[Path, ...] = ()
    computed: bool = False
    made_by: Callable[[Source], object] | None = None
    cut_from: str = ""
    kept: Path | None = field(default=None, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that the sample is built from."""
        return () if self.computed else (self.path, *self.parts)


class RejectError(MaskstreamError):
    """A source that cannot become a sample.

    Attributes:
        stage: Step that failed: "missing", "open", "decode", "encode" or "check".
        reason: Cause of the failure.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


class DamageError(RejectError):
    """A source is damaged or truncated from some frame on; the frames before it are intact."""


def explain(error: BaseException) -> str:
    """Return the message of an FFmpeg or system error without the file name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
