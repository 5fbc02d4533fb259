"""Any folder of files of one modality, videos unless another is named, with one folder per class or with a list.

Without a list, the layout is ROOT/train/CLASS/... and ROOT/val/CLASS/... (and test), or ROOT/CLASS/..., which is all
train. A list is one csv file in ROOT with the columns `path` (relative to ROOT, or absolute and below it), `label` (a
name or a number; none if it is empty or the column is missing) and `split` (train if it is empty or the column is
missing).
"""

import os
from collections.abc import Collection
from pathlib import Path

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.image.encoder import IMAGE_SUFFIXES, ImageEncoder
from maskstream.preprocess.encode.mesh.encoder import MeshEncoder
from maskstream.preprocess.encode.mesh.surfaces import SURFACE_SUFFIXES
from maskstream.preprocess.encode.points.encoder import POINT_SUFFIXES, PointEncoder
from maskstream.preprocess.encode.pose.encoder import POSE_SUFFIXES, PoseEncoder
from maskstream.preprocess.encode.text.encoder import TextEncoder
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.raw.lists import TableRow, read_table, whole_number
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, file_noun, in_archives, reads_media, require_folder
from .folders import SPLIT_FOLDERS, VIDEO_SUFFIXES, class_folders


@in_archives(".csv")
def folder(
    root: Path,
    labelled: bool = True,
    *,
    name: str = "folder",
    encoder: Encoder | None = None,
    suffixes: Collection[str] = VIDEO_SUFFIXES,
) -> Dataset:
    """The splits of a folder of files with one of `suffixes`; `name` is the dataset's name, such as audio-folder. Files
    without labels are a doubt if they should be `labelled`, and no list leaves the labels out.
    Raises DatasetError if there is no such file or the list does not have the format above.
    """
    encoder = encoder or VideoEncoder()
    modality = encoder.modality
    endings = "*.mp4" if modality == "video" else f"*{min(suffixes)}"
    obtain = (
        f"Lay the {file_noun(modality)} out as ROOT/train/CLASS/{endings} and ROOT/val/CLASS/{endings}, or list them "
        "in ROOT/list.csv (path,label,split)"
    )
    require_folder(root, name=name, obtain=obtain)
    lists = sorted(path for path in root.glob("*.csv") if path.is_file())
    if len(lists) > 1:
        raise DatasetError(
            f"{name}: {root} holds several csv files ({', '.join(p.name for p in lists)}), and one is read; "
            "put their rows into one file with the columns path, label and split"
        )
    label_names, listed, doubt = (
        (*_listed(lists[0], root, name, obtain), "") if lists else class_folders(root, suffixes)
    )
    if not listed:
        raise DatasetError(f"{name}: {root}{f' lists no {modality}' if lists else f' holds no {modality}'}. {obtain}")
    labelled = labelled and (not lists or bool(label_names))
    return dataset_of(
        name, label_names, listed, root=root, obtain=obtain, encoder=encoder, doubt=doubt, labelled=labelled
    )


def _listed(path: Path, root: Path, dataset: str, obtain: str) -> tuple[tuple[str, ...], dict[str, list[Source]]]:
    rows = list(read_table(path, ("path",), obtain=obtain))
    _check_distinct(rows, root)
    label_names, labels = _labels(rows)
    listed: dict[str, list[Source]] = {}
    for row, label in zip(rows, labels, strict=True):
        split = row.get("split") or "train"
        name = next((name for name, others in SPLIT_FOLDERS.items() if split in others), None)
        if name is None:
            raise row.error(f"the split {split!r}", f"Use one of {', '.join(SPLIT_FOLDERS)}")
        listed.setdefault(name, []).append(Source(id=row["path"], path=root / row["path"], label=label))
    return label_names, listed


