"""Parquet files with a column of images, sounds or videos, as the Hugging Face Hub keeps datasets.

Files anywhere below ROOT, named after their splits: `data/train-00000-of-00005.parquet`, `validation/0000.parquet`; if
none is, all are train. The column is the one that the file's metadata say is an Image, Audio or Video, else the one
that is named so; it holds the bytes of a file in each row. The label is the column `label`, else the one that the
metadata say is a ClassLabel, of names or numbers. Other columns of text, numbers and truth values go into the sample's
`json`, for `fields=`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...shards.errors import DatasetError, OutageError
from ..encode.audio.encoder import AudioEncoder
from ..encode.encoder import Encoder
from ..encode.image.encoder import ImageEncoder
from ..encode.video.encoder import VideoEncoder
from ..source import Source
from .class_folders import SPLIT_FOLDERS
from .dataset import Dataset, label_doubt, require_folder
from .folders import media_paths, readable

OBTAIN = (
    "Get a dataset with `hf download --repo-type dataset USER/NAME --local-dir ROOT`, so that there is "
    "ROOT/data/train-00000-of-00001.parquet"
)
_KINDS = {
    "image": ("Image", (".jpg", "image", "img", "jpg", "png"), ImageEncoder),
    "audio": ("Audio", (".wav", "audio", "sound", "wav", "flac"), AudioEncoder),
    "video": ("Video", (".mp4", "video", "mp4"), VideoEncoder),
}
"""Per kind the type in the metadata, the ending of a row's name, and the names of its column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """A file: its column of media, the column of labels ("" for none) with their names, and the columns for `json`."""

    path: Path
    media: str
    label: str
    names: tuple[str, ...]
    others: tuple[str, ...]


def parquet_media(root: Path, kind: str) -> Dataset:
    """The splits of files with a column of a kind. Raises DatasetError for another layout."""
    name = f"parquet-{kind}"
    require_folder(root, name=name, obtain=OBTAIN)
    paths = media_paths(root, {".parquet"})
    if not paths:
        raise DatasetError(f"{name}: {root} holds no Parquet files. {OBTAIN}")
    splits = _splits(root, paths, name)
    tables = [_table(path, kind, name) for path in paths]
    rows = [(table, row) for table in tables for row in _rows(table)]
    names = max((table.names for table in tables), key=len) or _names(row.get("label") for _, row in rows)
    numbers = {label: number for number, label in enumerate(names)}
    listed: dict[str, list[Source]] = {}
    for table, row in rows:
        ending = _KINDS[kind][1][0]
        where = readable(table.path.relative_to(root))
        source = Source(
            id=f"{where}:{row['row']}",
            path=table.path.absolute().with_name(f"{table.path.name}!") / table.media / f"{row['row']}{ending}",
            label=_number(row.get("label"), numbers, table.path),
            meta=row["json"],
        )
        listed.setdefault(splits[table.path], []).append(source)
    encoder: Encoder = _KINDS[kind][2]()
    labelled = any(table.label for table in tables)
    doubt = label_doubt(listed, names, f"{kind} rows", OBTAIN) if labelled else ""
    return Dataset(name=name, label_names=names, splits=listed, encoder=encoder, doubt=doubt)


parquet_image = partial(parquet_media, kind="image")
parquet_audio = partial(parquet_media, kind="audio")
parquet_video = partial(parquet_media, kind="video")


def _splits(root: Path, paths: list[Path], name: str) -> dict[Path, str]:
    """The split of each file, by the first word of its name or of a folder's."""
    found: dict[Path, str] = {}
    for path in paths:
        words = [re.split(r"[^a-z]", part.lower())[0] for part in reversed(path.relative_to(root).parts)]
        split = next((split for word in words for split, names in SPLIT_FOLDERS.items() if word in names), None)
        if split is not None:
            found[path] = split
    if not found:
        return dict.fromkeys(paths, "train")
    if left := [path for path in paths if path not in found]:
        raise DatasetError(f"{name}: {left[0]} is not named after a split, but others are; rename it or move it away")
    return found


def _table(path: Path, kind: str, name: str) -> _Table:
    try:
        schema = pq.read_schema(path)
    except pa.ArrowException as error:
        raise DatasetError(f"{name}: {path} is no Parquet file, or damaged ({error}). {OBTAIN}") from error
    except OSError as error:
        raise OutageError(f"{path} cannot be read ({error.strerror or error}); run the same command again") from error
    features = _features(schema)
    typed, (_, *usual) = _KINDS[kind][0], _KINDS[kind][1]
    media = [column for column in schema.names if features.get(column, {}).get("_type") == typed]
    media = media or [column for column in usual if column in schema.names]
    if len(media) != 1:
        raise DatasetError(
            f"{name}: {path} has {len(media) or 'no'} columns of the kind {kind} ({', '.join(media) or 'none'}), of "
            f"the columns {', '.join(schema.names)[:200]}; one is needed, called {kind}"
        )
    classes = [column for column in schema.names if features.get(column, {}).get("_type") == "ClassLabel"]
    label = "label" if "label" in schema.names else (classes[0] if classes else "")
    found = features.get(label, {}).get("names") or ()
    others = [
        field.name
        for field in schema
        if field.name not in (media[0], label)
        and (
            pa.types.is_string(field.type)
            or (pa.types.is_primitive(field.type) and not pa.types.is_temporal(field.type))
        )
    ]
    return _Table(path=path, media=media[0], label=label, names=tuple(map(str, found)), others=tuple(others))


def _features(schema: Any) -> dict[str, Any]:
    """The features that `datasets` wrote into the metadata; {} if it did not write the file."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _rows(table: _Table) -> Iterator[dict[str, Any]]:
    """The rows of a file: their number, label and contents for `json`."""
    with pq.ParquetFile(table.path) as file:
        columns = [*([table.label] if table.label else []), *table.others]
        found = file.read(columns=columns).to_pylist() if columns else [{}] * file.metadata.num_rows
    for number, row in enumerate(found):
        about = {name: row[name] for name in table.others if row[name] is not None}
        yield {"row": number, "label": row.get(table.label), "json": about}


def _names(labels: Iterator[Any]) -> tuple[str, ...]:
    """The sorted names among labels; of numbers, all up to the largest."""
    given = {label for label in labels if label is not None}
    if given and all(isinstance(label, int) for label in given):
        return tuple(map(str, range(max(given) + 1)))
    return tuple(sorted(map(str, given)))


def _number(label: Any, numbers: dict[str, int], path: Path) -> int:
    if label is None:
        return -1
    if isinstance(label, int) and -1 <= label < len(numbers):
        return label
    if str(label) not in numbers:
        raise DatasetError(
            f"{path}: the label {str(label)[:80]!r} is none of {len(numbers)}; legal are names or numbers"
        )
    return numbers[str(label)]
