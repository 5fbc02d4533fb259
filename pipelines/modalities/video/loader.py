"""The loader of masked video clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

from ....shards.format.manifest import component_of
from ...augment import Augmentation, CenterCrop, MultiScaleCrop
from ...flow.codec import ANCHOR_STRIDE
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..backend import Backend, dali_serves
from ..split import Options, Split, split_of
from .batch import VideoBatch
from .clip import VideoClip
from .data import VideoData
from .sample import ClipRequest, VideoDraft, VideoSampler

VideoSource = Source[ClipRequest, VideoDraft, VideoBatch, VideoBatch]


def video_loader(
    location: str | Path,
    *,
    clip: VideoClip | None = None,
    mask: Mask | None = None,
    backend: Backend = "auto",
    augment: Augmentation | None = None,
    flow: Literal["auto", "codec", "dis", "none"] = "auto",
    views: int = 1,
    tubelet: int = 2,
    patch: int = 16,
    component: str | None = None,
    **options: Unpack[Options],
) -> Loader[VideoBatch]:
    """A loader of masked clips from a folder of shards (one split, such as `data/shards/k400/train`).

    options: batch_size, seed, shuffle, workers and what else all loaders take (`Options`). batch_size is samples per
    rank. backend: who decodes; "auto" is DALI on a CUDA device where it is installed and decodes the shards' codecs,
    where no flow is needed and no worker processes are asked for. The other settings are those of `video_sampler`.

    Errors: ValueError for settings, ShardError where the location holds no finished split.
    """
    split, loading = split_of(location, "video", options)
    sampler = video_sampler(
        split,
        clip=clip,
        mask=mask,
        augment=augment,
        flow=flow,
        views=views,
        tubelet=tubelet,
        patch=patch,
        component=component,
    )
    source = video_source(split, sampler)
    if dali_serves(backend, split.device, split.workers, suits=sampler.flow is None):
        from .dali import on_dali, undecodable

        if backend == "dali" or not undecodable(sampler, split.device):
            return Loader(on_dali(source, sampler, split.device, split.threads), **loading)
    return Loader(source, **loading)


def video_sampler(
    split: Split,
    *,
    clip: VideoClip | None = None,
    mask: Mask | None = None,
    augment: Augmentation | None = None,
    flow: Literal["auto", "codec", "dis", "none"] = "auto",
    views: int = 1,
    tubelet: int = 2,
    patch: int = 16,
    component: str | None = None,
) -> VideoSampler:
    """What makes masked clips of a split; ValueError for settings.

    With `views=k` each sample is decoded once and gives k clips with crops and masks of their own, so a batch has
    batch_size * k clips. mask: a pattern of `maskstream.pipelines.masks`, or None. augment: by default the multi-scale
    crop of VideoMAE when shuffled, the central crop otherwise; nothing is flipped unless it says so. flow: where motion
    comes from; "auto" is no flow for masks that need none, the codec's motion vectors where the shards allow it, else
    DIS. component: the video that is read where a sample has several, such as "cam0.mp4"; by default the only one.
    """
    clip = clip or VideoClip()
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    profile = split.manifest.info["profile"]
    clip = aligned(clip, profile)
    return VideoSampler(
        manifest=split.manifest,
        clip=clip,
        grid=TokenGrid.video(clip.frames, clip.size, clip.size, tubelet=tubelet, patch=patch),
        augment=augment or (MultiScaleCrop() if split.shuffle else CenterCrop()),
        mask_of=mask,
        flow=flow_source(flow, mask, clip, profile),
        seed=split.seed,
        views=views,
        component=component_of(split.manifest.components, ("video",), component).name,
    )


def chosen(sampler: VideoSampler) -> VideoData:
    """What decides the batches, with all that was left to choose chosen: what a resume compares."""
    tubelet, patch, _ = sampler.grid.patch
    return VideoData(
        clip=sampler.clip,
        mask=sampler.mask_of,
        augment=sampler.augment,
        flow=sampler.flow or "none",
        views=sampler.views,
        component=sampler.component,
        tubelet=tubelet,
        patch=patch,
    )


def video_source(split: Split, sampler: VideoSampler) -> VideoSource:
    """The clips of a split as a source, which a loader or a mixture goes through."""
    return Source(
        sampler=sampler,
        finish=Unchanged(),
        samples=split.samples,
        identity={"data": chosen(sampler).to_dict(identity=True), "dataset": split.manifest.fingerprint},
        visible=visible_tokens((sampler.mask_of, sampler.grid)),
        form={
            "clip.frames": sampler.clip.frames,
            "clip.size": sampler.clip.size,
            "token grid": sampler.grid,
            "views": sampler.views,
            "mask": sampler.mask_of,
            "flow": "yes" if sampler.flow else "no",
        },
    )


def aligned(clip: VideoClip, profile: str) -> VideoClip:
    """The clip with what `align=None` means on shards of a profile."""
    if clip.align is not None:
        return clip
    anchored = profile == "train" and clip.stride % ANCHOR_STRIDE == 0
    return replace(clip, align=ANCHOR_STRIDE if anchored else 1)


def flow_source(flow: str, mask: Mask | None, clip: VideoClip, profile: str) -> Literal["codec", "dis"] | None:
    """Where the flow of clips comes from (see `video_loader`); ValueError where it cannot."""
    if flow not in ("auto", "none", "codec", "dis"):
        raise ValueError(f"flow={flow!r}; legal are 'auto', 'codec', 'dis' and 'none'")
    needed = mask is not None and "flow" in mask.needs
    if flow == "none" and needed:
        raise ValueError(f"{mask} needs flow, and flow='none' was given; use 'auto', 'codec' or 'dis'")
    if flow == "none" or (flow == "auto" and not needed):
        return None
    usable = profile == "train" and clip.stride == ANCHOR_STRIDE and (clip.align or 1) % ANCHOR_STRIDE == 0
    if flow == "codec" and not usable:
        raise ValueError(
            f"flow='codec' with shards of profile {profile!r}, stride {clip.stride}, align {clip.align}: motion "
            f"vectors are flow only in the profile 'train' at stride {ANCHOR_STRIDE} and align {ANCHOR_STRIDE}; "
            "use flow='dis'"
        )
    return "codec" if usable and flow != "dis" else "dis"
