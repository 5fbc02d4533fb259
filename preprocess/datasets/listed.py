"""Lists of media: csv, tsv, JSON Lines or Parquet files with a row for each sample, of which every column is used.

Known columns define the file of a sample, its part of the file, label, split and key; all others become its fields,
with the type of their values. Ambiguous contents are a doubt that names the list, line and column.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.raw.lists import (
    LIST_SUFFIXES,
    MAX_LABEL,
    ListRow,
    check_class_numbers,
    convert_to_type,
    is_path,
    list_columns,
    parse_whole_number,
    read_list,
    short,
)
from maskstream.preprocess.source import Source, Span
from maskstream.shards.errors import DatasetError
from maskstream.shards.members.text import ROLES
from maskstream.shards.named import list_few

from .folders import SPLIT_FOLDERS, split_folders

PATH, LABEL, LABELS, SPLIT, KEY, START, END = "path", "label", "labels", "split", "key", "start", "end"
COLUMNS: Mapping[str, Sequence[str]] = {
    PATH: ("path", "file_name", "filename", "file", "file_path", "filepath"),
    LABEL: ("label",),
    LABELS: ("labels",),
    SPLIT: ("split",),
    KEY: ("key",),
    START: ("start", "start_s", "start_seconds", "start_time", "time_start"),
    END: ("end", "end_s", "end_seconds", "end_time", "time_end", "stop"),
}
"""Names of known columns, in the order in which they are tried; case is ignored."""
_VIDEO, _AUDIO, _IMAGE = (
    ("video", "video_path"),
    ("audio", "audio_path", "audio_filepath", "wav"),
    ("image", "image_path"),
)
_MEDIA = {"video": _VIDEO, "audiovisual": _VIDEO, "audio": _AUDIO, "image": _IMAGE, "image-text": _IMAGE}
"""More names of the column of paths, by modality."""
_TIMED = ("video", "audiovisual", "audio", "pose")
"""Modalities whose files have parts in time. In lists of others, `start` and `end` are fields."""
_TEXTS = frozenset({*ROLES, "text"})
"""Columns that are text even if all values are digits."""
_TAKEN = frozenset({"crop", "episode", KEY, LABEL, LABELS, "source"})
_VIDEO_FACTS = frozenset(
    {"fps", "n_frames", "width", "height", "duration_s", "profile", "codec", "vfr", "original", "damage"}
)
_SOUND_FACTS = frozenset(
    {"sample_rate", "channels", "n_samples", "duration_s", "bits", "gain", "peak", "rms", "at_full_scale", "original"}
)
FACTS: Mapping[str, frozenset[str]] = {
    "video": _VIDEO_FACTS,
    "audio": _SOUND_FACTS,
    "audiovisual": _VIDEO_FACTS | {"audio", "audio_start_s", "audio_share", "audio_level_db", "audio_filled_s"},
    "image": frozenset({"width", "height", "kept"}),
    "image-text": frozenset({"width", "height", "kept"}),
    "points": frozenset({"n_points", "columns", "origin", "block", "rows"}),
    "mesh": frozenset({"n_merged"}),
    "pose": frozenset({"n_frames", "seconds", "rig", "n_poses", "format"}),
}
"""Names that encoders write into the `json` of samples, or read from it. A column with such a name is renamed to
`column_NAME`.
"""
_NONE = -1
"""Publishers of Parquet files write this number for no label."""
_LIKE_A_LABEL = ("class", "class_name", "category", "target")
_NO_TYPOS = ("state", "stars")
_ALIKE = 0.79
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")
_MOST_S = 1e9
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaList:
    """A list file, and the split of its rows by the name or folder of the file; None if neither names one."""

    path: Path
    split: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSplits:
    """The contents of lists: the label names, the sources of each split, and a message about doubtful contents or
    "".
    """

    label_names: tuple[str, ...]
    splits: dict[str, list[Source]]
    doubt: str


def find_lists(root: Path, name: str, modality: str) -> list[MediaList]:
    """Find the lists of a dataset: one file in `root`, one for each split (train.csv, val.csv), or `metadata.*` in the
    folder of each split.

    Of tsv, JSON Lines and Parquet files, only files with a column of paths count as lists.

    Args:
        root: Folder of the raw data.
        name: Name of the dataset, for messages.
        modality: Modality of the listed files, which defines more names of the column of paths.

    Raises:
        DatasetError: Several lists are not named after splits, or one split lacks its list.
    """
    is_list = modality != "image-text"  # img2dataset writes tables next to its tars that are not lists
    found = [
        path
        for path in _list_tables(root)
        if (is_list and path.suffix.lower() == ".csv") or _find_column(list_columns(path), PATH, modality)
    ]
    if len(found) == 1:
        return [MediaList(path=found[0])]
    if not found:
        return _find_lists_of_splits(root, name)
    splits = [_find_named_split(path.stem) for path in found]
    if None in splits or len({*splits}) < len(splits):
        raise DatasetError(
            f"{name}: {root} has several lists, such as csv files ({', '.join(p.name for p in found)}), but only "
            "one can be read. Merge them into one file with the columns path, label and split, or name one after "
            "each split (train.csv, val.csv)"
        )
    return [MediaList(path=path, split=split) for path, split in zip(found, splits, strict=True)]


def _find_lists_of_splits(root: Path, name: str) -> list[MediaList]:
    inner = {
        split: next(filter(Path.is_file, (folder / f"metadata{suffix}" for suffix in LIST_SUFFIXES)), None)
        for split, folder in split_folders(root).items()
    }
    if lacking := [split for split, path in inner.items() if path is None and any(inner.values())]:
        raise DatasetError(
            f"{name}: the split {lacking[0]!r} in {root} has no list (metadata.csv), but other splits have one. Add "
            "it, or put all rows into ROOT/metadata.csv"
        )
    return [MediaList(path=path, split=split) for split, path in inner.items() if path is not None]


def describe_unread_lists(root: Path) -> str:
    """Return a message about files in `root` that may be lists but have no column of paths; "" if there are none."""
    found = [path.name for path in _list_tables(root)]
    if not found:
        return ""
    return f"{list_few(found)} in {root} have no column 'path' and would be ignored; add it, or move them away"


def _list_tables(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.suffix.lower() in LIST_SUFFIXES and path.is_file())


def _find_named_split(stem: str) -> str | None:
    """Return the split named by one of the words of a file name."""
    words = set(re.split(r"[^a-z]+", stem.lower()))
    return next((split for split, names in SPLIT_FOLDERS.items() if words & {*names}), None)


def _find_column(header: Iterable[str], known: str, modality: str = "") -> str | None:
    """Return the column of a list that stands for a known one; None if there is none."""
    names = (*COLUMNS[known], *(_MEDIA.get(modality, ()) if known == PATH else ()))
    found = {column.strip().lower(): column for column in header if isinstance(column, str)}
    return next((found[name] for name in names if name in found), None)


def listed_sources(
    lists: Sequence[MediaList], root: Path, encoder: Encoder, *, obtain: str, separator: str = ""
) -> ListedSplits:
    """Read the sources of lists.

    Args:
        lists: List files, as `find_lists` returns them.
        root: Folder of the raw data.
        encoder: Encoder of the files.
        obtain: Sentence that explains how to arrange the data, appended to messages.
        separator: Text between several labels of a sample; "" splits only the column `labels`, at ";".

    Raises:
        DatasetError: A list has no column of paths, or a row cannot be used.
    """
    tables = [_Table.read(one, root, encoder.modality, obtain, separator) for one in lists]
    entries = [entry for table in tables for entry in table.entries()]
    _check_distinct(entries)
    parquet = [table for table in tables if table.of.path.suffix.lower() == ".parquet"]
    for name in (LABEL, LABELS):
        check_class_numbers((table.of.path, table.columns[name]) for table in parquet if name in table.columns)
    label_names, numbers = _numbers([(entry.row, entry.labels) for entry in entries])
    splits: dict[str, list[Source]] = {}
    for entry in entries:
        own = [numbers[label] for label in entry.labels]
        meta = {**entry.meta, LABELS: [label_names[n] for n in own]} if entry.several else entry.meta
        source = Source(id=entry.id, path=entry.path, label=own[0] if own else -1, span=entry.span, meta=meta)
        splits.setdefault(entry.split, []).append(source)
    doubts = [*(doubt for table in tables for doubt in table.doubts()), *_split_doubts(tables, entries)]
    doubts += _label_doubts(entries)
    return ListedSplits(label_names=label_names, splits=splits, doubt="; and ".join(doubts[:3]))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A parsed row. part: its part of the file as in ids, "" for the whole file. several: whether samples may have
    several labels.
    """

    row: ListRow
    id: str
    key: str
    part: str
    path: Path
    split: str
    labels: tuple[str | int, ...]
    several: bool
    span: Span | None
    meta: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """A parsed list.

    base: Folder to which its paths are relative. several: Whether samples may have several labels. columns: Known
    columns by their standard names. others: Values of every other column in all rows, None where a row has none.
    """

    of: MediaList
    root: Path
    base: Path
    modality: str
    separator: str
    several: bool
    rows: list[ListRow]
    columns: Mapping[str, str]
    others: Mapping[str, Sequence[Any]]

    @classmethod
    def read(cls, of: MediaList, root: Path, modality: str, obtain: str, separator: str) -> Self:
        header = list_columns(of.path)
        rows = read_list(of.path)
        header = list(dict.fromkeys([*header, *(column for row in rows for column in row.values)]))
        columns = {known: column for known in COLUMNS if (column := _find_column(header, known, modality)) is not None}
        if PATH not in columns:
            has = f"the columns {', '.join(map(str, header))[:200]}" if header else "no columns"
            raise DatasetError(f"{of.path} has {has}, but no {PATH!r}. {obtain}")
        used = {columns[known] for known in columns if known not in (START, END) or modality in _TIMED}
        others = {
            column: values
            for column in header
            if column not in used and (values := _read_field(rows, column)) is not None
        }
        within = of.path.parent != root and of.path.parent.is_relative_to(root)
        base = of.path.parent if within else _find_base(root, modality, rows, columns[PATH])
        return cls(
            of=of,
            root=root,
            base=base,
            modality=modality,
            separator=separator,
            several=LABELS in columns
            or bool(separator)
            or any(isinstance(row.values.get(columns.get(LABEL, "")), list) for row in rows),
            rows=rows,
            columns=columns,
            others=others,
        )

    def entries(self) -> Iterator[_Entry]:
        """Yield the rows in order."""
        for n, row in enumerate(self.rows):
            path = self._text(row, PATH)
            if not path:
                raise row.error("no path")
            if not is_path(path):
                raise row.error(f"the path {path[:80]!a}, which is not a valid path")
            if _URL.match(path):
                raise row.error(
                    f"the path {short(path)}, which is a URL",
                    "Lists contain paths relative to ROOT. Download the files first, or put the list next to them and "
                    "pass their URL as ROOT (--root)",
                )
            span = self._parse_span(row) if self.modality in _TIMED else None
            meta = {_name_field(column, self.modality): values[n] for column, values in self.others.items()}
            meta = {column: value for column, value in meta.items() if value is not None}
            if span is not None:
                meta |= {START: span.start_s} | ({} if span.stop_s is None else {END: span.stop_s})
            where = path if self.base == self.root else os.path.normpath(f"{self.base.relative_to(self.root)}/{path}")
            key, part = self._text(row, KEY), "" if span is None else format_time_word(span)
            yield _Entry(
                row=row,
                id=key or (f"{where}:{part}" if part else where),
                key=key,
                part=part,
                path=self.base / path,
                split=self._split(row, path),
                labels=self._labels(row),
                several=self.several,
                span=span,
                meta=meta,
            )

    def _value(self, row: ListRow, known: str) -> Any:
        return row.values.get(self.columns[known]) if known in self.columns else None

    def _text(self, row: ListRow, known: str) -> str:
        """Return the text in a known column; "" if there is none."""
        value = self._value(row, known)
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise row.error(f"the {self.columns[known]} {short(value)}, which is not text")

    def _parse_span(self, row: ListRow) -> Span | None:
        start, stop = self._parse_seconds(row, START), self._parse_seconds(row, END)
        if start is None and stop is None:
            return None
        if stop is not None and stop <= (start or 0):
            raise row.error(f"the end {stop:g} s, which is not after its start {start or 0:g} s")
        return Span(start_s=start or 0.0, stop_s=stop, listed=f"{self.of.path.name}, line {row.line}")

    def _parse_seconds(self, row: ListRow, known: str) -> float | None:
        """Parse a time in a column: seconds, or hours, minutes and seconds as 1:02:03.5."""
        value = self._value(row, known)
        if value is None:
            return None
        seconds = math.nan
        if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
            hours, minutes, rest = clock.groups()
            seconds = int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
        elif isinstance(value, int | float | str) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                seconds = float(value)
        if not 0 <= seconds <= _MOST_S:
            raise row.error(
                f"the {self.columns[known]} {short(value)}, which is neither seconds from 0 nor a time like 1:02:03.5"
            )
        return seconds

    def _labels(self, row: ListRow) -> tuple[str | int, ...]:
        """Return the labels of a row in order."""
        given: list[Any] = []
        for known in (LABEL, LABELS):
            value = self._value(row, known)
            if isinstance(value, list):
                given += value
            elif isinstance(value, str) and value.strip().startswith("[") and known == LABELS:
                given += _parse_json_list(value, row)
            elif isinstance(value, str) and (known == LABELS or self.separator):
                given += [one for text in value.split(self.separator or ";") if (one := text.strip())]
            elif value is not None:
                given.append(value)
        labels = dict.fromkeys(_convert_to_label(one, row) for one in given)
        return tuple(label for label in labels if label != _NONE)

    def _split(self, row: ListRow, path: str) -> str:
        given = self._text(row, SPLIT).strip()
        if given:
            for split, others in SPLIT_FOLDERS.items():
                if given.lower() in others:
                    return split
            raise row.error(f"the split {given!r}", f"Use one of {', '.join(SPLIT_FOLDERS)}")
        if self.of.split is not None:
            return self.of.split
        if self.columns[PATH].strip().lower() != "file_name":
            return "train"
        return _find_folder_split(path) or "train"

    def doubts(self) -> Iterator[str]:
        """Yield messages about contents that may be misread."""
        for column, values in self.others.items():
            if doubt := self._find_column_doubt(column, values):
                yield f"{self.of.path} has {doubt}"
        if not self.separator:
            yield from self._find_separator_doubts()

    def _find_column_doubt(self, column: str, values: Sequence[Any]) -> str:
        plain, has_labels = column.strip().lower(), {LABEL, LABELS} & self.columns.keys()
        times, labels = (START, END) if self.modality in _TIMED else (), () if has_labels else (LABEL,)
        absent = {SPLIT, *times, *labels} - self.columns.keys()
        near = [] if plain in _NO_TYPOS else get_close_matches(plain, absent, 1, _ALIKE)
        if not plain:
            return f"a column without a name, with the first value {short(values[0])}; name it"
        if near:
            return f"the column {column!r}, which becomes a field; if you meant {near[0]!r}, rename it"
        if plain in _LIKE_A_LABEL and not has_labels:
            return f"the column {column!r} but no label; if it contains the labels, rename it to 'label'"
        if values and all(value is None for value in values):
            return f"the column {column!r}, which is empty in all of its {len(values)} rows; remove it"
        if plain in ("duration", "length") and START in self.columns and END in absent:
            return f"{column!r} but no 'end', so parts extend to the end of their files; add 'end'"
        return ""

    def _find_separator_doubts(self) -> Iterator[str]:
        where = self.of.path
        rows = (row for row in self.rows if isinstance(value := self._value(row, LABEL), str) and ";" in value)
        if first := next(rows, None):
            yield (
                f"{where}: line {first.line} has the label {short(self._value(first, LABEL))}, which is read as "
                "one class. If it means several, add --set 'separator=;', or rename the column to 'labels'"
            )
        texts = [(row, value) for row in self.rows if isinstance(value := self._value(row, LABELS), str)]
        commas = [(row, value) for row, value in texts if "," in value and not value.strip().startswith("[")]
        if commas and not any(";" in value for _, value in texts):
            row, value = commas[0]
            yield (
                f"{where}: line {row.line} has the labels {short(value)}, which are read as one class because "
                "labels are separated by ';'. If they mean several, add --set separator=,"
            )


