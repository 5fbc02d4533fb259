"""Raw data that tests make: files whose folders are made with them, archives, and what a dataset finds in them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest

from maskstream.preprocess.datasets import DATASETS, Dataset
from maskstream.shards.errors import DatasetError


def put(path: Path, contents: object = b"") -> Path:
    """Writes bytes, a text, an array, or anything else as JSON: a line for each row of a .jsonl file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(contents, np.ndarray):
        np.save(path, contents)
    elif isinstance(contents, bytes):
        path.write_bytes(contents)
    elif isinstance(contents, str):
        path.write_text(contents)
    elif path.suffix == ".jsonl" and isinstance(contents, list):
        path.write_text("".join(f"{json.dumps(row)}\n" for row in contents))
    else:
        path.write_text(json.dumps(contents))
    return path


def put_all(root: Path, files: Mapping[str, object]) -> None:
    """Writes files below a root, by their names."""
    for name, contents in files.items():
        put(root / name, contents)


def touch(root: Path, *names: str) -> None:
    """Writes empty files below a root."""
    put_all(root, dict.fromkeys(names, b""))


Files = Mapping[str, bytes] | Iterable[tuple[str, bytes]]


def tar_of(files: Files, mode: str = "w", form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of files; a name may stand there twice."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as tar:
        for name, data in files.items() if isinstance(files, Mapping) else files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_000_000_000
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def labelled(dataset: Dataset) -> dict[str, list[tuple[str, str | None]]]:
    """The id of each source of each split, and the name of its label."""
    return {
        split: [(source.id, dataset.label_names[source.label] if source.label >= 0 else None) for source in sources]
        for split, sources in dataset.splits.items()
    }


def refused(name: str, root: Path) -> str:
    """What a dataset that cannot be listed says."""
    with pytest.raises(DatasetError) as caught:
        DATASETS[name](root)
    return str(caught.value)
