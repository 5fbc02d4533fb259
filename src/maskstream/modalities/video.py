"""Clips of video."""

from dataclasses import replace
from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.video import VideoFigures
from maskstream.pipelines.flow import FlowSource
from maskstream.pipelines.masks import MASKS, TokenGrid
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.video.cameras import has_one_rate
from maskstream.pipelines.modalities.video.clip import aligned
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.modalities.video.flow import CUES, make_flow_source
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.shards.format.manifest import Manifest

CLIP = TokenGrid.video(16, 224, 224)
"""The tokens of a clip of the usual size."""


def with_flow(manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
    """Return `data` with DIS flow if the mask needs no flow, so that a page can show motion.

    Args:
        manifest: The split.
        data: The data config.
    """
    if not isinstance(data, VideoData) or (data.mask is not None and "flow" in data.mask.needs):
        return data
    return replace(data, flow="dis" if data.clip.frames > 1 else "none")


def figures(data: DataConfig[Any], manifest: Manifest) -> VideoFigures:
    """Return the figures of video clips.

    Args:
        data: The data config.
        manifest: The split.
    """
    if not isinstance(data, VideoData):
        raise ValueError(f"clip figures need a VideoData, got {type(data).__name__}")
    clip = data.clip
    profile = str(manifest.info["profile"])
    one_rate = has_one_rate(manifest, data.component)
    source = make_flow_source(data.flow, data.mask, aligned(clip, profile), profile, one_rate=one_rate)
    return VideoFigures(
        grid=data.grids["video"],
        clip=f"{clip.frames} frames, {clip.spacing}, {clip.size} px",
        flow=describe_flow(source, guides=data.mask is not None and "flow" in data.mask.needs),
        label_names=label_names(manifest.info),
    )


def describe_flow(source: FlowSource | None, *, guides: bool) -> str:
    """Describe the source of the flow on a page, and whether the mask uses it.

    Args:
        source: Source of the flow.
        guides: Whether the mask uses it.
    """
    name = "none" if source is None else source.title
    more = "; maskstream flow shows all sources side by side"
    return f"{name}, guides the mask{more}" if guides else f"{name}, for illustration; the mask does not use it"


VIDEO = Modality(
    name="video",
    unit="clip",
    units="clips",
    kinds=("video",),
    encoder=VideoEncoder,
    data=VideoData(mask=MASKS["motion-guided"]()),
    masks=(MaskField(grid=CLIP, cues=CUES),),
    suited=with_flow,
    figures=figures,
    demo=Demo(
        recipe="mgmae-tiny",
        dataset="moving-fashion-mnist",
        chosen="--set clips=1200 --set frames=16",
        settings="--batch-size 8 --set clip.frames=4 --set data.views=1 --set data.colour=null "
        "--set data.augment.scale=[0.6,1.0] --set model.decoder_depth=1 --set schedule.base_lr=0.064",
        probed=True,
    ),
    stages={
        "read": (
            "Reading",
            "the files are in memory already, so fewer bytes per clip would help: use the profile train",
        ),
        "decode": ("Decoding", "shards of the profile train, more cores, or a GPU with DALI would help"),
        "convert": ("Conversion to RGB", "a smaller output, or a GPU with DALI would help"),
        "mask": ("Drawing masks", "a mask without flow costs least"),
        "collate": ("Joining batches", "workers share them among several processes"),
        "finish": ("Finishing batches", "with DALI, clips are decoded there; flow for batches is computed there too"),
    },
)