def _read_field(rows: Sequence[ListRow], column: str) -> Sequence[Any] | None:
    """Return the values of a column that becomes a field; None for pandas' row numbers."""
    values = [row.values.get(column) for row in rows]
    if not column.strip() and [*map(str, values)] == [*map(str, range(len(rows)))]:
        return None
    return values if column.strip().lower() in _TEXTS else convert_to_type(rows, column)


def _find_base(root: Path, modality: str, rows: Sequence[ListRow], column: str) -> Path:
    """Return the folder to which paths are relative: `root`, or a folder in it that is named after the media and
    contains the first file.
    """
    first = next((value for row in rows if isinstance(value := row.values.get(column), str)), "")
    media = _MEDIA.get(modality, ())
    names = (*media, *(f"{name}s" for name in media[:1]), "clips", "data")
    places = [root, *(root / name for name in names)]
    return next((place for place in places if first and (place / first).is_file()), root)


def _find_folder_split(path: str) -> str | None:
    """Return the split named by the first folder of a path."""
    first, slash, _ = path.removeprefix("./").partition("/")
    return next((split for split, names in SPLIT_FOLDERS.items() if slash and first.lower() in names), None)


def format_time_word(span: Span) -> str:
    """Format a part of a file as in ids, to the millisecond."""
    return "-".join("" if one is None else f"{one:.3f}".rstrip("0").rstrip(".") for one in (span.start_s, span.stop_s))


