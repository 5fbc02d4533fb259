"""The choice of a flow source for the clips of a split."""

from __future__ import annotations

from maskstream.pipelines.flow.choice import AUTO, FLOWS, NONE, FlowChoice, flow_named, resolved_flow
from maskstream.pipelines.flow.source import Codec, FlowSource
from maskstream.pipelines.masks import Mask

from .clip import VideoClip, start_multiple


def flow_source(flow: FlowChoice, mask: Mask | None, clip: VideoClip, profile: str) -> FlowSource | None:
    """The source of flow for a choice as in `VideoData`, None for no flow. Raises ValueError if it is not available."""
    needed = mask is not None and "flow" in mask.needs
    if flow == NONE and needed:
        words = ", ".join(map(repr, (AUTO, *FLOWS)))
        raise ValueError(
            f"{mask} needs flow, and flow='none' was given; use one of {words}, a SampleFlow or a BatchFlow"
        )
    if clip.is_timed and isinstance(flow_named(flow), Codec):
        raise ValueError(f"flow={flow!r} follows frames of one stride, but a clip has {clip.spacing}; use flow='dis'")
    stride = 0 if clip.is_timed else clip.stride
    return resolved_flow(flow, needed=needed, profile=profile, stride=stride, align=start_multiple(clip, profile))
