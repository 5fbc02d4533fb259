"""Parquet files with a column of images, audio or videos, as the Hugging Face Hub stores datasets.

Files may lie anywhere below ROOT and are named after their splits: `data/train-00000-of-00005.parquet`,
`validation/0000.parquet`; if none is, all are train. The media column is the one with the type Image, Audio or Video in
the file's metadata, else the one with a usual name; each row contains the bytes of a file. The label is the column
`label`, else the one with the type ClassLabel, of names or numbers. A number of a ClassLabel stands for its name, so
files may number their classes differently: classes are numbered as in the file with most names, followed by the further
classes of the other files. Other columns of text, numbers and booleans go into the sample's `json`, for `fields=`; a
column whose name is reserved there, such as `source` or `crop`, is renamed to `column_crop`.

parquet-image-text also reads texts: the columns caption, question, answer, choice, rationale, phrase and passage, with
a text or a list of texts in each row; without them, a column such as `text` or `captions` is the caption.
`conversations` in LLaVA's format are questions and answers.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.raw.lists import MAX_LABEL, read_hf_features
from maskstream.preprocess.raw.parquet_rows import is_outage
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.members.text import ROLES

from .dataset import Dataset, label_doubt, reads_media, require_folder
from .folders import SPLIT_FOLDERS, list_media, readable
from .image_folders import CAPTION, CAPTIONS, CONVERSATIONS, parse_conversation

OBTAIN = (
    "Get a dataset with `hf download --repo-type dataset USER/NAME --local-dir ROOT`, so that there is "
    "ROOT/data/train-00000-of-00001.parquet"
)
_KINDS = {
    "image": ("Image", (".jpg", "image", "img", "jpg", "png"), ImageEncoder),
    "audio": ("Audio", (".wav", "audio", "sound", "wav", "flac"), AudioEncoder),
    "video": ("Video", (".mp4", "video", "mp4"), VideoEncoder),
    "image-text": ("Image", (".jpg", "image", "img", "jpg", "png"), ImageTextEncoder),
}
"""For each kind: the type in the metadata, the suffix and the usual names of its column, and its encoder."""
log = logging.getLogger(__name__)
_TAKEN = frozenset({"crop", "episode", "key", "label", "source"})
"""Names that encoders read from a source's metadata, or write into a sample's json; columns must not override them."""
_ROWS = 256
"""Rows that are read at a time."""
MAX_LISTED_BYTES = 1 << 30
"""Largest total size of the columns for `json`, which stay in memory until they are encoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """A file: its media column, its label column ("" for none) with the label names, and the columns for `json` with
    their names there.
    """

    path: Path
    media: str
    label: str
    names: tuple[str, ...]
    others: Mapping[str, str]


@reads_media
def read_parquet_media(root: Path, kind: str) -> Dataset:
    """Read images, audio or videos from Parquet files, as the Hugging Face Hub stores datasets.

    Args:
        root: Folder of the raw data.
        kind: "image", "audio", "video" or "image-text".

    Raises:
        DatasetError: The folder has another layout.
        OutageError: A file cannot be read for now.
    """
    name = f"parquet-{kind}"
    require_folder(root, name=name, obtain=OBTAIN)
    paths = list_media(root, {".parquet"})
    if not paths:
        raise DatasetError(f"{name}: {root} contains no Parquet files. {OBTAIN}")
    splits = _name_splits(root, paths, name)
    tables = [_read_table(path, kind, name) for path in paths]
    room = _Room(name)
    rows = [(table, row) for table in tables for row in _rows(table, room)]
    labels = [_label(table, row) for table, row in rows]
    named = sorted((table.names for table in tables), key=len, reverse=True)
    names = tuple(dict.fromkeys(chain(*named))) or _names(rows, labels)
    _check_kinds(tables, rows, labels)
    numbers = {label: number for number, label in enumerate(names)}
    listed: dict[str, list[Source]] = {}
    for (table, row), label in zip(rows, labels, strict=True):
        ending = _KINDS[kind][1][0]
        where = readable(table.path.relative_to(root))
        source = Source(
            id=f"{where}:{row['row']}",
            path=table.path.absolute().with_name(f"{table.path.name}!") / table.media / f"{row['row']}{ending}",
            label=_number(label, numbers, _place(table, row)),
            meta=row["json"],
        )
        listed.setdefault(splits[table.path], []).append(source)
    encoder: Encoder = _KINDS[kind][2]()
    labelled = any(table.label for table in tables) and kind != "image-text"
    if kind == "image" and (texts := sorted({*CAPTIONS} & {one for table in tables for one in table.others.values()})):
        log.warning(
            "parquet-image: the column %r becomes a field of the samples. To pair images and texts for "
            "image_text_loader, use the dataset parquet-image-text",
            texts[0],
        )
    doubt = label_doubt(listed, names, f"{kind} rows", OBTAIN) if labelled else ""
    return Dataset(name=name, label_names=names, splits=listed, encoder=encoder, doubt=doubt)