def _name_field(column: str, modality: str) -> str:
    """Return the field name of a column."""
    return f"column_{column}" if column in _TAKEN or column in FACTS.get(modality, ()) else column


def _convert_to_label(given: Any, row: ListRow) -> str | int:
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, str | int):
        return given
    if isinstance(given, float) and given.is_integer():
        return int(given)
    raise row.error(f"the label {short(given)}; use names, numbers or lists of them")


def _parse_json_list(value: str, row: ListRow) -> list[Any]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise row.error(f"the labels {short(value)}, which begin like a JSON list but are not valid JSON")
    return found


def _check_distinct(entries: Sequence[_Entry]) -> None:
    """Raise DatasetError if two rows have the same key, or the same file and part and no key."""
    seen: dict[str, ListRow] = {}
    for entry in entries:
        first = seen.setdefault(entry.key or f"{os.path.normpath(entry.path)}:{entry.part}", entry.row)
        if first is not entry.row:
            place = f"line {first.line}" if first.path == entry.row.path else f"line {first.line} of {first.path.name}"
            what = "key" if entry.key else "part" if entry.part else "path"
            raise entry.row.error(
                f"the same {what} {entry.id!r} as {place}", "Remove one of them, or set a unique `key` for each"
            )


def _numbers(
    given: Sequence[tuple[ListRow, Sequence[str | int]]],
) -> tuple[tuple[str, ...], dict[str | int, int]]:
    """Return the sorted label names, and the number of each label.

    If all labels are numbers, the names are the numbers from 0 to the largest, so that each keeps its value.
    """
    found = {label for _, labels in given for label in labels}
    whole = {label: label if isinstance(label, int) else parse_whole_number(label) for label in found}
    if found and all(number is not None for number in whole.values()):
        numbers = {label: number for label, number in whole.items() if number is not None}
        for row, labels in given:
            if wrong := [label for label in labels if not 0 <= numbers[label] <= MAX_LABEL]:
                raise row.error(f"the label {short(str(wrong[0]))}, which is not a whole number from 0 to {MAX_LABEL}")
        return tuple(map(str, range(1 + max(numbers.values())))), numbers
    names = tuple(sorted({str(label) for label in found}))
    place = {label: n for n, label in enumerate(names)}
    return names, {label: place[str(label)] for label in found}


