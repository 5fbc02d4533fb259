"""Rows of clips that are packed for a decoder of whole batches; what that one cannot decode is decoded on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.nvdec import CODECS, missing_libraries
from maskstream.pipelines.flow.source import SampleFlow
from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.modalities.rows import Item, Masked, Memory, Planned, RowMaker, Rows
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Range

from .packed_clip import EncodedClip, Refusal, encoded_clip
from .read import Int64s
from .rows import ClipPlan, ClipRowMaker


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuClip:
    """A clip that was decoded on the CPU: uint8 (views, T, size, size, 3), and why."""

    pixels: npt.NDArray[np.uint8]
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch(Batch):
    """A host batch of clips, most of them encoded.

    clips: per sample the encoded clip, or why it was decoded on the CPU. pixels: uint8 (views of these, T, size, size,
    3), the latter in order. wanted: per sample which one it is. crops: per sample those of its views. The rest is as in
    `VideoBatch`.
    """

    clips: list[EncodedClip | Refusal]
    pixels: Tensor
    wanted: list[Wanted]
    crops: list[list[Crop]]
    mask: MaskBatch | None
    pts_s: Tensor
    draws: tuple[Draw, ...]


@dataclass(kw_only=True, slots=True)
class PackedPlan:
    """The plan of a clip; packed: the clip, once it is packed or decoded."""

    clip: ClipPlan
    packed: EncodedClip | CpuClip | None = None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        return self.clip.ranges

    @property
    def numbers(self) -> Int64s:
        """The frame numbers of the clip."""
        return self.clip.numbers

    @property
    def n_frames(self) -> int:
        """The number of frames of the whole video."""
        return self.clip.n_frames


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRowMaker(RowMaker[PackedPlan, PackedBatch]):
    """Makes the draws of `clips`, then reads and packs clips instead of decoding them.

    A clip whose format the decoder on the type of device `device` does not take, or that is not one of `formats`, is
    decoded here, so which of the two decodes it depends on its bytes alone.
    """

    clips: ClipRowMaker
    device: str
    formats: frozenset[str] | None = None

    @property
    def masks(self) -> tuple[Masked, ...]:
        """The mask of the clip."""
        return self.clips.masks

    @property
    def form(self) -> Mapping[str, object]:
        """That of the clips, and the decoder."""
        return {**self.clips.form, "backend": "dali"}

    def identity(self, split: Split) -> dict[str, Any]:
        """That of the clips, and what is decoded by DALI, whose pixels differ from the CPU's."""
        formats = {} if self.formats is None else {"decoded_by_dali": sorted(self.formats)}
        return {**self.clips.identity(split), "backend": "dali", **formats}

    def plan(self, item: Item) -> PackedPlan:
        """Draws the clip and the crops of a sample."""
        return PackedPlan(clip=self.clips.plan(item))

    def layout(self, memory: Memory[PackedPlan]) -> PackedBatch:
        """The empty batch; `join` makes what is of clips."""
        return PackedBatch(
            clips=[],
            pixels=memory(np.uint8, 0),
            wanted=[],
            crops=[],
            mask=None,
            pts_s=memory(np.float64, self.clips.clip.frames),
            draws=(),
            key=memory.key,
            label=memory.label,
        )

    def fill(self, item: Item, plan: PackedPlan, batch: PackedBatch, own: Rows, stats: Stats) -> None:
        """Reads and packs a clip, or decodes it; raises SampleError if its bytes contradict the index."""
        size = (plan.clip.video.width, plan.clip.video.height)
        with item.manifest.reading(item.index, self.clips.component), stats.stage("read"):
            data = self.clips.read(item, plan.clip)
            clip = encoded_clip(data, plan.numbers, size, self.device, self.formats)
        if isinstance(clip, Refusal):
            decoded = self.clips.layout(Memory([plan.clip], item.views))
            self.clips.fill(item, plan.clip, decoded, Rows(0, item.views), stats)
            plan.packed = CpuClip(pixels=decoded.video.numpy(), reason=clip.reason)
            own.of(batch.pts_s)[:] = decoded.pts_s.numpy()
        else:
            stats.read_bytes += data.size_bytes
            plan.packed = clip
            own.of(batch.pts_s)[:] = clip.pts_s

    def join(self, batch: PackedBatch, planned: Sequence[Planned[PackedPlan]]) -> PackedBatch:
        """The batch with its clips."""
        clips = [one.plan.packed for one in planned if one.plan.packed is not None]
        own, pixels = self.clips.clip, [clip.pixels for clip in clips if isinstance(clip, CpuClip)]
        none = np.empty((0, own.frames, own.size, own.size, 3), dtype=np.uint8)
        return replace(
            batch,
            clips=[Refusal(clip.reason) if isinstance(clip, CpuClip) else clip for clip in clips],
            pixels=torch.from_numpy(np.concatenate(pixels) if pixels else none),
            wanted=[one.item.wanted for one in planned],
            crops=[one.plan.clip.crops for one in planned],
            draws=tuple(draw for one in planned for draw in one.plan.clip.draws),
        )


def unsuited(clips: ClipRowMaker, manifest: Manifest, device: torch.device) -> str:
    """Why DALI cannot serve the loader of some clips on a device, in words; "" if it can."""
    if clips.colour is not None:
        return "colour jitter is made on the CPU"
    if isinstance(clips.flow, SampleFlow):
        return (
            f"flow={clips.flow} needs single clips, and DALI decodes batches (a BatchFlow, or flow='none' with a "
            "mask that needs none, would suit)"
        )
    legal = CODECS.get(device.type, ())
    codecs = manifest.components[clips.component].words["codec"].names
    if not set(codecs) & set(legal):
        return (
            f"it decodes {' and '.join(legal) or 'nothing'} on the device {device.type!r}, and "
            f"{manifest.location} holds {', '.join(sorted(codecs))}"
        )
    if device.type == "cuda" and (missing := missing_libraries()):
        return (
            f"NVDEC needs {' and '.join(missing)}, which cannot be loaded (containers have it with the driver "
            "capability 'video')"
        )
    return ""