parquet_image = partial(read_parquet_media, kind="image")
parquet_audio = partial(read_parquet_media, kind="audio")
parquet_video = partial(read_parquet_media, kind="video")
parquet_image_text = partial(read_parquet_media, kind="image-text")


def _name_splits(root: Path, paths: list[Path], name: str) -> dict[Path, str]:
    """Return the split of each file, by the first word of its name or of a folder's name."""
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


def _read_table(path: Path, kind: str, name: str) -> _Table:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        if is_outage(error):
            raise OutageError(f"{path} cannot be read ({error}); run the same command again") from error
        raise DatasetError(f"{name}: {path} is damaged or not a Parquet file ({error}). {OBTAIN}") from error
    media = _find_media(schema, path, kind, name)
    label, names = _find_labels(schema, path, name)
    others = {
        field.name: f"column_{field.name}" if field.name in _TAKEN else field.name
        for field in schema
        if field.name not in (media, label)
        and (
            pa.types.is_string(field.type)
            or (pa.types.is_primitive(field.type) and not pa.types.is_temporal(field.type))
        )
    }
    if kind == "image-text":
        others |= _find_texts(schema, path)
    return _Table(path=path, media=media, label=label, names=names, others=others)


def _find_media(schema: pa.Schema, path: Path, kind: str, name: str) -> str:
    """Return the column of media of a kind."""
    features = read_hf_features(schema)
    typed, (_, *usual) = _KINDS[kind][0], _KINDS[kind][1]
    media = [column for column in schema.names if features.get(column, {}).get("_type") == typed]
    media = media or [column for column in usual if column in schema.names]
    if len(media) != 1:
        raise DatasetError(
            f"{name}: {path} has {len(media) or 'no'} columns of type {kind} ({', '.join(media) or 'none'}) among "
            f"{', '.join(schema.names)[:200] or 'none'}; it needs exactly one, named {usual[0]}"
        )
    if not _is_media(schema.field(media[0]).type):
        raise DatasetError(
            f"{name}: the column {media[0]!r} of {path} is {str(schema.field(media[0]).type)[:80]}; each row must "
            "contain the bytes of a file, either directly or as `bytes` in a struct"
        )
    return str(media[0])


