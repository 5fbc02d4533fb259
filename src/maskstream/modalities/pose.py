"""The pose modality."""

from dataclasses import replace
from typing import Any

import numpy as np

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.pose import PoseFigures
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.pose.data import PoseData, compute_pose_grid
from maskstream.preprocess.encode.pose.encoder import PoseEncoder
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.arrays import POSES


def with_usual_frames(manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
    """Return `data` with clips no longer than the median pose sequence.

    Args:
        manifest: The split.
        data: The data config.
    """
    if not isinstance(data, PoseData):
        return data
    facts = component_of(manifest.components, (POSES.name,), data.component).facts
    frames = int(np.median(facts["n_frames"])) // data.clip.stride
    return replace(data, clip=replace(data.clip, frames=min(max(frames, 9), data.clip.frames)))


def figures(data: DataConfig[Any], manifest: Manifest) -> PoseFigures:
    """Return the figures of pose clips.

    Args:
        data: The data config.
        manifest: The split.
    """
    if not isinstance(data, PoseData):
        raise ValueError(f"pose figures need a PoseData, got {type(data).__name__}")
    rate_hz = component_of(manifest.components, (POSES.name,), data.component).facts["rate_hz"]
    return PoseFigures(clip=data.clip, rate_hz=float(np.median(rate_hz)), label_names=label_names(manifest.info))


POSE = Modality(
    name="pose",
    unit="clip",
    units="clips",
    kinds=(POSES.name,),
    encoder=PoseEncoder,
    data=PoseData(mask=MASKS["mpm"]()),
    masks=(MaskField(grid=compute_pose_grid(243, 17)),),
    suited=with_usual_frames,
    figures=figures,
    demo=Demo(
        recipe="mpm-tiny",
        settings="--steps 1000",
        more=(  # lifting after the pre-training, and from scratch
            "train mpm-lift-tiny --data {data}/train --out {run}/pre-trained --initial {run}/model.safetensors",
            "report {run}/pre-trained --data {data}/val --out {run}/pre-trained.html",
            "train mpm-lift-tiny --data {data}/train --out {run}/scratch",
            "report {run}/scratch --data {data}/val --out {run}/scratch.html",
        ),
    ),
    stages={"convert": ("Drawing cameras and projecting poses", "more cores would help")},
)
