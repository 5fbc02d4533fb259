"""Animated sprites of the game Battle for Wesnoth: short clips of units that attack, die, idle, move or shoot.

They are downloaded as Debian's wesnoth-1.18-data (128 MB, GPL-2+ and CC-BY-SA-4.0). A copy of its folder
data/core/images may be put at ROOT/wesnoth-1.18-data. A clip is a series of four or more numbered images, at ten frames
per second on a grey ground; the clips are written to ROOT/clips once. The label is the action in the file's name. All
clips of a unit, with its directions and its female and mounted variants, are in one split.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import xxhash

from maskstream.preprocess.datasets.dataset import Dataset, held_out_groups
from maskstream.preprocess.datasets.folders import media_paths
from maskstream.preprocess.encode.video.encoder import UInt8s, write_clip
from maskstream.preprocess.source import Source
from maskstream.samples.debian import debian_folder
from maskstream.samples.image.wesnoth_terrain import INSIDE, PACKAGE
from maskstream.shards.errors import DatasetError

NAME = "wesnoth-units"
FPS = 10
FEWEST = 4
ACTIONS = {
    "die": ("die", "death", "dying"),
    "ranged": ("ranged", "bow", "crossbow", "sling", "throw", "javelin"),
    "attack": ("attack", "melee"),
    "idle": ("idle", "stand", "standing", "bob"),
    "move": ("move", "moving", "run", "fly", "flying"),
}
"""The words of a name that decide its label; the first that is found does."""
LABELS = tuple(sorted(ACTIONS))
_NUMBERED = re.compile(r"(.+?)-?(\d+)")
_VARIANT = re.compile(r"(\+female|-mounted|-([ns]|[ns][ew]))+$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Animation:
    """A series of numbered images. name: their common path without number; unit: without action and variant."""

    name: str
    label: int
    unit: str
    frames: tuple[Path, ...]


def wesnoth_units(root: Path) -> Dataset:
    """The splits, downloaded into `root`. Raises DatasetError if the download fails."""
    units = debian_folder(PACKAGE, INSIDE, root) / "units"
    found = animations(units)
    if not found:
        raise DatasetError(f"{NAME}: {units} holds no numbered images; remove {units.parent} to download it again")
    val = held_out_groups((0, animation.unit) for animation in found)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for animation in found:
        path = root / "drawn" / f"{animation.name.replace('/', '_')}.mkv"
        if not path.is_file():
            write_clip([_rgba(frame) for frame in animation.frames], path, fps=FPS)
        source = Source(id=animation.name, path=path, label=animation.label, meta={"unit": animation.unit})
        splits["val" if animation.unit in val else "train"].append(source)
    return Dataset(name=NAME, label_names=LABELS, splits=splits)


def animations(units: Path) -> list[Animation]:
    """The animations below a folder whose names have an action, each with the order of its numbers; equal ones once."""
    series: dict[str, list[tuple[int, Path]]] = {}
    for path in media_paths(units, {".png"}):
        if numbered := _NUMBERED.fullmatch(path.stem):
            name = (path.parent.relative_to(units) / numbered[1]).as_posix()
            series.setdefault(name, []).append((int(numbered[2]), path))
    made, seen = [], set()
    for name, frames in series.items():
        action = _action(name.rpartition("/")[2])
        if len(frames) < FEWEST or action is None:
            continue
        paths = tuple(path for _, path in sorted(frames))
        digest = xxhash.xxh3_128_digest(b"".join(path.read_bytes() for path in paths))
        if digest not in seen:
            seen.add(digest)
            label, before = action
            race = name.partition("/")[0]
            unit = f"{race}/{_VARIANT.sub('', before)}"
            made.append(Animation(name=name, label=LABELS.index(label), unit=unit, frames=paths))
    return made


def _action(name: str) -> tuple[str, str] | None:
    """The label of a name, and what is before its first word of an action; None if it has no such word or no unit."""
    words = name.split("-")
    known = {word for some in ACTIONS.values() for word in some}
    first = next((n for n, word in enumerate(words) if word in known), 0)
    label = next((label for label, some in ACTIONS.items() if any(word in some for word in words[first:])), None)
    return (label, "-".join(words[:first])) if first and label else None


def _rgba(path: Path) -> UInt8s:
    """The pixels of a PNG, uint8 (H, W, 4), RGBA."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8:
        raise DatasetError(f"{NAME}: {path} is no image of 8 bits; remove it, or its folder to download it again")
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGBA).astype(np.uint8, copy=False)
    code = cv2.COLOR_BGR2RGBA if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(pixels, code).astype(np.uint8, copy=False)