def _find_labels(schema: pa.Schema, path: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the column of labels, "" if there is none, and the names that the metadata define."""
    features = read_hf_features(schema)
    classes = [column for column in schema.names if features.get(column, {}).get("_type") == "ClassLabel"]
    label = "label" if "label" in schema.names else (classes[0] if classes else "")
    if label and not _is_label(schema.field(label).type):
        raise DatasetError(
            f"{name}: the column {label!r} of {path} is {str(schema.field(label).type)[:80]}; it must contain names or "
            "numbers"
        )
    found = features.get(label, {}).get("names") or ()
    if not isinstance(found, list | tuple) or len(found) > MAX_LABEL:
        raise DatasetError(
            f"{name}: the metadata of {path} contains the labels {str(found)[:80]!r}; they must be a list of names"
        )
    if twice := next((name for name, count in Counter(map(str, found)).items() if count > 1), None):
        raise DatasetError(
            f"{name}: the metadata of {path} contains the label {twice!r} twice; use a unique name for each class"
        )
    return label, tuple(map(str, found))


def _find_texts(schema: pa.Schema, path: Path) -> dict[str, str]:
    """Return the columns of texts with their names in `json`: columns of roles, or the one that is the caption."""
    texts = [field.name for field in schema if _is_text(field.type)]
    found = {column: column for column in texts if column in ROLES}
    if not found and (caption := next((name for name in CAPTIONS if name in texts), None)):
        found = {caption: CAPTION}
    if CONVERSATIONS in schema.names:
        found[CONVERSATIONS] = CONVERSATIONS
    if not found:
        raise DatasetError(
            f"parquet-image-text: {path} has the columns {', '.join(schema.names)[:200] or 'none'}, but none with "
            f"texts; use {', '.join(ROLES)}, or one of {', '.join(CAPTIONS)}, or {CONVERSATIONS}"
        )
    return found


def _is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type contains texts, or lists of texts."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_media(kind: Any) -> bool:
    """Return whether a column of this type can contain bytes; a column of nulls yields rejects."""
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_media(kind.field(place).type)
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return bool(is_binary or pa.types.is_null(kind))


def _is_label(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_label(kind.value_type)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(
        is_text
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    )


class _Room:
    """The number of bytes that the columns for `json` may still use."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = MAX_LISTED_BYTES

    def take(self, path: Path, batch: pa.RecordBatch) -> None:
        """Subtract a batch of rows. Raise DatasetError if it does not fit."""
        self._left -= batch.nbytes
        if self._left < 0:
            raise DatasetError(
                f"{self._name}: up to {path}, the columns besides the media exceed {MAX_LISTED_BYTES} bytes "
                f"({', '.join(batch.schema.names)[:200]}); remove large columns"
            )


def _rows(table: _Table, room: _Room) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file: their number, label and contents for `json`."""
    columns = [*([table.label] if table.label else []), *table.others]
    number = 0
    try:
        with pq.ParquetFile(table.path) as file:
            if not columns:
                yield from ({"row": row, "label": None, "json": {}} for row in range(file.metadata.num_rows))
                return
            for batch in file.iter_batches(_ROWS, columns=columns):
                room.take(table.path, batch)
                for row in batch.to_pylist():
                    about = {own: row[name] for name, own in table.others.items() if row[name] is not None}
                    if CONVERSATIONS in about:
                        about |= parse_conversation(about.pop(CONVERSATIONS), f"{table.path}: row {number}")
                    yield {"row": number, "label": row.get(table.label), "json": about}
                    number += 1
    except (pa.ArrowException, ValueError, OSError) as error:
        if is_outage(error):
            raise OutageError(f"{table.path} cannot be read ({error}); run the same command again") from error
        raise DatasetError(f"{table.path} is damaged after row {number} ({error}). {OBTAIN}") from error


_Row = tuple[_Table, dict[str, Any]]


def _place(table: _Table, row: Mapping[str, Any]) -> str:
    return f"{table.path}: row {row['row']}"


def _label(table: _Table, row: Mapping[str, Any]) -> Any:
    """Return the label of a row; the number of a ClassLabel becomes its name, because files may number classes
    differently.
    """
    label = row["label"]
    if not table.names or not isinstance(label, int) or label == -1:
        return label
    if not 0 <= label < len(table.names):
        raise DatasetError(
            f"{_place(table, row)}: the label {label} is out of range; use -1 for no label, or 0 to "
            f"{len(table.names) - 1} for the names in the file's metadata"
        )
    return table.names[label]


def _check_kinds(tables: Sequence[_Table], rows: Sequence[_Row], labels: Sequence[Any]) -> None:
    """Raise DatasetError if some labels have names and others are numbers without a name."""
    given = list(zip(rows, labels, strict=True))
    number = next((row for row, label in given if isinstance(label, int) and label >= 0), None)
    of_names = (table.path for (table, _), label in given if not isinstance(label, int | None))
    named = next((table.path for table in tables if table.names), None) or next(of_names, None)
    if number is not None and named is not None:
        raise DatasetError(
            f"{_place(*number)}: the label {number[1]['label']} is a number, but the classes of {named} have "
            "names. Use names in both, as values or as a ClassLabel in the metadata"
        )


def _names(rows: Sequence[_Row], labels: Sequence[Any]) -> tuple[str, ...]:
    """Return the distinct label names, sorted; for numeric labels, all numbers up to the largest."""
    given = {label for label in labels if label is not None}
    if not given or not all(isinstance(label, int) for label in given):
        return tuple(sorted(map(str, given)))
    if (largest := max(given)) > MAX_LABEL:
        table = rows[labels.index(largest)][0]
        raise DatasetError(f"{table.path}: the label {largest} is larger than {MAX_LABEL}; number classes from 0")
    return tuple(map(str, range(largest + 1)))


def _number(label: Any, numbers: dict[str, int], where: str) -> int:
    if label is None:
        return -1
    if isinstance(label, int) and -1 <= label < len(numbers):
        return label
    if str(label) not in numbers:
        raise DatasetError(
            f"{where}: the label {str(label)[:80]!r} is not one of {len(numbers)} classes; use their names or numbers"
        )
    return numbers[str(label)]
