"""Any folder of files of one modality, by default videos, with one folder per class or with a list.

Without a list, the layout is ROOT/train/CLASS/... and ROOT/val/CLASS/... (and test), or ROOT/CLASS/..., which is all
train. A list is a csv, tsv, JSON Lines or Parquet file in ROOT, or one for each split (train.csv, val.csv, or
train/metadata.csv and so on), with a row for each sample. Only the first of these columns is required:

    path         the file, relative to ROOT, or absolute and below it; or file_name, file, video, audio, image
    label        a name or a number; none if it is empty
    labels       several: separated by ";", or a list. --set 'separator=;' splits `label` too
    split        train, val or test; train if it is empty
    start, end   part of a video, audio file or pose sequence, in seconds or as 1:02:03.5; other rows may use other
        parts
    key          the sample's name; by default its path and part

Every other column becomes a field of the samples with the type of its values; loaders read it with `fields=`.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.image.encoder import IMAGE_SUFFIXES, ImageEncoder, part, read_picture
from maskstream.preprocess.encode.mesh.encoder import MeshEncoder
from maskstream.preprocess.encode.mesh.surfaces import SURFACE_SUFFIXES
from maskstream.preprocess.encode.points.encoder import POINT_SUFFIXES, TEXT_SUFFIX, PointEncoder
from maskstream.preprocess.encode.pose.encoder import POSE_SUFFIXES, PoseEncoder
from maskstream.preprocess.encode.text.encoder import TextEncoder
from maskstream.preprocess.encode.video.encoder import DrawnClip, VideoEncoder
from maskstream.preprocess.encode.video.profile import BLOCK
from maskstream.preprocess.raw.lists import LIST_SUFFIXES
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError
from maskstream.shards.named import list_few

from .dataset import Dataset, dataset_of, file_noun, in_archives, reads_media, require_folder
from .folders import VIDEO_SUFFIXES, list_class_folders, list_media, readable
from .listed import describe_unread_lists, find_lists, listed_sources

LISTS = in_archives(*LIST_SUFFIXES)
_USUAL = {
    **{"video": ".mp4", "audiovisual": ".mp4", "audio": ".wav", "image": ".jpg"},
    **{"mesh": ".obj", "points": ".ply", "pose": ".bvh"},
}
"""Usual suffix of each modality, for advice in messages."""


@LISTS
def folder(
    root: Path,
    labelled: bool = True,
    name: str = "folder",
    encoder: Encoder | None = None,
    suffixes: Collection[str] = VIDEO_SUFFIXES,
    *,
    separator: str = "",
    unread: Mapping[str, str] | None = None,
) -> Dataset:
    """Read any folder of files of one modality: one folder per class, or a list.

    Args:
        root: Folder of the raw data.
        labelled: Whether files without labels are a doubt, unless a list omits labels.
        name: Name of the dataset, such as audio-folder.
        encoder: Encoder of the files; a VideoEncoder by default.
        suffixes: Suffixes of the files to read.
        separator: Text between several labels of a sample in a list.
        unread: Suffixes of unsupported files, which are a doubt, with advice for each.

    Raises:
        DatasetError: There is no such file, or a list does not have the format above.
    """
    encoder = encoder or VideoEncoder()
    modality = encoder.modality
    endings = f"*{_USUAL.get(modality) or min(suffixes)}"
    obtain = (
        f"Arrange the {file_noun(modality)} as ROOT/train/CLASS/{endings} and ROOT/val/CLASS/{endings}, or list them "
        "in ROOT/list.csv (path,label,split)"
    )
    require_folder(root, name=name, obtain=obtain)
    others = Counter[str]()
    if lists := find_lists(root, name, modality):
        found = listed_sources(lists, root, encoder, obtain=obtain, separator=separator)
        label_names, listed, doubt = found.label_names, found.splits, found.doubt
    else:
        label_names, listed, doubt = list_class_folders(root, suffixes, others)
        doubt = doubt or describe_unread_lists(root) or _describe_passed_over(root, unread or {})
    if not listed:
        found_none = f"{root}{f' lists no {modality}' if lists else f' contains no {modality}'}"
        raise DatasetError(f"{name}: {doubt if doubt and not lists else found_none}. {obtain}")
    labelled = labelled and (not lists or bool(label_names))
    dataset = dataset_of(
        name, label_names, listed, root=root, obtain=obtain, encoder=encoder, doubt=doubt, labelled=labelled
    )
    return replace(dataset, passed_over=others)


def _describe_passed_over(root: Path, unread: Mapping[str, str]) -> str:
    """Return a message about files in unsupported formats; "" if there are none."""
    found = list_media(root, unread) if unread else []
    if not found:
        return ""
    kinds = list(dict.fromkeys(path.suffix.lower() for path in found))
    names = list_few([readable(path.relative_to(root)) for path in found])
    remedies = "; ".join(dict.fromkeys(unread[kind] for kind in kinds))
    many = "1 file" if len(found) == 1 else f"{len(found)} files"
    return (
        f"{many} in {root} would be ignored ({names}): {remedies}, or move {'it' if len(found) == 1 else 'them'} away"
    )


AUDIO_SUFFIXES = frozenset(
    {".aac", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
    | {".wma"}
)
SOUND_SUFFIXES = AUDIO_SUFFIXES | {".mkv", ".mov", ".mp4", ".webm"}
"""Suffixes of files with an audio track, including videos."""


@LISTS
def audio_folder(root: Path, *, separator: str = "") -> Dataset:
    """Read any folder of audio files: one folder per class, or a list.

    Args:
        root: Folder of the raw data.
        separator: Text between several labels of a sample in a list.

    Raises:
        DatasetError: As for `folder`.
    """
    return folder(root, True, "audio-folder", AudioEncoder(), AUDIO_SUFFIXES, separator=separator)


@LISTS
def audiovisual_folder(root: Path, *, separator: str = "") -> Dataset:
    """Read any folder of videos with audio: one folder per class, or a list.

    Args:
        root: Folder of the raw data.
        separator: Text between several labels of a sample in a list.

    Raises:
        DatasetError: As for `folder`.
    """
    return folder(root, True, "audiovisual-folder", AudioVisualEncoder(), separator=separator)


@LISTS
def image_folder(root: Path, *, separator: str = "") -> Dataset:
    """Read any folder of images, also DICOM (.dcm): one folder per class, or a list.

    Args:
        root: Folder of the raw data.
        separator: Text between several labels of a sample in a list.

    Raises:
        DatasetError: As for `folder`.
    """
    return folder(root, True, "image-folder", ImageEncoder(), IMAGE_SUFFIXES, separator=separator)


@LISTS
def still_folder(root: Path, *, separator: str = "") -> Dataset:
    """Read any folder of images, each as a video of one frame: one folder per class, or a list.

    Clips repeat the frame, so a mixture with videos trains one model on both, as V-JEPA 2 does (Assran et al., 2025,
    section 2).

    Args:
        root: Folder of the raw data.
        separator: Text between several labels of a sample in a list.

    Raises:
        DatasetError: As for `folder`.
    """
    found = image_folder(root, separator=separator)
    splits = {split: [replace(one, made_by=still) for one in sources] for split, sources in found.splits.items()}
    return replace(found, name="still-folder", splits=splits, encoder=VideoEncoder())


def still(source: Source) -> DrawnClip:
    """Return the image of a source as a clip of one frame, centre-cropped to whole blocks of the codec.

    Args:
        source: Source of an image file.

    Raises:
        RejectError: The image cannot be used.
    """
    pixels = read_picture(source.path).pixels
    colours = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB)
    height, width = (size // BLOCK * BLOCK or size for size in colours.shape[:2])
    top, left = (colours.shape[0] - height) // 2, (colours.shape[1] - width) // 2
    return DrawnClip(frames=[part(colours.astype(np.uint8, copy=False), left, top, width, height)], fps=1)


_AS_MESH = "save meshes as PLY, OBJ or GLB (Blender, MeshLab and trimesh do)"
_AS_CLOUD = "save clouds as PLY, PCD, E57, LAS or NPY (CloudCompare and PDAL do)"
UNREAD_SOLIDS: Mapping[str, str] = {
    **dict.fromkeys((".3ds", ".3mf", ".blend", ".dae", ".fbx", ".gltf", ".iges", ".igs", ".msh", ".step"), _AS_MESH),
    **dict.fromkeys((".stp", ".usd", ".usda", ".usdc", ".usdz", ".vtk", ".vtp", ".vtu", ".wrl", ".x3d"), _AS_MESH),
    **dict.fromkeys((".copc", ".drc", ".fls", ".pcap", ".ptx", ".rcp", ".rcs", ".spz", ".splat", ".zfs"), _AS_CLOUD),
    **dict.fromkeys((".asc", ".csv"), "rename text files with x, y, z in each line to .xyz"),
    ".bin": "save the rows of .bin files, whose length is not stored in them, as NPY (N, columns)",
    ".txt": "add --set txt=true to read .txt files with x, y, z in each line",
}
"""Unsupported formats of point clouds and meshes, with advice for each."""


@LISTS
def mesh_folder(root: Path, *, separator: str = "") -> Dataset:
    """Read any folder of mesh files (OBJ, PLY, STL, OFF or GLB).

    Args:
        root: Folder of the raw data.
        separator: Text between several labels of a sample in a list.

    Raises:
        DatasetError: As for `folder`.
    """
    unread = {suffix: how for suffix, how in UNREAD_SOLIDS.items() if suffix not in (".bin", ".txt", ".asc")}
    return folder(root, False, "mesh-folder", MeshEncoder(), SURFACE_SUFFIXES, separator=separator, unread=unread)


@LISTS
def points_folder(root: Path, *, separator: str = "", txt: bool = False) -> Dataset:
    """Read any folder of point clouds (PLY, PCD, E57, LAS, LAZ, XYZ, PTS, NPY) or of meshes to sample points on (OBJ,
    PLY, STL, OFF, GLB).

    Colours, intensity, normals and classes of points keep their names (encode/points/clouds.py). An NPY file contains
    an array (N, 3 or more) of numbers, and XYZ and PTS files one line for each point; `--set 'columns=["x", "y", "z",
    "red", "green", "blue"]'` names the columns if the file does not. `--set up=z` defines the axis that points upwards.
    A LAS or LAZ tile becomes one sample; the dataset `las` cuts tiles into blocks.

    Args:
        root: Folder of the raw data.
        separator: Text between several labels of a sample in a list.
        txt: Also read .txt files, with x, y, z in each line.

    Raises:
        DatasetError: As for `folder`.
    """
    suffixes = POINT_SUFFIXES | ({TEXT_SUFFIX} if txt else set())
    unread = {suffix: how for suffix, how in UNREAD_SOLIDS.items() if suffix not in suffixes}
    return folder(root, True, "points-folder", PointEncoder(), suffixes, separator=separator, unread=unread)


@LISTS
def pose_folder(root: Path, *, separator: str = "") -> Dataset:
    """Read any folder of pose sequences (BVH, NPZ).

    The contents of an NPZ file are described in encode/pose/motion_files.py. BVH files do not define their unit and
    axes: `--set bvh_unit_m=0.01` and `--set bvh_up=y` are the defaults.

    Args:
        root: Folder of the raw data.
        separator: Text between several labels of a sample in a list.

    Raises:
        DatasetError: As for `folder`.
    """
    return folder(root, True, "pose-folder", PoseEncoder(), POSE_SUFFIXES, separator=separator)


@reads_media
def txt(root: Path, *, separator: str = "") -> Dataset:
    """Read any folder of text files in UTF-8 (.txt), one document each: one folder per class, or a list.

    Args:
        root: Folder of the raw data.
        separator: Text between several labels of a sample in a list.

    Raises:
        DatasetError: As for `folder`.
    """
    return folder(root, False, "txt", TextEncoder(), {".txt"}, separator=separator)
