"""Rows of clips that are packed for a decoder of whole batches; what that one cannot decode is decoded on the CPU.

A packed clip is an MP4 of its own, with one fragment of one frame per tick, for decoders that select frames by number.
DALI's decoder always decodes from the first frame, and starts over for a repeated number, so only the packets that the
clip needs are packed, and each frame is asked for once.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import decode_frames, to_rgb, wanted_packets, wanted_pts
from maskstream.pipelines.decode.nvdec import CODECS, missing_libraries, picture_format, refused, unusual
from maskstream.pipelines.flow.source import SampleFlow
from maskstream.pipelines.masks import Draw, MaskBatch
from maskstream.pipelines.modalities.rows import Item, Masked, Memory, Planned, RowMaker, SampleRows
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import DataError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.h264_sps import UnknownSpsError, list_sps, uncropped_header
from maskstream.shards.media.mp4 import Int64Array, Packets, Track, read_header
from maskstream.shards.stores.base import Range

from .rows import AroundClip, ClipBytes, ClipPlan, ClipRowMaker

_SYNC, _NON_SYNC = 0x02000000, 0x01010000


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedClip:
    """The needed packets of a clip, as a separate MP4.

    mp4: uint8 (bytes,). header_size: the bytes of it before the fragment. frames: int32 (F,), increasing, the distinct
    frames of the clip by number in this MP4. order: int32 (T,), the index into `frames` of each frame of the clip.
    pts_s: float64 (T,), seconds from the start of the original video. size: the width and height of the decoded frames,
    which may have more at the right and at the bottom than the video. standard, full_range: their colours.
    """

    mp4: npt.NDArray[np.uint8]
    header_size: int
    frames: npt.NDArray[np.int32]
    order: npt.NDArray[np.int32]
    pts_s: npt.NDArray[np.float64]
    size: tuple[int, int]
    standard: str
    full_range: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a clip is decoded on the CPU, in words."""

    reason: str


def encoded_clip(
    data: ClipBytes,
    numbers: Int64Array,
    size: tuple[int, int],
    device: str,
) -> EncodedClip | Refusal:
    """Packs the packets needed for the frames `numbers`, or says why the decoder on `device` does not decode them.

    size: the width and height of the video in pixels. device: "cuda" or "cpu". Raises Mp4Error if the bytes contradict
    the index.
    """
    track, fragments = read_header(data.header), memoryview(data.fragments)
    packets = data.packets
    pts = wanted_pts(packets, data.first_frame, numbers)
    kept = wanted_packets(fragments, track, packets, pts)
    kept = kept[packets.pts[kept] >= packets.pts[0]]  # DALI would count frames before the keyframe
    if reason := refused(device, track, fragments, packets, kept, size):
        return Refusal(reason)
    try:
        form = picture_format(data.header, track, fragments, packets, kept, size)
        header, decoded = _uncropped(data.header, track, size)
    except DataError as error:
        return Refusal(f"a first frame that cannot be decoded ({error})")
    if reason := unusual(form):
        return Refusal(reason)
    different, order = np.unique(pts, return_inverse=True)
    return EncodedClip(
        mp4=np.frombuffer(packed(header, data.fragments, track, packets, kept), dtype=np.uint8),
        header_size=len(header),
        frames=np.searchsorted(np.sort(packets.pts[kept]), different).astype(np.int32),
        order=order.astype(np.int32),
        pts_s=pts / track.timescale,
        size=decoded,
        standard=form.standard,
        full_range=form.full_range,
    )


def _uncropped(header: bytes, track: Track, size: tuple[int, int]) -> tuple[bytes, tuple[int, int]]:
    """The header without cropping, and the size of the frames; H.264 that cannot be read stays as it is."""
    if track.codec != "h264":
        return header, size
    try:
        whole = uncropped_header(header)
        return whole, size if whole == header else list_sps(read_header(whole).extradata)[0].shown
    except UnknownSpsError:
        return header, size


