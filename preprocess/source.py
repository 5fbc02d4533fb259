"""A source: the raw file, or the window of one, that becomes a sample; and the error of one that cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from maskstream.shards.errors import MaskstreamError

PAUSES_S = (1.0, 5.0, 15.0)
"""The pauses between the attempts to read a file, in seconds."""
SOURCE = "source"
"""The group of all samples of a raw file, where splits are divided by groups."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """The part of a file between two times, in seconds from its begin, as players count them.

    It has what begins at `start_s` or later and before `stop_s`, to within a millisecond; None is the file's end.
    `listed` names the line that says so, for messages.
    """

    start_s: float
    stop_s: float | None = None
    listed: str = field(default="", compare=False)

    def __str__(self) -> str:
        until = "the end" if self.stop_s is None else f"{self.stop_s:g} s"
        return f"{self.start_s:g} s to {until}{f' ({self.listed})' if self.listed else ''}"

    def check_end(self, end_s: float) -> None:
        """Raise RejectError if a file that ends at `end_s` lacks more than a second, or half, of the part."""
        if end_s <= self.start_s:
            raise RejectError("check", f"ends at {end_s:.2f} s, before the part from {self}")
        if self.stop_s is not None and self.stop_s - end_s > min(LATE_S, (self.stop_s - self.start_s) / 2):
            raise RejectError("check", f"ends at {end_s:.2f} s, within the part from {self}")


ROUNDING_S = Fraction(1, 1000)
"""How far lists and containers round times."""
LATE_S = 1.0
"""So much a part may end behind its file, for lists round to seconds; it then ends with the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One raw file, or a window of it, that becomes one sample.

    `id` names the source within the dataset and does not depend on the dataset's folder. `label` indexes the label
    names; -1 means none. `window` is [first, stop) in frames of a video (display order), in milliseconds of a sound, or
    in the unit that the modality's encoder documents; None takes the whole file. `span` cuts a video, a sound or a
    motion by time instead. `meta` holds further annotations from the dataset's lists (JSON values); they go into the
    sample's `json`. `parts` are further files of the same sample, such as those of other microphones. A source with
    `computed` is made from `meta` alone, and `path` is no file.
    `made_by` is a function of the source, which a worker can import, for what its encoder does not read itself: it
    simulates, draws or reads what the encoder encodes. Its errors are the source's. `cut_from` is the id of the file
    that a job cut it from, `kept` a file that may have its video as it was encoded when it was cut.
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
        """The files that the sample is made from."""
        return () if self.computed else (self.path, *self.parts)


class RejectError(MaskstreamError):
    """A source cannot become a sample.

    `stage` is the step that failed ("missing", "open", "decode", "encode" or "check"); `reason` says why.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


class DamageError(RejectError):
    """The bytes of a source are damaged or cut off from some frame on; those before it are whole."""


def explain(error: BaseException) -> str:
    """The message of an error of FFmpeg or the system, without the file's name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
