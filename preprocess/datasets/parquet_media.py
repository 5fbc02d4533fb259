"""Parquet files with a column of images, sounds or videos, as the Hugging Face Hub keeps datasets.

Files anywhere below ROOT, named after their splits: `data/train-00000-of-00005.parquet`, `validation/0000.parquet`; if
none is, all are train. The column is the one that the file's metadata say is an Image, Audio or Video, else the one
that is named so; it holds the bytes of a file in each row. The label is the column `label`, else the one that the
metadata say is a ClassLabel, of names or numbers. A number of a ClassLabel stands for its name, so files may number
their classes differently: classes are numbered as in the file that names most of them, and then come those of the other
files. Other columns of text, numbers and truth values go into the sample's
`json`, for `fields=`; one whose name means something else there, such as `source` or `crop`, is called `column_crop`.

parquet-image-text takes the texts too: the columns caption, question, answer, choice, rationale, phrase and passage, a
text or a list of texts a row; without one, a column such as `text` or `captions` is the caption; and `conversations` as
LLaVA has them are questions and answers.
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
"""Per kind the type in the metadata, the ending of a row's name, and the names of its column."""
log = logging.getLogger(__name__)
_TAKEN = frozenset({"crop", "episode", "key", "label", "source"})
"""What a source's meta says to an encoder, and a sample's json of itself; columns may not steer or hide it."""
_ROWS = 256
"""So many rows are read at a time."""
MAX_LISTED_BYTES = 1 << 30
"""The most that columns for `json` may hold in all, for every source carries its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """A file: its column of media, the column of labels ("" for none) with their names, and the columns for `json`, by
    the name that they have there.
    """

    path: Path
    media: str
    label: str
    names: tuple[str, ...]
    others: Mapping[str, str]


@reads_media
def read_parquet_media(root: Path, kind: str) -> Dataset:
    """The splits of files with a column of a kind. Raises DatasetError for another layout."""
    name = f"parquet-{kind}"
    require_folder(root, name=name, obtain=OBTAIN)
    paths = list_media(root, {".parquet"})
    if not paths:
        raise DatasetError(f"{name}: {root} holds no Parquet files. {OBTAIN}")
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
            "parquet-image: the column %r is a field of the samples. To pair images and texts for image_text_loader, "
            "take the dataset parquet-image-text",
            texts[0],
        )
    doubt = label_doubt(listed, names, f"{kind} rows", OBTAIN) if labelled else ""
    return Dataset(name=name, label_names=names, splits=listed, encoder=encoder, doubt=doubt)


parquet_image = partial(read_parquet_media, kind="image")
parquet_audio = partial(read_parquet_media, kind="audio")
parquet_video = partial(read_parquet_media, kind="video")
parquet_image_text = partial(read_parquet_media, kind="image-text")


def _name_splits(root: Path, paths: list[Path], name: str) -> dict[Path, str]:
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


def _read_table(path: Path, kind: str, name: str) -> _Table:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        if is_outage(error):
            raise OutageError(f"{path} cannot be read ({error}); run the same command again") from error
        raise DatasetError(f"{name}: {path} is not a Parquet file, or damaged ({error}). {OBTAIN}") from error
    features = read_hf_features(schema)
    typed, (_, *usual) = _KINDS[kind][0], _KINDS[kind][1]
    media = [column for column in schema.names if features.get(column, {}).get("_type") == typed]
    media = media or [column for column in usual if column in schema.names]
    if len(media) != 1:
        raise DatasetError(
            f"{name}: {path} has {len(media) or 'no'} columns of the kind {kind} ({', '.join(media) or 'none'}), of "
            f"the columns {', '.join(schema.names)[:200] or 'none'}; one is needed, called {usual[0]}"
        )
    if not _is_media(schema.field(media[0]).type):
        raise DatasetError(
            f"{name}: the column {media[0]!r} of {path} is {str(schema.field(media[0]).type)[:80]}; it must hold the "
            "bytes of a file in each row, as such or as `bytes` of a struct"
        )
    classes = [column for column in schema.names if features.get(column, {}).get("_type") == "ClassLabel"]
    label = "label" if "label" in schema.names else (classes[0] if classes else "")
    if label and not _is_label(schema.field(label).type):
        raise DatasetError(
            f"{name}: the column {label!r} of {path} is {str(schema.field(label).type)[:80]}; legal are names and "
            "numbers"
        )
    found = features.get(label, {}).get("names") or ()
    if not isinstance(found, list | tuple) or len(found) > MAX_LABEL:
        raise DatasetError(
            f"{name}: the metadata of {path} name the labels {str(found)[:80]!r}; a list of names is legal"
        )
    if twice := next((name for name, count in Counter(map(str, found)).items() if count > 1), None):
        raise DatasetError(
            f"{name}: the metadata of {path} name two labels {twice!r}; give each class a name of its own"
        )
    others = {
        field.name: _name_field(field.name)
        for field in schema
        if field.name not in (media[0], label)
        and (
            pa.types.is_string(field.type)
            or (pa.types.is_primitive(field.type) and not pa.types.is_temporal(field.type))
        )
    }
    if kind == "image-text":
        others |= _find_texts(schema, path)
    return _Table(path=path, media=media[0], label=label, names=tuple(map(str, found)), others=others)


def _find_texts(schema: pa.Schema, path: Path) -> dict[str, str]:
    """The columns of texts by their names in `json`: those of roles, or the one that is the caption."""
    texts = [field.name for field in schema if _is_text(field.type)]
    found = {column: column for column in texts if column in ROLES}
    if not found and (caption := next((name for name in CAPTIONS if name in texts), None)):
        found = {caption: CAPTION}
    if CONVERSATIONS in schema.names:
        found[CONVERSATIONS] = CONVERSATIONS
    if not found:
        raise DatasetError(
            f"parquet-image-text: {path} has the columns {', '.join(schema.names)[:200] or 'none'}, and none with "
            f"texts; legal are {', '.join(ROLES)}, or one of {', '.join(CAPTIONS)}, or {CONVERSATIONS}"
        )
    return found


def _is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts, or lists of them."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_media(kind: Any) -> bool:
    """Whether a column of this type can hold bytes; one of nulls gives rejects."""
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
    """How much the columns for `json` may still hold."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = MAX_LISTED_BYTES

    def take(self, path: Path, batch: pa.RecordBatch) -> None:
        """Raise DatasetError if the columns of a batch of rows are more than is left."""
        self._left -= batch.nbytes
        if self._left < 0:
            raise DatasetError(
                f"{self._name}: up to {path}, the columns beside the media hold more than {MAX_LISTED_BYTES} bytes "
                f"({', '.join(batch.schema.names)[:200]}); leave out the large ones"
            )


