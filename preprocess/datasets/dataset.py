"""What a raw dataset is: named splits of sources, and label names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ...shards.errors import DatasetError
from ...shards.sample import Reject

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv .y4m".split()
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One raw file, or a window of it, that becomes one sample.

    `id` names it within the dataset, independent of where the dataset lies; `label` indexes the label names, -1 for
    none; `window` is [first, stop) in frames of the source in display order, None for the whole file.
    """

    id: str
    path: Path
    label: int = -1
    window: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """The sources of each split, and per split those that its lists name but the disk does not hold."""

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, list[Source]]
    missing: dict[str, list[Reject]] = field(default_factory=dict)


def split_present(listed: Iterable[Source], *, what: str, root: Path, obtain: str) -> tuple[list[Source], list[Reject]]:
    """The sources whose files exist, and a reject for each of the others; DatasetError where none exists."""
    present: list[Source] = []
    missing: list[Reject] = []
    for source in listed:
        if source.path.is_file():
            present.append(source)
        else:
            missing.append(Reject(source=source.id, stage="missing", reason=f"no file {_below(source.path, root)}"))
    if not present:
        example = f", such as {missing[0].source}" if missing else ""
        raise DatasetError(f"{root}: none of the {len(missing)} videos of {what}{example} is there. {obtain}")
    return present, missing


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def videos_below(folder: Path) -> list[Path]:
    """All video files below a folder by their endings, sorted; hidden files and folders are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    shown = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(path for path in shown if path.is_file())


def first_existing(root: Path, *candidates: str) -> Path | None:
    """The first of the relative paths (they may be patterns) that exists below `root`."""
    for candidate in candidates:
        found = sorted(root.glob(candidate))
        if found:
            return found[0]
    return None


def require_root(root: Path, *, name: str, obtain: str) -> None:
    """DatasetError where the folder of a dataset is not there."""
    if not root.is_dir():
        raise DatasetError(f"{name}: there is no folder {root}. {obtain}")
