"""VGGSound as its authors publish it: a list, with the ten-second clips that you have downloaded for it.

Files below ROOT: `vggsound.csv`, in ROOT or one folder down, without a header; a line holds a YouTube id, the clip's
start in seconds, a label, and train or test. The clips with their sound are in any folder as `{id}_{start:06d}.mp4` (or
`{id}_{start}.mp4`, `{id}_{start}_{stop}.mp4`). The test list is the split `val`.

H. Chen, W. Xie, A. Vedaldi, A. Zisserman, VGGSound, ICASSP 2020.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.raw.lists import read_table
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import (
    Dataset,
    MediaFiles,
    dataset_of,
    first_existing,
    in_archives,
    require_folder,
)

OBTAIN = (
    "Get vggsound.csv from www.robots.ox.ac.uk/~vgg/data/vggsound, and lay it and the clips out as ROOT/vggsound.csv "
    "and ROOT/video/ID_000030.mp4"
)
COLUMNS = ("id", "start", "label", "split")
"""The columns of the list, which has no line with their names."""
SPLITS = {"train": "train", "test": "val"}
SECONDS = 10


@in_archives(".csv")
def vggsound(root: Path) -> Dataset:
    """The published splits. Raises DatasetError for another layout."""
    require_folder(root, name="vggsound", obtain=OBTAIN)
    rows = _rows(root)
    label_names = sorted({label for _, _, label, _ in rows})
    numbers = {label: number for number, label in enumerate(label_names)}
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {split: [] for split in SPLITS.values()}
    for video, start, label, split in rows:
        path = _path(files, video, start)
        listed[SPLITS[split]].append(Source(id=f"{video}_{start:06d}", path=path, label=numbers[label]))
    return dataset_of(
        "vggsound",
        label_names,
        {split: sources for split, sources in listed.items() if sources},
        root=root,
        obtain=OBTAIN,
        encoder=AudioVisualEncoder(),
    )


def _rows(root: Path) -> list[tuple[str, int, str, str]]:
    """YouTube id, start in seconds, label and list (train or test) of each clip."""
    path = first_existing(root, "vggsound.csv", "*/vggsound.csv")
    if path is None:
        raise DatasetError(f"vggsound: there is no vggsound.csv in {root} or one folder down. {OBTAIN}")
    rows = []
    for row in read_table(path, COLUMNS, names=COLUMNS, obtain=OBTAIN):
        video, label, split = (row[column].strip() for column in ("id", "label", "split"))
        if split not in SPLITS:
            raise row.error(f"the split {split!r}, not {' or '.join(SPLITS)}", OBTAIN)
        rows.append((video, row.number("start"), label, split))
    return rows


def _path(files: MediaFiles, video: str, start: int) -> Path:
    """The clip's file under the first usual name that exists."""
    names = [f"{video}_{start:06d}", f"{video}_{start}", f"{video}_{start}_{start + SECONDS}"]
    names.append(f"{video}_{start * 1000}_{(start + SECONDS) * 1000}")
    found = [files.find(name, lambda _: True) for name in names]
    return next((path for path in found if path.is_file()), found[0])
