"""Settings for cutting files into clips, and the bounds of each clip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.video.scenes import SceneStart

SCENES, TRANSNET, SILENCE = "scenes", "transnetv2", "silence"
_EVERY = re.compile(r"(\d+(?:\.\d+)?)s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutting:
    """How files are cut into clips.

    Attributes:
        by: "scenes", "transnetv2" (scenes detected by that network), "silence" (audio, at pauses), a length such as
            "10s", or the path of a list with the columns path, start and end.
        min_s: Shortest clip in seconds. Default: 2 s, or half of a length in `by`.
        max_s: Longest clip in seconds; longer scenes, or audio between pauses, are split into equal clips.
    """

    by: str
    min_s: float | None = None
    max_s: float | None = None

    def __post_init__(self) -> None:
        is_list = Path(self.by).suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet")
        if not (self.is_found or is_list) and self.every_s is None:
            raise ValueError(
                f"clips={self.by!r} is not 'scenes', 'transnetv2', 'silence', a number of seconds such as '10s', or a "
                "list (.csv, .tsv, .jsonl, .parquet) with the columns path, start and end"
            )
        if self.every_s is not None and not 0.1 <= self.every_s <= 86400:
            raise ValueError(f"clips={self.by!r} must be from 0.1s to 86400s")
        if not self.is_found and self.max_s is not None:
            raise ValueError("max_clip divides long scenes and sounds; it requires clips='scenes' or 'silence'")
        if not (self.is_found or self.every_s) and self.min_s is not None:
            raise ValueError(
                "min_clip drops short scenes and remainders; leave it out with a list, which defines its own clips"
            )
        if not 0 <= self.least_s <= self.most_s / 2:
            raise ValueError(
                f"min_clip={self.least_s:g} and max_clip={self.most_s:g} do not fit together: min_clip must be at "
                "most half of max_clip, because a scene slightly longer than max_clip is split into two clips"
            )

    @property
    def is_found(self) -> bool:
        """Whether the bounds of clips are detected in the files."""
        return self.by in (SCENES, TRANSNET, SILENCE)

    @property
    def every_s(self) -> float | None:
        """Fixed length of a clip in seconds; None if clips are cut otherwise."""
        found = _EVERY.fullmatch(self.by)
        return float(found[1]) if found else None

    @property
    def least_s(self) -> float:
        """Shortest clip in seconds."""
        return min(2.0, (self.every_s or 4.0) / 2) if self.min_s is None else self.min_s

    @property
    def most_s(self) -> float:
        """Longest clip of a scene in seconds."""
        return (self.every_s or 20.0) * (2 if self.every_s else 1) if self.max_s is None else self.max_s


def describe_cutting(clips: Cutting) -> dict[str, Any]:
    """Return the settings for dataset.json. A list is described only by its name, since the sources contain its
    rows.
    """
    return {**asdict(clips), "min_s": clips.least_s, "max_s": clips.most_s, "by": Path(clips.by).name}


def clip_edges(
    clips: Cutting, starts: Sequence[SceneStart] | None, end_s: float
) -> tuple[list[tuple[float, float | None]], int]:
    """Return start and end of each clip of a file that ends at `end_s`, and the number of black or short sections.

    The last clip ends with the file, so its end is None.
    """
    if starts is None:
        every_s = clips.every_s or end_s
        times = [number * every_s for number in range(max(1, ceil(end_s / every_s - 1e-6)))]
        black = [False] * len(times)
    else:
        times, black = [one.time_s for one in starts], [one.black for one in starts]
    found: list[tuple[float, float | None]] = []
    skipped = 0
    for n, begin_s in enumerate(times):
        is_last = n + 1 == len(times)
        stop_s = end_s if is_last else times[n + 1]
        own = [] if black[n] else compute_scene_edges(clips, begin_s, stop_s, is_last=is_last)
        skipped += not own
        found += own
    return found, skipped


def compute_scene_edges(
    clips: Cutting, begin_s: float, stop_s: float, *, is_last: bool
) -> list[tuple[float, float | None]]:
    """Return start and end of each clip of a scene or of a fixed-length section; none if it is too short."""
    if stop_s - begin_s < clips.least_s - 1e-6:
        return []
    count = ceil((stop_s - begin_s) / clips.most_s - 1e-6) if clips.is_found else 1
    inner = [round(begin_s + (stop_s - begin_s) * number / count, 3) for number in range(count)]
    return list(zip(inner, [*inner[1:], None if is_last else round(stop_s, 3)], strict=True))
