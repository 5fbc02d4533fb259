"""The trajectory modality: clips of colour and depth, camera poses, and the next waypoint."""

from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.trajectory import TrajectoryFigures
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.trajectory.data import CUES, TrajectoryData
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.preprocess.encode.trajectory.encoder import TrajectoryEncoder
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.arrays import CAMERA_PATH
from maskstream.shards.members.video import VIDEO

from .video import CLIP


def figures(data: DataConfig[Any], manifest: Manifest) -> TrajectoryFigures:
    """Return the figures of trajectory clips.

    Args:
        data: The data config.
        manifest: The split.
    """
    if not isinstance(data, TrajectoryData):
        raise TypeError(f"trajectory figures need a TrajectoryData, got {type(data).__name__}")
    clip = data.clip
    return TrajectoryFigures(
        grid=data.grids["video"],
        clip=f"{clip.frames} frames, {clip.spacing}, {clip.size} px",
        ahead_s=data.ahead_s,
        manifest=manifest,
    )


TRAJECTORY = Modality(
    name="trajectory",
    unit="walk",
    units="walks",
    kinds=(VIDEO.name, CAMERA_PATH.name),
    encoder=TrajectoryEncoder,
    data=TrajectoryData(clip=VideoClip(), tubelet=2, mask=MASKS["tube"]()),
    masks=(MaskField(grid=CLIP, cues=CUES),),
    figures=figures,
    demo=Demo(recipe="where2imagine-tiny"),
    stages={
        "decode": ("Decoding", "depth=False, a larger stride, or more cores would help"),
        "convert": ("Conversion to RGB and to metres", "a smaller output, or more cores would help"),
        "mask": ("Drawing masks", "a simpler mask, or more worker processes would help"),
    },
)
