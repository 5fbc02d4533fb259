"""Pictures that have a text file of the same name, as img2dataset and others write them: in folders or in tars.

    ROOT/00000.tar ...                with KEY.jpg, KEY.txt and KEY.json for each picture (WebDataset); not unpacked
    ROOT/train/**/KEY.jpg, KEY.txt    or any folders; val and test in the same way, and without train all is train

The text is the caption. KEY.json, if it is there, is an object whose texts, numbers and truth values go into the
sample's `json`; its `caption` counts where there is no text file. A picture without either is a reject.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.image.picture import IMAGE_SUFFIXES
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.raw.lists import read_json
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.format.sample import Reject

from .dataset import Dataset, in_archives, require_folder
from .folders import media_below, readable, split_folders

NAME = "image-text-folder"
OBTAIN = (
    "Lay the pictures out with a text file of the same name each, as ROOT/train/0001.jpg and ROOT/train/0001.txt, or "
    "put the tars of img2dataset there, as ROOT/00000.tar"
)


@in_archives(".json", ".txt")
def image_text_folder(root: Path) -> Dataset:
    """The splits of pictures with texts. Raises DatasetError if there are none."""
    require_folder(root, name=NAME, obtain=OBTAIN)
    folders = split_folders(root)
    folders = folders if "train" in folders else {"train": root}
    splits: dict[str, list[Source]] = {}
    missing: dict[str, list[Reject]] = {}
    for split, paths in zip(folders, media_below(list(folders.values()), IMAGE_SUFFIXES), strict=True):
        for path in paths:
            name, about = readable(path.relative_to(root)), _about(path)
            if "caption" in about:
                splits.setdefault(split, []).append(Source(id=name, path=path, meta=about))
            else:
                missing.setdefault(split, []).append(Reject(source=name, stage="missing", reason="has no text"))
    if not splits:
        raise DatasetError(f"{NAME}: {root} holds no pictures with a text file of the same name. {OBTAIN}")
    return Dataset(name=NAME, label_names=(), splits=splits, missing=missing, encoder=ImageTextEncoder())


def _about(path: Path) -> dict[str, Any]:
    """What the files beside a picture say: the caption, and more."""
    beside, text = path.with_suffix(".json"), path.with_suffix(".txt")
    try:
        found = read_json(beside, OBTAIN) if beside.is_file() else {}
        about = {key: value for key, value in found.items() if isinstance(value, str | int | float)}
        if text.is_file():
            about["caption"] = text.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise OutageError(f"{text} cannot be read ({error.strerror}); run the same command again") from error
    except AttributeError as error:
        raise DatasetError(f"{beside} holds no object, but a {type(found).__name__}. {OBTAIN}") from error
    caption = about.pop("caption", None)
    return {**about, "caption": " ".join(caption.split())} if isinstance(caption, str) and caption.strip() else about
