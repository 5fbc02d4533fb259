"""AudioSet as Google publishes it: lists of segments, with the sound that you have downloaded for them.

Files below ROOT: `balanced_train_segments.csv` and/or `unbalanced_train_segments.csv` (together the split train),
`eval_segments.csv` (val) and `class_labels_indices.csv`, in ROOT or in `metadata/`; and in any folder the segments, cut
to their 10 seconds, as sound or video files named YTID, YYTID, YTID_START or YTID_START_END with times in seconds or
milliseconds. With `videos`, only video files with sound are used. A segment's label is its first class; `json` holds
all classes as `labels`.

J. F. Gemmeke et al., Audio Set, ICASSP 2017.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.raw.lists import TableRow, read_table
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import (
    Dataset,
    dataset_of,
    first_existing,
    in_archives,
    one_down,
    require_folder,
)
from .folder import SOUND_SUFFIXES
from .folders import VIDEO_SUFFIXES, media_paths

LISTS = {
    "train": ("balanced_train_segments.csv", "unbalanced_train_segments.csv"),
    "val": ("eval_segments.csv",),
}
CLASSES = "class_labels_indices.csv"
SEGMENTS = ("YTID", "start", "end", "labels")
"""The columns of the lists, which have no line with their names."""
OBTAIN = (
    "Get the csv files from research.google.com/audioset/download.html, put them into ROOT, and the segments' sound "
    "below it, such as ROOT/audio/YTID.wav"
)


@in_archives(".csv")
def audioset(root: Path, *, balanced: bool = False, videos: bool = False) -> Dataset:
    """The published splits; with `balanced`, train holds only the balanced list; with `videos`, samples are videos with
    sound. Raises DatasetError for another layout.
    """
    name = f"audioset{'-video' if videos else ''}{'-balanced' if balanced else ''}"
    require_folder(root, name=name, obtain=OBTAIN)
    numbers, label_names = classes(root, name, OBTAIN)
    files: dict[str, Path] = {}
    for path in media_paths(root, VIDEO_SUFFIXES if videos else SOUND_SUFFIXES):
        files.setdefault(path.stem, path)
    listed: dict[str, list[Source]] = {}
    for split, lists in LISTS.items():
        found = (first_existing(root, file, f"metadata/{file}") for file in lists[: 1 if balanced else None])
        wanted = [path for path in found if path is not None]
        if split == "train" and not wanted:
            raise DatasetError(f"{name}: there is no {lists[0]} in {root} or in metadata/. {OBTAIN}")
        for path in wanted:
            rows = read_table(path, SEGMENTS, names=SEGMENTS, comment="#", obtain=OBTAIN)
            listed.setdefault(split, []).extend(_source(row, files, numbers, root) for row in rows)
    encoder = AudioVisualEncoder() if videos else AudioEncoder()
    return dataset_of(name, label_names, listed, root=root, obtain=OBTAIN, encoder=encoder)


def classes(root: Path, name: str, obtain: str) -> tuple[dict[str, int], list[str]]:
    """The number of each class by its id, and the class names in the order of the numbers."""
    path = first_existing(root, CLASSES, f"metadata/{CLASSES}")
    if path is None:
        near = one_down(root, CLASSES, f"metadata/{CLASSES}")
        raise DatasetError(f"{name}: there is no {CLASSES} in {root} or in metadata/.{near} {obtain}")
    rows = sorted(
        read_table(path, ("index", "mid", "display_name"), obtain=obtain), key=lambda row: row.number("index")
    )
    return {row["mid"]: number for number, row in enumerate(rows)}, [row["display_name"] for row in rows]


def _source(row: TableRow, files: dict[str, Path], numbers: dict[str, int], root: Path) -> Source:
    video, start, end = row["YTID"], row.seconds("start"), row.seconds("end")
    labels = [numbers[mid] for mid in row["labels"].split(",") if mid in numbers]
    if not labels:
        raise row.error(f"the classes {row['labels']!r}, which are not in {CLASSES}", OBTAIN)
    times = [f"{start:g}_{end:g}", f"{start:.3f}_{end:.3f}", f"{start * 1000:.0f}_{end * 1000:.0f}"]
    times += [f"{start:g}", f"{start:.3f}", f"{start * 1000:.0f}", f"{start:06.0f}"]
    names = [*(f"{video}_{time}" for time in times), video, f"Y{video}"]
    found = next((files[name] for name in names if name in files), root / f"{video}.wav")
    return Source(id=f"{video}_{start:g}_{end:g}", path=found, label=labels[0], meta={"labels": labels})
