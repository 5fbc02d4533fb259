"""The page of flow: the same clips with every source of flow, in one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
import torch

from maskstream.pipelines.flow import FLOWS, FlowSource
from maskstream.pipelines.flow.picture import choose_flow_scale
from maskstream.pipelines.flow.source import confidence
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.cameras import has_one_rate
from maskstream.pipelines.modalities.video.clip import aligned, start_multiple
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.arrays import Bools, Float32s
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.url import split_name

from .figures.card import Card, Fact, Facts, FrameTrack, Movie, Section
from .figures.figures import MaskRow
from .figures.pictures import sized
from .figures.video import (
    choose_picture_side,
    draw_confidence_track,
    draw_flow_track,
    draw_picture_track,
    draw_seen_track,
    find_first_picture,
)
from .figures.words import percent, plural
from .page import page, write_page
from .preview import first_batch

Shown = Mapping[str, tuple[str, VideoBatch]]
"""Title of each source of flow and a batch with its flow and masks, by the source's name."""


def write_flow_page(
    location: str | Path,
    data: DataConfig[Any],
    *,
    out: str | Path,
    sources: Sequence[FlowSource] | None = None,
    more: Sequence[FlowSource] = (),
    samples: int = 4,
    seed: int = 0,
) -> Path:
    """Write a page of clips with the flow of every source.

    Clips, crops and masks are the same as in training with a loader of this seed.

    Args:
        location: Location of the split.
        data: A VideoData whose mask follows flow.
        out: HTML file.
        sources: Flow sources; defaults to all of FLOWS that can serve these shards.
        more: Further sources.
        samples: Number of clips.
        seed: Seed of the loader.

    Returns:
        `out`.

    Raises:
        ValueError: A setting is not allowed, or a given source cannot serve the shards.
    """
    if not isinstance(data, VideoData) or data.mask is None or "flow" not in data.mask.needs:
        raise ValueError(f"a flow page needs video clips with a mask that follows flow, got {data}")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    manifest = Manifest.load(location)
    words: dict[type, str] = {kind: word for word, kind in FLOWS.items()}
    one_rate = has_one_rate(manifest, data.component)
    left_out = {} if sources else find_unfit_sources(data, str(manifest.info["profile"]), one_rate=one_rate)
    sources = [*(sources or [kind() for word, kind in FLOWS.items() if word not in left_out]), *more]
    for source in more:
        left_out.pop(words.get(type(source), ""), None)
    shown = {
        words.get(type(source), type(source).__name__.lower()): (
            source.title,
            first_batch(replace(data, flow=source), manifest, samples, seed),
        )
        for source in sources
    }
    _, first = next(iter(shown.values()))
    cameras: dict[str, Shown] = {
        name: {word: (title, batch.cameras[name]) for word, (title, batch) in shown.items()} for name in first.cameras
    } or {"": shown}
    text = page(
        kind="flow",
        title=f"Flow of {split_name(manifest.location, manifest.info['split'])}",
        lede=(
            f"{plural(len(first), 'clip')}, each with the flow of {plural(len(shown), 'source')}. Under each flow "
            "are its confidence and the visible tokens of a mask that follows it: tokens that stay on their "
            "content were tracked correctly."
        ),
        facts={
            "location": str(location),
            "profile": str(manifest.info["profile"]),
            "clip": f"{data.clip.frames} frames, stride {data.clip.stride}, {data.clip.size} px",
            "mask": repr(data.mask),
            "seed": str(seed),
            **{f"without {word}": reason for word, reason in left_out.items()},
        },
        sections=(
            Section(cards=tuple(card(one, i, data, name) for i in range(len(first)) for name, one in cameras.items())),
        ),
    )
    return write_page(text, out)


def card(shown: Shown, i: int, data: VideoData, camera: str = "") -> Card:
    """Draw clip `i` with every source: flow, its confidence, and the visible tokens.

    Args:
        shown: Title and batch of each source.
        i: Row of the clip.
        data: The data config.
        camera: Name of the camera, if there are several.
    """
    (_, batch), grid = next(iter(shown.values())), data.grids["video"]
    video = batch.video[i].cpu().numpy()
    frames = sized(video, grid, choose_picture_side(len(batch) * batch.video.shape[1] * (1 + len(shown))))
    times = batch.pts_s[i].tolist()
    tracks: list[FrameTrack] = [draw_picture_track(frames, grid)]
    flows = [one.flow for _, one in shown.values() if one.flow is not None]
    scale = median_low(
        [choose_flow_scale(flow.vectors[i].cpu().numpy(), flow.valid[i].cpu().numpy()) for flow in flows]
    )
    facts = []
    for word, (title, one) in shown.items():
        flow, mask = one.flow, one.mask
        if flow is None or mask is None:
            continue
        vectors, valid, cuts = (part[i].cpu().numpy() for part in (flow.vectors, flow.valid, flow.cuts))
        trust = confidence(video, vectors, valid)
        size = (frames.shape[1], frames.shape[2])
        for heading, track in (
            (f"{word}: {title}.", draw_flow_track(flow, i, grid, size, scale)),
            (f"Confidence of {word}.", draw_confidence_track(trust, size)),
            (f"The mask along {word}.", draw_seen_track(frames, MaskRow.of(mask, i), grid)),
        ):
            short = f"{track.title.split()[0]}, {word}"
            tracks.append(replace(track, name=f"{track.name}-{word}", title=short, heading=heading))
        facts.append(_facts(word, vectors, trust, valid, cuts))
    return Card(
        key=batch.key[i],
        title=f"{batch.key[i]}, {camera}" if camera else "",
        words=f"{plural(len(times), 'frame')}, {times[0]:.2f} to {times[-1]:.2f} s of its video",
        facts=tuple(facts),
        figures=(Movie(tracks=tuple(tracks), times=tuple(times), together=grid.patch[0], first=len(times) // 2),),
        icon=find_first_picture(tracks[0]),
    )


def find_unfit_sources(data: VideoData, profile: str, *, one_rate: bool = True) -> dict[str, str]:
    """Return, by name, why sources of FLOWS cannot serve shards of a profile.

    Args:
        data: The data config.
        profile: Profile of the shards.
        one_rate: See `make_flow_source`.
    """
    clip = aligned(data.clip, profile)
    align = start_multiple(clip, profile)
    reasons = {
        word: kind().unfit(profile, stride=clip.stride if one_rate else 0, align=align)
        or kind().missing(torch.device("cpu"))
        for word, kind in FLOWS.items()
    }
    return {word: reason for word, reason in reasons.items() if reason}


def _facts(word: str, vectors: Float32s, trust: Float32s, valid: Bools, cuts: Bools) -> Facts:
    """Return measurements of the flow of one clip, over pairs of frames of one scene."""
    one_scene = ~cuts if not cuts.all() else np.ones_like(cuts)
    return Facts(
        title=word,
        items=(
            Fact(name="Cells with a vector", value=percent(float(valid[one_scene].mean()))),
            Fact(name="Confidence", value=percent(float(trust[one_scene].mean()))),
            Fact(name="Mean length", value=f"{np.linalg.norm(vectors[one_scene], axis=-1).mean():.1f}", of="px"),
            Fact(name="Scene cuts", value=str(int(cuts.sum()))),
        ),
    )
