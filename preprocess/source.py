"""What becomes one sample: a raw file, or a window of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One raw file, or a window of it, that becomes one sample.

    `id` names it within the dataset, independent of where the dataset lies; `label` indexes the label names, -1 for
    none; `window` is [first, stop), None for the whole file: in frames of a video (in display order), in milliseconds
    of a sound, in what a modality's encoder says of others. `meta` is what else the dataset's lists say of it
    (JSON-able); it goes into the sample's `json`. `parts` are further files of the same sample, such as those of other
    microphones.
    """

    id: str
    path: Path
    label: int = -1
    window: tuple[int, int] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parts: tuple[Path, ...] = ()
