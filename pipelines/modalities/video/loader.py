"""The loader of masked video clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

from ....shards.format.manifest import component_of
from ...augment import Augmentation, CenterCrop, MultiScaleCrop
from ...flow.codec import ANCHOR_STRIDE
from ...masks import Mask, TokenGrid
from ...stream.build import Build, LoaderOptions
from ...stream.loader import Loader
from ..backend import choose_backend
from .batch import VideoBatch
from .clip import VideoClip
from .sample import VideoSampler


class VideoLoader(Loader[VideoBatch]):
    """A `Loader` of VideoBatch: `grid` is the token grid of its masks, `flow` the source that was chosen."""

    grid: TokenGrid
    clip: VideoClip
    flow: Literal["codec", "dis"] | None


def video_loader(
    location: str | Path,
    *,
    clip: VideoClip | None = None,
    mask: Mask | None = None,
    backend: Literal["auto", "cpu", "dali"] = "auto",
    augment: Augmentation | None = None,
    flow: Literal["auto", "codec", "dis", "none"] = "auto",
    views: int = 1,
    tubelet: int = 2,
    patch: int = 16,
    component: str | None = None,
    **options: Unpack[LoaderOptions],
) -> VideoLoader:
    """A loader of masked clips from a folder of shards (one split, such as `data/shards/k400/train`).

    options: batch_size, seed, shuffle, workers and what else all loaders take (`build.LoaderOptions`). batch_size is
    samples per rank; with `views=k` each is decoded once and gives k clips with crops and masks of their own, so a
    batch has batch_size * k clips. mask: a pattern of `maskstream.pipelines.masks`, or None. augment: by default the
    multi-scale crop of VideoMAE when shuffled, the central crop otherwise; nothing is flipped unless it says so. flow:
    where motion comes from; "auto" is no flow for masks that need none, the codec's motion vectors where the shards
    allow it, else DIS. component: the video that is read where a sample has several, such as "cam0.mp4"; by default the
    only one.

    Errors: ValueError for settings, ShardError where the location holds no finished split.
    """
    clip = clip or VideoClip()
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    build = Build.of(location, "video", options)
    profile = build.manifest.info["profile"]
    clip = aligned(clip, profile)
    source = flow_source(flow, mask, clip, profile)
    sampler = VideoSampler(
        manifest=build.manifest,
        clip=clip,
        grid=TokenGrid.video(clip.frames, clip.size, clip.size, tubelet=tubelet, patch=patch),
        augment=augment or (MultiScaleCrop() if build.shuffle else CenterCrop()),
        mask=mask,
        flow=source,
        seed=build.seed,
        views=views,
        component=component_of(build.manifest.components, ("video",), component).name,
    )
    made_by = choose_backend(backend, sampler, build.device, build.threads, build.workers)
    loader = build.loader(VideoLoader, made_by, mask=mask, grid=sampler.grid)
    loader.grid, loader.clip, loader.flow = sampler.grid, clip, source
    return loader


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