def _label_doubts(entries: Sequence[_Entry]) -> Iterator[str]:
    """Yield a message if one list has numeric labels and another has names, which would be different classes."""
    of_list: dict[Path, set[bool]] = {}
    for entry in entries:
        found = (parse_whole_number(str(label)) is not None for label in entry.labels)
        of_list.setdefault(entry.row.path, set()).update(found)
    numbered, named = ([path for path, kinds in of_list.items() if kinds == {kind}] for kind in (True, False))
    if numbered and named:
        yield (
            f"{numbered[0]} has numeric labels and {named[0].name} has names, so they would have no class in common; "
            "use names in both"
        )


def _split_doubts(tables: Sequence[_Table], entries: Sequence[_Entry]) -> Iterator[str]:
    """Yield messages about folders of splits that a list ignores, and about overlapping parts of a file in two
    splits.
    """
    for table in tables:
        if SPLIT not in table.columns and table.of.split is None and {entry.split for entry in entries} == {"train"}:
            paths = [table._text(row, PATH) for row in table.rows]
            inside = {split: path for path in paths if (split := _find_folder_split(path))}
            if len(inside) > 1:
                yield (
                    f"{table.of.path} lists {list_few([*inside.values()])}, whose folders look like splits, but has "
                    "no column 'split', so all would be in train; add it"
                )
    by_file: dict[Path, list[_Entry]] = {}
    for entry in entries:
        by_file.setdefault(entry.path, []).append(entry)
    several = (some for some in by_file.values() if len({entry.split for entry in some}) > 1)
    if overlap := next((found for some in several if (found := _find_overlap(some))), None):
        one, other = overlap
        yield (
            f"line {one.row.line} of {one.row.path} and line {other.row.line} of {other.row.path.name} put parts of "
            f"{one.path.name} that overlap into the splits {one.split} and {other.split}, so a model would be "
            "validated on its training data"
        )


def _find_overlap(entries: Sequence[_Entry]) -> tuple[_Entry, _Entry] | None:
    """Return two overlapping entries of a file that are in different splits; None if there are none."""
    last: dict[str, tuple[float, _Entry]] = {}
    for entry in sorted(entries, key=_get_start):
        for split, (end, other) in last.items():
            if split != entry.split and end > _get_start(entry):
                return other, entry
        end = math.inf if entry.span is None or entry.span.stop_s is None else entry.span.stop_s
        last[entry.split] = max(last.get(entry.split, (0.0, entry)), (end, entry), key=itemgetter(0))
    return None


def _get_start(entry: _Entry) -> float:
    return entry.span.start_s if entry.span else 0.0
