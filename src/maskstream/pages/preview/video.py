"""The preview of clips of video."""

from __future__ import annotations

from dataclasses import replace

from ..page import environment, render
from .build import flow_words
from .opened import Opened
from .page import GridWords, clip_views


def video_page(opened: Opened) -> str:
    """One HTML file, complete in itself, about every clip of the batch: frames, mask, flow, and tokens over time."""
    loader, mask = opened.loader, opened.masks["mask"]
    clip = loader.clip
    facts = opened.facts(
        clip=f"{clip.frames} frames, stride {clip.stride}, {clip.size} px",
        flow=flow_words(loader.flow, guides=mask is not None and "flow" in mask.needs),
    )
    views = clip_views(opened.batch, loader.grid, label_names=opened.label_names)
    return render(
        environment(),
        "preview.html.j2",
        title=opened.title,
        facts=facts,
        grid=GridWords.of(loader.grid),
        clips=[replace(view, view=opened.name(i).view) for i, view in enumerate(views)],
    )