def _rows(table: _Table, room: _Room) -> Iterator[dict[str, Any]]:
    """The rows of a file: their number, label and contents for `json`."""
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


def _name_field(column: str) -> str:
    """The name that a column has in a sample's json."""
    return f"column_{column}" if column in _TAKEN else column


_Row = tuple[_Table, dict[str, Any]]


def _place(table: _Table, row: Mapping[str, Any]) -> str:
    return f"{table.path}: row {row['row']}"


def _label(table: _Table, row: Mapping[str, Any]) -> Any:
    """The label of a row; a number of a ClassLabel as its name, since files may number classes differently."""
    label = row["label"]
    if not table.names or not isinstance(label, int) or label == -1:
        return label
    if not 0 <= label < len(table.names):
        raise DatasetError(
            f"{_place(table, row)}: the label {label} is none of {len(table.names)}; legal are -1 for none and the "
            f"numbers 0 to {len(table.names) - 1} of the names in the file's metadata"
        )
    return table.names[label]


def _check_kinds(tables: Sequence[_Table], rows: Sequence[_Row], labels: Sequence[Any]) -> None:
    """Raise DatasetError where some labels have names and others are numbers, which no name belongs to."""
    given = list(zip(rows, labels, strict=True))
    number = next((row for row, label in given if isinstance(label, int) and label >= 0), None)
    of_names = (table.path for (table, _), label in given if not isinstance(label, int | None))
    named = next((table.path for table in tables if table.names), None) or next(of_names, None)
    if number is not None and named is not None:
        raise DatasetError(
            f"{_place(*number)}: the label is the number {number[1]['label']}, but the classes of {named} have names; "
            "write names into both, as values or as a ClassLabel in the metadata"
        )


def _names(rows: Sequence[_Row], labels: Sequence[Any]) -> tuple[str, ...]:
    """The sorted names among labels; of numbers, all up to the largest."""
    given = {label for label in labels if label is not None}
    if not given or not all(isinstance(label, int) for label in given):
        return tuple(sorted(map(str, given)))
    if (largest := max(given)) > MAX_LABEL:
        table = rows[labels.index(largest)][0]
        raise DatasetError(f"{table.path}: the label {largest} is larger than {MAX_LABEL}; number classes from 0 on")
    return tuple(map(str, range(largest + 1)))


def _number(label: Any, numbers: dict[str, int], where: str) -> int:
    if label is None:
        return -1
    if isinstance(label, int) and -1 <= label < len(numbers):
        return label
    if str(label) not in numbers:
        raise DatasetError(
            f"{where}: the label {str(label)[:80]!r} is none of {len(numbers)}; legal are names or numbers"
        )
    return numbers[str(label)]