def _check_distinct(rows: list[TableRow], root: Path) -> None:
    """Raise DatasetError if a row has no path, or two have the same one."""
    lines: dict[str, int] = {}
    for row in rows:
        if not row["path"]:
            raise row.error("no path")
        line = lines.setdefault(os.path.normpath(root / row["path"]), row.line)
        if line != row.line:
            raise row.error(f"the path {row['path']!r}, as line {line} has", "Take one of them out")


def _labels(rows: list[TableRow]) -> tuple[tuple[str, ...], list[int]]:
    """The sorted names, and the number of each row's label, -1 for none.

    If all labels are numbers, the names are the numbers 0 to the largest, so that each keeps its value.
    """
    found = {row.get("label") for row in rows} - {""}
    if found and all(whole_number(label) is not None for label in found):
        numbers = [row.number("label") if row.get("label") else -1 for row in rows]
        return tuple(map(str, range(1 + max(numbers)))), numbers
    names = tuple(sorted(found))
    number = {name: n for n, name in enumerate(names)}
    return names, [number.get(row.get("label"), -1) for row in rows]


AUDIO_SUFFIXES = frozenset(
    {".aac", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
    | {".wma"}
)
SOUND_SUFFIXES = AUDIO_SUFFIXES | {".mkv", ".mov", ".mp4", ".webm"}
"""Files that may hold a sound track, videos included."""


@in_archives(".csv")
def audio_folder(root: Path) -> Dataset:
    """Any folder of sounds: one folder per class, or a list.

    Raises DatasetError as `folder` does.
    """
    return folder(root, name="audio-folder", encoder=AudioEncoder(), suffixes=AUDIO_SUFFIXES)


@in_archives(".csv")
def audiovisual_folder(root: Path) -> Dataset:
    """Any folder of videos with sound: one folder per class, or a list.

    Raises DatasetError as `folder` does.
    """
    return folder(root, name="audiovisual-folder", encoder=AudioVisualEncoder())


@in_archives(".csv")
def image_folder(root: Path) -> Dataset:
    """Any folder of pictures, also DICOM (.dcm): one folder per class, or a list.

    Raises DatasetError as `folder` does.
    """
    return folder(root, name="image-folder", encoder=ImageEncoder(), suffixes=IMAGE_SUFFIXES)


@in_archives(".csv")
def mesh_folder(root: Path) -> Dataset:
    """Any folder of mesh files (OBJ, PLY, STL, OFF or GLB).

    Raises DatasetError as `folder` does.
    """
    return folder(root, name="mesh-folder", encoder=MeshEncoder(), suffixes=SURFACE_SUFFIXES, labelled=False)


@in_archives(".csv")
def points_folder(root: Path) -> Dataset:
    """Any folder of point clouds (PLY, NPY, LAS, LAZ) or of meshes to sample points on (OBJ, PLY, STL, OFF, GLB).

    An NPY file holds an array (N, 3 or more) of numbers, x, y, z first. A LAS or LAZ tile becomes one sample; the
    dataset `las` cuts tiles into blocks. Raises DatasetError as `folder` does.
    """
    return folder(root, name="points-folder", encoder=PointEncoder(), suffixes=POINT_SUFFIXES)


@in_archives()
def pose_folder(root: Path) -> Dataset:
    """Any folder of motions (BVH, NPZ, PSA of 0 A.D.).

    What an NPZ file holds is in encode/pose/motion_files.py. BVH files do not say their unit and axes:
    `--set bvh_unit_m=0.01` and `--set bvh_up=y` are the defaults. Raises DatasetError as `folder` does.
    """
    return folder(root, name="pose-folder", encoder=PoseEncoder(), suffixes=POSE_SUFFIXES)


@reads_media
def txt(root: Path) -> Dataset:
    """Any folder of text files in UTF-8 (.txt), one document each: one folder per class, or a list.

    Raises DatasetError as `folder` does.
    """
    return folder(root, name="txt", encoder=TextEncoder(), suffixes={".txt"}, labelled=False)
