"""The sampler that packs clips for a decoder of whole batches, and decodes on the CPU what that one cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ....shards.stores.base import Announcement
from ...decode.nvdec import CODECS, missing_libraries
from ...flow.source import SampleFlow
from ...masks.core.batch import MaskBatch
from ...masks.core.draw import Draw
from ...stream.batch import Batch
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from .packed_clip import EncodedClip, Refusal, encoded_clip
from .sample import ClipRequest, VideoDraft, VideoSampler


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuClip:
    """A clip that was decoded on the CPU: uint8 (views, T, size, size, 3), and why."""

    pixels: npt.NDArray[np.uint8]
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch(Batch):
    """A host batch of clips, most of them encoded.

    clips: per sample the encoded clip, or why it was decoded on the CPU. pixels: uint8 (views of these, T, size, size,
    3), the latter in order. requests: one per sample. The rest is as in `VideoBatch`.
    """

    clips: list[EncodedClip | Refusal]
    pixels: Tensor
    requests: list[ClipRequest]
    mask: MaskBatch | None
    pts_s: Tensor
    draws: tuple[Draw, ...]


@dataclass(kw_only=True, slots=True)
class PackedDraft:
    """The draft of a packed batch: `rest` holds everything but pixels, the lists have one entry per sample."""

    rest: VideoDraft
    clips: list[EncodedClip | CpuClip | None]
    requests: list[ClipRequest | None]


@dataclass(frozen=True, kw_only=True)
class PackingSampler:
    """Makes the draws of the video sampler `inner`, then reads and packs clips instead of decoding them.

    A clip whose format the decoder on the type of device `device` does not take, or that is not one of `formats`, is
    decoded here, so which of the two decodes it depends on its bytes alone.
    """

    inner: VideoSampler
    device: str
    formats: frozenset[str] | None = None

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.inner.seed

    @property
    def needs_progress(self) -> bool:
        """Whether the mask depends on the progress of the run."""
        return self.inner.needs_progress

    def request(self, wanted: Wanted) -> ClipRequest:
        """Draws the clip and the crops of a sample."""
        return self.inner.request(wanted)

    def announce(self, request: ClipRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.inner.announce(request)

    def allocate(self, requests: Sequence[object]) -> PackedDraft:
        """The draft of some requests, without pixels."""
        return PackedDraft(
            rest=self.inner.allocate(requests, size=0), clips=[None] * len(requests), requests=[None] * len(requests)
        )

    def mask(self, request: ClipRequest, draft: PackedDraft, row: int) -> None:
        """Draws the masks of a sample's views if they need no content."""
        self.inner.mask(request, draft.rest, row)

    def fill(self, request: ClipRequest, draft: PackedDraft, row: int, stats: Stats) -> None:
        """Reads and packs a clip, or decodes it; raises SampleError if its bytes contradict the index."""
        size = (request.video.width, request.video.height)
        with self.inner.manifest.reading(request.index, self.inner.component), stats.stage("read"):
            data = self.inner.read(request)
            clip = encoded_clip(data, request.numbers, size, self.device, self.formats)
        if isinstance(clip, Refusal):
            own = self.inner.allocate([request])
            self.inner.fill(request, own, 0, stats)
            draft.clips[row], pts_s = CpuClip(pixels=own.video, reason=clip.reason), own.pts_s[0]
        else:
            stats.read_bytes += data.size_bytes
            draft.clips[row], pts_s = clip, clip.pts_s
        draft.requests[row] = request
        self.inner.describe(request, pts_s, draft.rest, row)

    def join(self, draft: PackedDraft) -> PackedBatch:
        """The host batch."""
        clips = [clip for clip in draft.clips if clip is not None]
        own, rest = self.inner.clip, draft.rest
        pixels = [clip.pixels for clip in clips if isinstance(clip, CpuClip)]
        none = np.empty((0, own.frames, own.size, own.size, 3), dtype=np.uint8)
        return PackedBatch(
            clips=[Refusal(clip.reason) if isinstance(clip, CpuClip) else clip for clip in clips],
            pixels=torch.from_numpy(np.concatenate(pixels) if pixels else none),
            requests=[request for request in draft.requests if request is not None],
            mask=self.inner.mask_batch(rest),
            label=torch.from_numpy(rest.label),
            key=rest.key,
            pts_s=torch.from_numpy(rest.pts_s),
            draws=self.inner.draws(rest),
        )


def unsuited(sampler: VideoSampler, device: torch.device) -> str:
    """Why DALI cannot serve the loader of a sampler on a device, in words; "" if it can."""
    if sampler.colour is not None:
        return "colour jitter is made on the CPU"
    if isinstance(sampler.flow, SampleFlow):
        return (
            f"flow={sampler.flow} needs single clips, and DALI decodes batches (a BatchFlow, or flow='none' with a "
            "mask that needs none, would suit)"
        )
    legal = CODECS.get(device.type, ())
    codecs = sampler.manifest.components[sampler.component].words["codec"].names
    if not set(codecs) & set(legal):
        return (
            f"it decodes {' and '.join(legal) or 'nothing'} on the device {device.type!r}, and "
            f"{sampler.manifest.location} holds {', '.join(sorted(codecs))}"
        )
    if device.type == "cuda" and (missing := missing_libraries()):
        return (
            f"NVDEC needs {' and '.join(missing)}, which cannot be loaded (containers have it with the driver "
            "capability 'video')"
        )
    return ""