def first_frame(clip: EncodedClip, crop: Crop, size: int) -> npt.NDArray[np.uint8]:
    """The crop of the first frame of a clip, decoded on the CPU: uint8 (size, size, 3).

    Raises DataError if it cannot be decoded.
    """
    mp4 = clip.mp4.tobytes()
    number = np.array([clip.frames[clip.order[0]]], dtype=np.int64)
    fragment = memoryview(mp4)[clip.header_size :]
    decoded = decode_frames(mp4[: clip.header_size], fragment, 0, number, size=clip.size)
    out = np.empty((1, size, size, 3), dtype=np.uint8)
    to_rgb(decoded.frames, crop, (size, size), out)
    first: npt.NDArray[np.uint8] = out[0]
    return first


def packed(header: bytes, fragments: bytes, track: Track, packets: Packets, kept: Int64Array) -> bytes:
    """An MP4 of the header and one fragment (ISO 14496-12, 8.8) of the packets `kept`, one frame per tick."""
    rank = np.argsort(np.argsort(packets.pts[kept]))
    late = rank - np.arange(len(kept))
    flags = np.where(packets.keyframe[kept], _SYNC, _NON_SYNC)
    table = np.stack([np.ones_like(late), packets.size[kept], flags, late - late.min()], axis=1).astype(">u4").tobytes()
    head = _box(b"mfhd", struct.pack(">II", 0, 1))
    ids = _box(b"tfhd", struct.pack(">II", 0x020000, track.track_id)) + _box(b"tfdt", struct.pack(">II", 0, 0))
    # The distance from moof's first byte to mdat's payload: four box headers (moof, traf, trun, mdat), trun's fields.
    offset = len(head) + len(ids) + len(table) + 4 * 8 + 12
    run = _box(b"trun", struct.pack(">III", 0x000F01, len(kept), offset) + table)
    body = b"".join(
        fragments[start : start + size]
        for start, size in zip(packets.start[kept].tolist(), packets.size[kept].tolist(), strict=True)
    )
    return header + _box(b"moof", head + _box(b"traf", ids + run)) + _box(b"mdat", body)


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


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
class PackedPlan(AroundClip):
    """The plan of a clip; packed: the clip, once it is packed or decoded."""

    clip: ClipPlan
    packed: EncodedClip | CpuClip | None = None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        return self.clip.ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRowMaker(RowMaker[PackedPlan, PackedBatch]):
    """Makes the draws of `clips`, then reads and packs clips instead of decoding them.

    A clip whose format the decoder on the type of device `device` does not take is decoded here, so which of the two
    decodes it depends on its bytes alone.
    """

    clips: ClipRowMaker
    device: str

    @property
    def masks(self) -> tuple[Masked, ...]:
        """The mask of the clip."""
        return self.clips.masks

    @property
    def form(self) -> Mapping[str, object]:
        """What the parts of a mixture share of their clips, and the decoder."""
        return {**self.clips.form, "backend": "dali"}

    def identity(self, split: Split) -> dict[str, Any]:
        """What a resume compares of the clips, and the decoder: DALI's pixels differ from the CPU's."""
        return {**self.clips.identity(split), "backend": "dali"}

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

    def fill(self, item: Item, plan: PackedPlan, batch: PackedBatch, own: SampleRows, stats: Stats) -> None:
        """Reads and packs a clip, or decodes it; raises SampleError if its bytes contradict the index."""
        size = (plan.clip.video.width, plan.clip.video.height)
        with item.manifest.reading(item.index, self.clips.component), stats.stage("read"):
            data = self.clips.read(item, plan.clip)
            clip = encoded_clip(data, plan.numbers, size, self.device)
        if isinstance(clip, Refusal):
            decoded = self.clips.layout(Memory([plan.clip], item.views))
            self.clips.fill(item, plan.clip, decoded, SampleRows(0, item.views), stats)
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
