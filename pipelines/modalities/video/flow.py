"""Flow sources for the clips of a split, and the device transform that computes flow.

For masks that follow flow, the sampler stores everything that determines them (seed, epoch, key, view, position) as
draws of the batch. On CUDA, a `DeviceMask` computes identical bits in torch on the flow's device; for other masks, flow
is copied to the CPU. A mixture has one device transform, so its parts need the same `BatchFlow`.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from maskstream.pipelines.flow import BatchFlow
from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.flow.choice import AUTO, FLOWS, NONE, FlowChoice, find_flow, resolve_flow
from maskstream.pipelines.flow.cuts import scene_cuts
from maskstream.pipelines.flow.source import Codec, FlowSource
from maskstream.pipelines.masks import Cues, Mask, TokenGrid
from maskstream.pipelines.masks.core import DeviceMask, MaskBatch, maps_of, read_only

from .batch import VideoBatch
from .clip import VideoClip, start_multiple
from .clip_plan import FLOW_CUES

CUES = frozenset({"frames", "energy"}) | FLOW_CUES
"""Mask inputs available for clips."""


def make_flow_source(
    flow: FlowChoice, mask: Mask | None, clip: VideoClip, profile: str, *, one_rate: bool = True
) -> FlowSource | None:
    """Resolve a choice as in `VideoData` to a flow source; None for no flow.

    Args:
        flow: Flow choice.
        mask: Mask that may need flow.
        clip: Clip settings.
        profile: Profile of the shards.
        one_rate: True if the videos of all cameras of a sample have the same frame rate.

    Raises:
        ValueError: The source is not available.
    """
    needed = mask is not None and bool(mask.needs & FLOW_CUES)
    if flow == NONE and needed:
        words = ", ".join(map(repr, (AUTO, *FLOWS)))
        raise ValueError(f"{mask} needs flow, got flow='none'; use one of {words}, a SampleFlow or a BatchFlow")
    if clip.is_timed and isinstance(find_flow(flow), Codec):
        raise ValueError(
            f"flow={flow!r} needs frames at a constant stride, but a clip has {clip.spacing}; use flow='dis'"
        )
    if not one_rate and isinstance(find_flow(flow), Codec):
        raise ValueError(
            f"flow={flow!r} needs frames at a constant stride, but cameras have different rates; use flow='dis'"
        )
    stride = clip.stride if one_rate and not clip.is_timed else 0
    return resolve_flow(flow, needed=needed, profile=profile, stride=stride, align=start_multiple(clip, profile))


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowFinish:
    """Adds the flow computed by `flow`, and the masks of the host batch's draws, if any."""

    flow: BatchFlow
    mask: Mask | None
    grid: TokenGrid
    masks: Literal["auto", "numba", "torch"] = "auto"
    """Backend of the masks; results are bit-identical. "torch" computes them on the flow's device, for a `DeviceMask`.
    "numba" computes them on the CPU, so flow and masks are copied. "auto" is torch on CUDA and numba on a CPU. Batches
    with a scene cut always use numba, scene by scene.
    """

    @torch.no_grad()
    def __call__(self, batch: VideoBatch, device: torch.device) -> VideoBatch:
        """Add flow and masks to the batch.

        Raises:
            ValueError: The flow has the wrong shape.
        """
        flow = self._flow(batch)
        mask = batch.mask if self.mask is None or not batch.draws else self._masks(self.mask, batch, flow)
        return replace(batch, flow=flow, mask=mask, draws=())

    def _flow(self, batch: VideoBatch) -> Flow:
        clips, frames = batch.video.shape[:2]
        vectors = self.flow.of_clips(batch.video)
        if vectors.ndim != 5 or vectors.shape[:3] != (clips, frames - 1, 2):
            raise ValueError(
                f"the flow of {clips} clips of {frames} frames must have the shape ({clips}, {frames - 1}, 2, "
                f"h, w), got {tuple(vectors.shape)} from {self.flow.title}"
            )
        vectors = vectors.float().movedim(2, 4).contiguous()
        cuts = scene_cuts(batch.video, vectors)
        return Flow(vectors=vectors, valid=(~cuts)[..., None, None].expand(vectors.shape[:4]).contiguous(), cuts=cuts)

    def _masks(self, pattern: Mask, batch: VideoBatch, flow: Flow) -> MaskBatch:
        """Compute the masks of the batch's draws, with its weights."""
        if isinstance(pattern, DeviceMask) and self._on_device(flow.vectors.device) and not bool(flow.cuts.any()):
            mask = pattern.draw_on_device(self.grid, batch.draws, flow.vectors)
            return mask if batch.weight is None else mask.weighted(batch.weight)
        seen = read_only(batch.video.cpu().numpy()) if "frames" in pattern.needs else [None] * len(batch.draws)
        each = zip(batch.draws, flow.vectors.cpu().numpy(), flow.cuts.cpu().numpy(), seen, strict=True)
        maps = [
            maps_of(pattern, self.grid, replace(draw, cues=Cues(flow=own, cuts=cuts, frames=frames)))
            for draw, own, cuts, frames in each
        ]
        mask = pattern.batched(self.grid, maps).to(batch.video.device)
        return mask if batch.weight is None else mask.weighted(batch.weight)

    def _on_device(self, device: torch.device) -> bool:
        return self.masks == "torch" or (self.masks == "auto" and device.type == "cuda")
