"""Raw datasets, in the layouts of their publishers: functions that take the folder of the raw data and return a Dataset
of sources.

`BY_MODALITY` lists all of them. Sample sets are named by strings (`sample_sets`). Keyword-only numbers, booleans and
texts of a function are settings of the dataset, such as `fold`.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path

from maskstream.preprocess.source import Source
from maskstream.shards.named import imported, named

from .dataset import Dataset, in_archives, reads_media
from .documents import jsonl, parquet_text
from .folder import (
    audio_folder,
    audiovisual_folder,
    folder,
    image_folder,
    mesh_folder,
    points_folder,
    pose_folder,
    still_folder,
    txt,
)
from .image_folders import image_text_folder, imagefolder
from .knowledge_vqa import a_okvqa, infoseek, ok_vqa
from .lerobot import lerobot
from .m3ae_style import m3ae_style
from .medical_vqa import pathvqa, slake, vqa_rad
from .medthink import r_path, r_rad, r_slake
from .meshgraphnets import meshgraphnets
from .parquet_media import parquet_audio, parquet_image, parquet_image_text, parquet_video
from .point_clouds import las, modelnet40
from .refcoco import refcoco
from .shapenet import shapenet, shapenet55, shapenetpart
from .sounds import audio_json, audioset, esc50, librispeech, microphones
from .tum_rgbd import tum_rgbd
from .video_lists import rawframes, video_list
from .video_segments import activitynet, ava
from .videos import hmdb51, k400, ssv2, ucf101, vggsound

log = logging.getLogger(__name__)

BY_MODALITY: Mapping[str, Mapping[str, Callable[[Path], Dataset]]] = {
    "audio": {
        "audioset": audioset,
        "esc50": esc50,
        "librispeech": librispeech,
        "microphones": microphones,
        "audio-folder": audio_folder,
        "parquet-audio": parquet_audio,
        "audio-json": audio_json,
    },
    "audiovisual": {
        "audioset-video": partial(audioset, videos=True),
        "vggsound": vggsound,
        "audiovisual-folder": audiovisual_folder,
    },
    "image": {
        "imagefolder": imagefolder,
        "image-folder": image_folder,
        "parquet-image": parquet_image,
    },
    "image-text": {
        "a-okvqa": a_okvqa,
        "image-text-folder": image_text_folder,
        "infoseek": infoseek,
        "m3ae-style": m3ae_style,
        "ok-vqa": ok_vqa,
        "parquet-image-text": parquet_image_text,
        "pathvqa": pathvqa,
        "r-path": r_path,
        "r-rad": r_rad,
        "r-slake": r_slake,
        "refcoco": refcoco,
        "slake": slake,
        "vqa-rad": vqa_rad,
    },
    "mesh": {
        "mesh-folder": mesh_folder,
        "meshgraphnets": meshgraphnets,
    },
    "points": {
        "modelnet40": modelnet40,
        "shapenet": shapenet,
        "shapenet55": shapenet55,
        "shapenet34": partial(shapenet55, name="shapenet34", lists="ShapeNet-34"),
        "shapenetpart": shapenetpart,
        "las": las,
        "points-folder": points_folder,
    },
    "pose": {
        "pose-folder": pose_folder,
    },
    "text": {
        "jsonl": jsonl,
        "parquet-text": parquet_text,
        "txt": txt,
    },
    "trajectory": {
        "tum-rgbd": tum_rgbd,
    },
    "video": {
        "k400": k400,
        "k600": partial(k400, name="k600"),
        "k700": partial(k400, name="k700"),
        "ssv2": ssv2,
        "ucf101": ucf101,
        "hmdb51": hmdb51,
        "activitynet": activitynet,
        "ava": ava,
        "lerobot": lerobot,
        "video-list": video_list,
        "rawframes": rawframes,
        "folder": folder,
        "parquet-video": parquet_video,
        "still-folder": still_folder,
    },
}
"""Datasets by modality and name."""
DATASETS: dict[str, Callable[[Path], Dataset]] = {
    name: make for some in BY_MODALITY.values() for name, make in some.items()
}
"""Datasets of all modalities by name."""
_SAMPLES = "maskstream.samples"
FORMER: Mapping[str, tuple[str, str]] = {
    **{f"esc50-{fold}": ("esc50", f"fold={fold}") for fold in (2, 3, 4, 5)},
    **{f"{name}-{fold}": (name, f"fold={fold}") for name in ("hmdb51", "ucf101") for fold in (2, 3)},
    "audioset-balanced": ("audioset", "balanced=true"),
    "audioset-video-balanced": ("audioset-video", "balanced=true"),
    "gm-notes-pitch": ("gm-notes", "pitch=true"),
}
"""Names of version 0.2, which the next release removes: the dataset and the setting that replace each."""


def sample_sets() -> Mapping[str, Mapping[str, str]]:
    """Return the sample sets by modality and name, each as `package.module:name`, which is imported only when it is
    used.
    """
    found: Mapping[str, Mapping[str, str]] = import_module(_SAMPLES).SAMPLE_SETS
    return found


def named_dataset(name: str) -> Callable[[Path], Dataset]:
    """Return the function of a dataset.

    Args:
        name: A name of `DATASETS`, a sample set, or `package.module:name`.

    Raises:
        ValueError: The name is unknown.
    """
    samples = {one: place for some in sample_sets().values() for one, place in some.items()}
    known: dict[str, Callable[[Path], Dataset] | str] = {**DATASETS, **samples}
    found = named(name, known, "dataset")
    make: Callable[[Path], Dataset] = imported(found, "dataset") if isinstance(found, str) else found
    return make


def chosen_dataset(
    dataset: str | Callable[[Path], Dataset], settings: Sequence[str]
) -> tuple[Callable[[Path], Dataset], list[str]]:
    """Return the function of a dataset with its own settings applied, and the remaining settings, which are for its
    encoder.

    Args:
        dataset: A name (see `named_dataset`) or a function.
        settings: Texts NAME=VALUE.

    Raises:
        ValueError: The name is unknown, or a value has the wrong type.
    """
    if isinstance(dataset, str) and dataset in FORMER:
        former, (dataset, setting) = dataset, FORMER[dataset]
        log.warning(
            "the dataset %s is now %s with --set %s; the next release removes the old name",
            former,
            dataset,
            setting,
        )
        settings = [setting, *settings]
    make = named_dataset(dataset) if isinstance(dataset, str) else dataset
    defaults = own_settings(make)
    own: dict[str, int | str] = {}
    left: list[str] = []
    for setting in settings:
        name, _, text = setting.partition("=")
        if name in defaults:
            own[name] = _convert_value(name, text, defaults[name])
        else:
            left.append(setting)
    return (partial(make, **own) if own else make), left


def own_settings(make: Callable[[Path], Dataset]) -> dict[str, int | str]:
    """Return the settings of a dataset with their defaults, by name."""
    given = make.keywords if isinstance(make, partial) else {}
    return {
        name: one.default
        for name, one in signature(make).parameters.items()
        if one.kind is Parameter.KEYWORD_ONLY and name not in given and isinstance(one.default, int | str)
    }


def _convert_value(name: str, text: str, default: int | str) -> int | str:
    """Convert a setting to the type of its default: a boolean, number or text. Raise ValueError if it has another
    type.
    """
    if isinstance(default, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if not isinstance(value, int) or type(value) is not type(default):
        wanted = "true or false" if isinstance(default, bool) else "a number"
        raise ValueError(f"--set {name}={text} must be {wanted}, such as {name}={json.dumps(default)}")
    return value


__all__ = [
    "BY_MODALITY",
    "DATASETS",
    "FORMER",
    "Dataset",
    "Source",
    "chosen_dataset",
    "in_archives",
    "named_dataset",
    "own_settings",
    "reads_media",
    "sample_sets",
]
