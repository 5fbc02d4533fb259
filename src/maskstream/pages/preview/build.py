"""Which flow pages about clips of video show."""

from __future__ import annotations

from typing import Literal

from ...pipelines.masks import Mask
from ...pipelines.modalities.video.clip import VideoClip

FlowChoice = Literal["auto", "codec", "dis", "none"]


def shown_flow(mask: Mask | None, clip: VideoClip, chosen: FlowChoice = "auto") -> FlowChoice:
    """The flow that a page shows: the one that guides the mask, as `chosen`; DIS flow where the mask needs none."""
    if mask is not None and "flow" in mask.needs:
        return chosen
    return "dis" if clip.frames > 1 else "none"


def flow_words(source: Literal["codec", "dis"] | None, *, guides: bool) -> str:
    """Where the flow of a page comes from, and whether the mask follows it."""
    name = {"codec": "the codec's motion vectors", "dis": "DIS", None: "none"}[source]
    return f"{name}, guides the mask" if guides else f"{name}, shown only; the mask does not use it"
