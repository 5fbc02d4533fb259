"""Emoji in two drawings, those of Google and of Twitter: 3,781 images of 64 x 64 pixels a style, of nine categories.

They come from the npm packages emoji-datasource-google (74 MB, Apache-2.0) and emoji-datasource-twitter (62 MB,
CC-BY-4.0). The label is Unicode's category; the five swatches of skin tones, which are no emoji, are left out. The
`json` of a sample has the code points (`emoji`), the `name`, the `subcategory` and the `style`: the two samples with
one `emoji` are a pair. All skin tones of an emoji, both drawings, and emoji whose names differ only in man, woman and
person are in one split.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskstream.preprocess.datasets.dataset import Dataset, held_out_groups
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.raw.lists import read_json
from maskstream.preprocess.source import Source
from maskstream.samples.npm import NpmPackage, npm_folder
from maskstream.shards.errors import DatasetError

NAME = "emoji"
STYLES = {
    "google": NpmPackage(
        name="emoji-datasource-google",
        version="16.0.0",
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
    "twitter": NpmPackage(
        name="emoji-datasource-twitter",
        version="16.0.0",
        sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ),
}
LIST = "package/emoji.json"
NO_EMOJI = "Component"
_PERSON = re.compile(r"\b(man|men|male|woman|women|female|person|people|boy|girl|adult)\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class Emoji:
    """One emoji, or one skin tone of it. code: its code points, such as 1F385-1F3FB. image: the name of its file."""

    code: str
    image: str
    name: str
    category: str
    subcategory: str

    @property
    def group(self) -> str:
        """What is in one split with it: its name without words for persons, which all its skin tones share."""
        return " ".join(_PERSON.sub(" ", self.name.lower()).split()) or self.name.lower()


def emoji(root: Path) -> Dataset:
    """The splits, downloaded into `root`. Raises DatasetError if a download fails."""
    drawn: list[tuple[Emoji, str, Path]] = []
    for style in STYLES:
        folder = style_folder(style, root)
        drawn += [(one, style, folder / _images(style) / one.image) for one in listed_emoji(folder, style)]
    label_names = tuple(sorted({one.category for one, _, _ in drawn}))
    val = held_out_groups((label_names.index(one.category), one.group) for one, _, _ in drawn)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for one, style, path in drawn:
        source = Source(
            id=f"{style}/{one.code}",
            path=path,
            label=label_names.index(one.category),
            meta={"emoji": one.code, "name": one.name, "subcategory": one.subcategory, "style": style},
        )
        splits["val" if one.group in val else "train"].append(source)
    return Dataset(name=NAME, label_names=label_names, splits=splits, encoder=ImageEncoder())


def style_folder(style: str, root: Path) -> Path:
    """The folder of the package of a style, downloaded into `root`. Raises DatasetError if the download fails."""
    return npm_folder(STYLES[style], (LIST, _images(style)), root)


def _images(style: str) -> str:
    return f"package/img/{style}/64"


def listed_emoji(folder: Path, style: str) -> Iterator[Emoji]:
    """The emoji of a style that have an image, each skin tone by itself. Raises DatasetError for another list."""
    path = folder / LIST
    listed: list[dict[str, Any]] = read_json(path, f"Remove {path.parents[1]} to download it again")
    try:
        for one in listed:
            if one["category"] == NO_EMOJI:
                continue
            for drawn in (one, *one.get("skin_variations", {}).values()):
                if drawn[f"has_img_{style}"]:
                    yield Emoji(
                        code=drawn["unified"],
                        image=drawn["image"],
                        name=one["name"] or one["short_name"],
                        category=one["category"],
                        subcategory=one["subcategory"],
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{NAME}: {path} is no list of emoji ({error!r}); remove {path.parents[1]}") from error
