"""A LeRobot dataset in format v2.0, v2.1 or v3.0, as `lerobot` and the Hugging Face Hub store it.

Files in ROOT: `meta/info.json`; `meta/episodes.jsonl` (v2) or `meta/episodes/chunk-000/file-000.parquet` (v3); and the
Parquet files and videos that info.json names. A sample is one camera of one episode; in v3, where a video contains
several episodes, it is a part of the file. Actions, states and other numeric features have a row for each frame and
become the members action.npy, state.npy, and so on, without `observation.` and with at most 15 characters. `json`
contains the `camera`, the `episode` and the `task`. The label is the task, if there are several. With `--set
cameras=together` a sample is one episode, whose videos are the components top.mp4, wrist.mp4 and so on, named by the
last word of each camera's name.

R. Cadene et al., LeRobot, 2024 (github.com/huggingface/lerobot).
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess.encode.video.encoder import EpisodeEncoder
from maskstream.preprocess.raw.lists import is_unicode, read_json, read_lines
from maskstream.preprocess.raw.parquet_rows import is_outage
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError

from .dataset import Dataset, dataset_of, describe_one_down, reads_media, require_folder
from .folders import SPLIT_FOLDERS

NAME = "lerobot"
OBTAIN = (
    "Get a dataset with `hf download --repo-type dataset USER/NAME --local-dir ROOT`, so that there are "
    "ROOT/meta/info.json, ROOT/data/ and ROOT/videos/"
)
_COUNTS = frozenset({"timestamp", "frame_index", "episode_index", "index", "task_index"})
"""Features that only number the rows."""
_NUMBERS = ("float", "int", "uint", "bool")
_LONGEST = 15
APART, TOGETHER = "apart", "together"
_ODD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""Errors raised by malformed contents of info.json and of rows."""
_PLACE = re.compile(r"\{(\w+)(?::0?(\d{1,2})d)?\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Episode:
    """An episode: its number, its tasks, and its row in the list of episodes."""

    number: int
    tasks: tuple[str, ...]
    row: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Info:
    """The contents of info.json and its root folder."""

    root: Path
    facts: dict[str, Any]

    @property
    def is_third(self) -> bool:
        """Whether files contain several episodes, as in v3."""
        return str(self.facts["codebase_version"]).startswith("v3")

    def features(self, *kinds: str) -> dict[str, dict[str, Any]]:
        """Return the features whose dtype begins with one of `kinds`."""
        found: dict[str, dict[str, Any]] = self.facts["features"]
        return {name: one for name, one in found.items() if str(one["dtype"]).startswith(kinds)}

    def place(self, one: _Episode, of: str) -> dict[str, int]:
        """Return the values for the path template of an episode's file; `of` is "data" or "videos/CAMERA"."""
        if self.is_third:
            return {name: one.row[f"{of}/{name}"] for name in ("chunk_index", "file_index")}
        return {"episode_chunk": one.number // int(self.facts["chunks_size"]), "episode_index": one.number}

    def span_s(self, one: _Episode, of: str) -> list[float] | None:
        """Return the start and end of an episode in its video, in seconds; None for the whole video."""
        if not self.is_third:
            return None
        return [float(one.row[f"{of}/{end}_timestamp"]) for end in ("from", "to")]

    def file(self, template: str, **values: Any) -> Path:
        """Return the path of one of info.json's templates with these values. Raise DatasetError if it is malformed or
        leaves ROOT.
        """
        text, where = str(self.facts[template]), f"{NAME}: {self.root / 'meta/info.json'}"
        if "{" in _PLACE.sub("", text):
            raise DatasetError(
                f"{where} has the {template} {text[:200]!r}; use placeholders such as {{episode_index:06d}}"
            )
        named = _PLACE.sub(lambda found: _format_path(values[found[1]], found[2]), text)
        if named.startswith("/") or ".." in PurePosixPath(named).parts:
            raise DatasetError(f"{where} has the {template} {text!r}, which points outside ROOT")
        return self.root / named


@reads_media
def lerobot(root: Path, *, cameras: str = APART) -> Dataset:
    """Read a LeRobot dataset in format v2.0, v2.1 or v3.0.

    Args:
        root: Folder of the raw data.
        cameras: "apart" creates one sample for each camera of an episode, "together" one sample for all cameras.

    Returns:
        The splits of info.json.

    Raises:
        DatasetError: The folder has another layout, or the dataset has no videos.
    """
    if cameras not in (APART, TOGETHER):
        raise DatasetError(f"{NAME}: --set cameras={cameras} is not allowed; use {APART} or {TOGETHER}")
    require_folder(root, name=NAME, obtain=OBTAIN)
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DatasetError(f"{NAME}: {path} does not exist.{describe_one_down(root, 'meta/info.json')} {OBTAIN}")
    info = _Info(root=root, facts=read_json(path, OBTAIN))
    try:
        return _make_dataset(info, together=cameras == TOGETHER)
    except _ODD as error:
        raise DatasetError(
            f"{NAME}: {root / 'meta'} does not match v2.0, v2.1 or v3.0 ({type(error).__name__}: {error}). {OBTAIN}"
        ) from error


def _make_dataset(info: _Info, *, together: bool) -> Dataset:
    cameras = sorted(info.features("video"))
    if not cameras:
        raise DatasetError(
            f"{NAME}: no feature of {info.root / 'meta/info.json'} has the dtype video; images in Parquet files are "
            f"not supported. Its features are {', '.join(info.facts['features'])}. {OBTAIN}"
        )
    arrays = _arrays(info)
    members = _name_members(cameras) if together else {}
    episodes = list(_read_version_3(info) if info.is_third else _read_version_2(info))
    tasks = sorted({one.tasks[0] for one in episodes if one.tasks})
    labels = {task: number for number, task in enumerate(tasks)} if len(tasks) > 1 else {}
    listed: dict[str, list[Source]] = {}
    for split, numbers in _read_splits(info).items():
        own = [one for one in episodes if one.number in numbers]
        groups = [cameras] if together else [[camera] for camera in cameras]
        sources = [_source(info, one, group, members, arrays, labels) for one in own for group in groups]
        if sources:
            listed[split] = sources
    if not listed:
        raise DatasetError(f"{NAME}: the splits of {info.root / 'meta/info.json'} have no episodes. {OBTAIN}")
    encoder = EpisodeEncoder()
    return dataset_of(NAME, labels, listed, root=info.root, obtain=OBTAIN, encoder=encoder, labelled=bool(labels))


def _arrays(info: _Info) -> dict[str, tuple[str, list[int]]]:
    """Return the column and the row shape of each array, by its name."""
    found: dict[str, tuple[str, list[int]]] = {}
    for column, feature in info.features(*_NUMBERS).items():
        if column in _COUNTS:
            continue
        name = re.sub(r"[^a-z0-9_.]+", "_", column.lower()).removeprefix("observation.")[:_LONGEST].strip("_.")
        if name in found or not name:
            raise DatasetError(f"{NAME}: the features {column!r} and {found.get(name, ('',))[0]!r} have the same name")
        found[name] = (column, [int(side) for side in feature["shape"]])
    if not found:
        raise DatasetError(f"{NAME}: {info.root / 'meta/info.json'} has no actions or states. {OBTAIN}")
    return found


def _read_splits(info: _Info) -> dict[str, range]:
    """Return the episode numbers of each split, as info.json lists them: {"train": "0:50"}."""
    found: dict[str, range] = {}
    for name, span in info.facts.get("splits", {"train": f"0:{info.facts['total_episodes']}"}).items():
        first, _, stop = str(span).partition(":")
        split = next((split for split, names in SPLIT_FOLDERS.items() if name in names), None)
        if split is None:
            raise DatasetError(f"{NAME}: info.json has the split {name!r}; use one of {', '.join(SPLIT_FOLDERS)}")
        found[split] = range(int(first or 0), int(stop))
    return found


def _read_version_2(info: _Info) -> Iterator[_Episode]:
    path = info.root / "meta" / "episodes.jsonl"
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else error
            raise DatasetError(f"{NAME}: {path}: line {number} is not valid JSON ({why}). {OBTAIN}") from error
        yield _parse_episode(row, f"{path}: line {number}")


def _parse_episode(row: Any, where: str) -> _Episode:
    """Return the episode of a row. Raise DatasetError, with its location `where`, if it is malformed."""
    try:
        number, tasks = int(row["episode_index"]), tuple(row.get("tasks") or ())
    except _ODD as error:
        raise DatasetError(f"{NAME}: {where} is not an episode ({type(error).__name__}: {error}). {OBTAIN}") from error
    if not all(isinstance(task, str) and is_unicode(task) for task in tasks):
        raise DatasetError(f"{NAME}: {where} has tasks that are not valid text: {ascii(tasks)[:80]}")
    return _Episode(number=number, tasks=tasks, row=row)


def _read_version_3(info: _Info) -> Iterator[_Episode]:
    files = sorted((info.root / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"{NAME}: there is no meta/episodes/chunk-000/file-000.parquet in {info.root}. {OBTAIN}")
    for path in files:
        try:
            held = pq.ParquetFile(path)
            names = [name for name in held.schema_arrow.names if not name.startswith("stats/")]
            rows = held.read(columns=names).to_pylist()
        except (pa.ArrowException, OSError) as error:
            if is_outage(error):
                raise OutageError(f"{path} cannot be read ({error}); run the same command again") from error
            raise DatasetError(f"{NAME}: {path} is damaged or not a Parquet file ({error}). {OBTAIN}") from error
        for number, row in enumerate(rows):
            yield _parse_episode(row, f"{path}: row {number}")


def _name_members(cameras: Sequence[str]) -> dict[str, str]:
    """Return the camera of each component: top.mp4 for observation.images.top."""
    found: dict[str, str] = {}
    for camera in cameras:
        last = re.sub(r"[^a-z0-9_]+", "_", camera.rpartition(".")[2].lower())[:_LONGEST].strip("_")
        if not last or f"{last}.mp4" in found:
            raise DatasetError(f"{NAME}: the cameras {', '.join(cameras)} need distinct last words in their names")
        found[f"{last}.mp4"] = camera
    return found


def _source(
    info: _Info,
    one: _Episode,
    cameras: Sequence[str],
    members: dict[str, str],
    arrays: dict[str, tuple[str, list[int]]],
    labels: dict[str, int],
) -> Source:
    """Return the source of some cameras of an episode. members: the camera of each component; empty for one camera,
    `mp4`.
    """
    paths = [info.file("video_path", video_key=camera, **info.place(one, f"videos/{camera}")) for camera in cameras]
    spans = [info.span_s(one, f"videos/{camera}") for camera in cameras]
    task = one.tasks[0] if one.tasks else ""
    meta: dict[str, Any] = {"episode": one.number, "task": task, "arrays": arrays}
    meta |= {"videos": list(members), "spans_s": spans} if members else {"camera": cameras[0], "span_s": spans[0]}
    return Source(
        id=f"{one.number:06d}" if members else f"{one.number:06d}/{cameras[0]}",
        path=paths[0],
        parts=(info.file("data_path", **info.place(one, "data")), *paths[1:]),
        label=labels.get(task, -1),
        meta=meta,
    )


def _format_path(value: Any, digits: str | None) -> str:
    return str(value) if digits is None else f"{int(value):0{int(digits)}d}"
