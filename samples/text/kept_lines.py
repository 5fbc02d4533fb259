"""Datasets whose documents are extracted from a package once, and stored as lines below the root folder."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.datasets.documents import documents
from maskstream.preprocess.encode.text.encoder import LINES

Lines = Iterable[Mapping[str, Any]]


def kept_lines(name: str, root: Path, make: Callable[[Path], Lines]) -> Dataset:
    """Read the dataset of the documents of ROOT/documents/NAME.jsonl, which `make(root)` creates if it is missing.

    The file appears when it is complete. To recreate it, delete it.
    """
    path = root / "documents" / f"{name}{LINES}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{json.dumps(line, ensure_ascii=False)}\n" for line in make(root))
        partial.replace(path)
    return documents(path.parent, name=name, suffix=LINES, obtain=f"Delete {path} and try again")


def choose_split(group: str, share: float) -> str:
    """Return the split of a group of similar documents: a fraction `share` of all groups are val, by the hash of their
    names.
    """
    return "val" if xxhash.xxh3_64_intdigest(group.encode()) < share * 2**64 else "train"
