"""Datasets of segments: parts of long videos, which are cut out by their times."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskstream.preprocess.raw.lists import TableRow, read_json, read_lines, read_table
from maskstream.preprocess.source import Source, Span
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, MediaFiles, dataset_of, find_first_existing, in_archives, require_folder

ACTIVITYNET = "activitynet"
ACTIVITYNET_OBTAIN = (
    "Get activity_net.v1-3.min.json from activity-net.org and the videos, and arrange them as ROOT/"
    "activity_net.v1-3.min.json and ROOT/videos/v_ID.mp4"
)
_SUBSETS = {"training": "train", "validation": "val", "testing": "test"}


@in_archives(".json")
def activitynet(root: Path) -> Dataset:
    """Read ActivityNet as its authors publish it, and lists in its format: each annotated segment is a sample.

    One JSON file in ROOT: {"database": {ID: {"subset": "training", "annotations": [{"segment": [START, END], "label":
    NAME}, ...]}, ...}} with times in seconds; and the videos in any folder, as `v_{ID}` or `{ID}` with any suffix.
    Segments with several labels list all of them as `labels`; `video`, `start` and `end` are fields too.

    F. C. Heilbron, V. Escorcia, B. Ghanem, J. C. Niebles, ActivityNet, CVPR 2015.

    Args:
        root: Folder of the raw data.

    Returns:
        The subsets training, validation and testing, if they have annotations, as train, val and test.

    Raises:
        DatasetError: The folder has another layout.
    """
    require_folder(root, name=ACTIVITYNET, obtain=ACTIVITYNET_OBTAIN)
    paths = sorted(root.glob("*.json"))
    if len(paths) != 1:
        raise DatasetError(
            f"{ACTIVITYNET}: {root} has {len(paths) or 'no'} JSON files, but needs exactly one. {ACTIVITYNET_OBTAIN}"
        )
    found = read_json(paths[0], ACTIVITYNET_OBTAIN)
    database = found.get("database") if isinstance(found, dict) else None
    if not isinstance(database, dict):
        raise DatasetError(f"{paths[0]} has no object `database`. {ACTIVITYNET_OBTAIN}")
    segments: dict[tuple[str, float, float], list[str]] = {}
    splits: dict[str, str] = {}
    for video, about in database.items():
        split, some = _read_activitynet_segments(about, f"{paths[0]}: {video!r}")
        splits[video] = split
        for (start, end), label in some:
            segments.setdefault((video, start, end), []).append(label)
    label_names = sorted({label for labels in segments.values() for label in labels})
    numbers = {label: number for number, label in enumerate(label_names)}
    several = any(len({*labels}) > 1 for labels in segments.values())
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {}
    for (video, start, end), labels in segments.items():
        own = list(dict.fromkeys(labels))
        path = files.find(f"v_{video}", Path.is_file)
        source = Source(
            id=f"{video}:{start:g}-{end:g}",
            path=path if path.is_file() else files.find(video, Path.is_file),
            label=numbers[own[0]],
            span=Span(start_s=start, stop_s=end, listed=f"{paths[0].name}, {video}"),
            meta={"video": video, "start": start, "end": end} | ({"labels": own} if several else {}),
        )
        listed.setdefault(splits[video], []).append(source)
    if not listed:
        raise DatasetError(f"{paths[0]} has no annotations. {ACTIVITYNET_OBTAIN}")
    return dataset_of(ACTIVITYNET, label_names, listed, root=root, obtain=ACTIVITYNET_OBTAIN)


def _read_activitynet_segments(about: Any, where: str) -> tuple[str, list[tuple[tuple[float, float], str]]]:
    """Return the split of a video, and its segments with their labels."""
    try:
        split = _SUBSETS[about["subset"]]
        found = [
            ((float(one["segment"][0]), float(one["segment"][1])), str(one["label"])) for one in about["annotations"]
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DatasetError(
            f"{where} has no subset training, validation or testing, or an annotation without segment and label "
            f"({error!r}). {ACTIVITYNET_OBTAIN}"
        ) from error
    if wrong := [segment for segment, _ in found if not 0 <= segment[0] < segment[1] <= 1e9]:
        raise DatasetError(
            f"{where} has the segment {[*wrong[0]]}; its end must be after its start. {ACTIVITYNET_OBTAIN}"
        )
    return split, found


AVA = "ava"
AVA_OBTAIN = (
    "Get the lists of research.google.com/ava and the films, and arrange them as ROOT/annotations/ava_train_v2.2.csv, "
    "ava_val_v2.2.csv and ava_action_list_v2.2.pbtxt, and ROOT/videos/ID.mkv"
)
AVA_COLUMNS = ("video_id", "timestamp", "x1", "y1", "x2", "y2", "action", "person")
"""Columns of the lists, which have no header."""
AVA_REACH_S = 1.5
"""A sample extends this many seconds before and after its time, so segments last three seconds."""
_AVA_ACTION = re.compile(r'name:\s*"([^"]*)"\s*(?:label_)?id:\s*(\d+)')


@in_archives(".csv", ".pbtxt")
def ava(root: Path) -> Dataset:
    """Read AVA Actions as Google publishes it: the actions of each person in a film, once a second.

    Files in ROOT or in `annotations/`: `ava_train_v2.2.csv` and `ava_val_v2.2.csv`, with a line for each video, time in
    seconds, box, action and person; optionally `ava_action_list_v2.2*.pbtxt`, which names the actions; and optionally
    `ava_train_excluded_timestamps_v2.2.csv`, whose times are skipped. The films lie in any folder, as `{ID}` with any
    suffix. A sample is the three seconds around a time. Its fields `box` (x0, y0, x1, y1 as fractions of the frame),
    `action` and `person` have a row for each line; `labels` contains its actions, and `label` the first one.

    C. Gu et al., AVA: A Video Dataset of Spatio-temporally Localized Atomic Visual Actions, CVPR 2018.

    Args:
        root: Folder of the raw data.

    Returns:
        The splits that have a list.

    Raises:
        DatasetError: The folder has another layout.
    """
    require_folder(root, name=AVA, obtain=AVA_OBTAIN)
    names: dict[int, str] = {}
    if (
        path := find_first_existing(root, *(f"{place}ava_action_list*.pbtxt" for place in ("annotations/", "")))
    ) is not None:
        text = "\n".join(line for _, line in read_lines(path))
        names = {int(number): name for name, number in _AVA_ACTION.findall(text)}
    files = MediaFiles(root)
    listed = {split: list(_list_ava_samples(root, split, files)) for split in ("train", "val")}
    if not listed["train"]:
        raise DatasetError(
            f"{AVA}: there is no ava_train_v2.2.csv with rows in {root} or in annotations/. {AVA_OBTAIN}"
        )
    most = max((number for some in listed.values() for one in some for number in one.meta["labels"]), default=0)
    label_names = [names.get(number, str(number)) for number in range(1 + max(most, *names, 0))]
    given = {split: sources for split, sources in listed.items() if sources}
    return dataset_of(AVA, label_names, given, root=root, obtain=AVA_OBTAIN)


def _list_ava_samples(root: Path, split: str, files: MediaFiles) -> Iterator[Source]:
    """Yield the samples of a list, in the order of their first lines."""

    def rows(name: str, columns: tuple[str, ...]) -> Iterator[TableRow]:
        path = find_first_existing(root, f"annotations/ava_{split}_{name}.csv", f"ava_{split}_{name}.csv")
        return iter(()) if path is None else read_table(path, columns, names=columns, obtain=AVA_OBTAIN)

    excluded = {
        (row["video_id"], row.seconds("timestamp")) for row in rows("excluded_timestamps_v2.*", AVA_COLUMNS[:2])
    }
    found: dict[tuple[str, float], list[TableRow]] = {}
    for row in rows("v2.*", AVA_COLUMNS):
        at = row["video_id"], row.seconds("timestamp")
        if row["action"] and at not in excluded:
            found.setdefault(at, []).append(row)
    for (video, time_s), lines in found.items():
        actions = [row.number("action") for row in lines]
        yield Source(
            id=f"{video}:{time_s:g}",
            path=files.find(video, Path.is_file),
            label=actions[0],
            span=Span(
                start_s=max(0.0, time_s - AVA_REACH_S),
                stop_s=time_s + AVA_REACH_S,
                listed=f"{lines[0].path.name}, line {lines[0].line}",
            ),
            meta={
                "video": video,
                "timestamp": time_s,
                "box": [[row.share(corner) for corner in AVA_COLUMNS[2:6]] for row in lines],
                "action": actions,
                "person": [row.number("person") for row in lines],
                "labels": sorted({*actions}),
            },
        )
