"""Pack the packets of clips for a decoder of whole batches; unsupported clips are decoded on the CPU.

A packed clip is a separate MP4 with a packet table and one frame per tick, for decoders that select frames by number.
DALI's decoder always starts at the first frame, and restarts for a repeated number, so only the packets that the clip
needs are packed, and each frame is requested once. The first frame, a keyframe, is also decoded here, to determine the
format and later to verify that the decoder decoded this clip.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from av.video.frame import VideoFrame

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import (
    cut_planes,
    decode_keyframe,
    read_colours,
    select_packets_for,
    select_pts,
)
from maskstream.pipelines.decode.nvdec import (
    CODECS,
    describe_unusual,
    extract_parameter_sets,
    missing_libraries,
    missing_torchcodec,
    refused,
)
from maskstream.pipelines.flow.source import SampleFlow
from maskstream.pipelines.modalities.rows import BatchRows, Items, Masked, Memory, RowMaker, Traits
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Bools, Float64s, Int32s, Int64s, UInt8s
from maskstream.shards.errors import DataError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.h264_sps import UnknownSpsError, remove_header_cropping
from maskstream.shards.media.mp4 import Packets, boxes, read_header
from maskstream.shards.stores.base import Range

from .batch import PlaneBatch, VideoBatch
from .clip_plan import AroundClip, ClipBytes, ClipPlan
from .rows import ClipRowMaker

LOOK = 16
"""Side of the thumbnails used to compare frames."""
STILL_BYTES, STILL_BITS = 24, 0.75
"""A packet with at most this many bytes, and bits per macroblock, may leave the whole frame unchanged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedClip:
    """The packets that a clip needs, as a separate MP4."""

    mp4: UInt8s
    """uint8 (bytes,)."""
    frames: Int32s
    """int32 (F,): distinct frames of the clip by number in this MP4, increasing from 0, including the keyframe at its
    start.
    """
    order: Int32s
    """int32 (T,): index into `frames` of each frame of the clip."""
    look: UInt8s
    """uint8 (LOOK, LOOK): luma of the keyframe, see `look_of`."""
    moves: Bools
    """bool (T,): True if the packets from the keyframe to the first frame, and from each frame to the next, are too
    large for a frozen frame.
    """
    pts_s: Float64s
    """float64 (T,): seconds from the start of the original video."""
    shown: tuple[int, int]
    """Width and height of the video."""
    size: tuple[int, int]
    """Width and height of decoded frames, which may have extra pixels at the right and bottom."""
    standard: str
    """Colour matrix."""
    full_range: bool
    """True for full-range colours."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason to decode a clip on the CPU."""

    reason: str


def pack_clip(
    data: ClipBytes,
    numbers: Int64s,
    size: tuple[int, int],
    device: str,
) -> EncodedClip | Refusal:
    """Pack the packets needed for frames `numbers`, or return why the decoder on `device` does not support them.

    Args:
        data: Bytes of the clip.
        numbers: int64 (T,), frame numbers in the video.
        size: Width and height of the video in pixels.
        device: "cuda" or "cpu".

    Raises:
        Mp4Error: The bytes contradict the index.
    """
    track, fragments = read_header(data.header), memoryview(data.fragments)
    packets = data.packets
    pts = select_pts(packets, data.first_frame, numbers)
    kept = select_packets_for(fragments, track, packets, pts)
    kept = kept[packets.pts[kept] >= packets.pts[0]]  # DALI would count frames before the keyframe
    if reason := refused(device, track, fragments, packets, kept, size):
        return Refusal(reason)
    key = int(kept[0])
    try:
        frame, coded = decode_keyframe(track, fragments, packets, key, size)
    except DataError as error:
        return Refusal(f"a first frame that cannot be decoded ({error})")
    if reason := describe_unusual(track, frame, coded, bool(extract_parameter_sets(track, fragments, packets, key))):
        return Refusal(reason)
    header = data.header
    if track.codec == "h264" and coded != size:
        try:
            header = remove_header_cropping(header)
        except (DataError, UnknownSpsError) as error:
            return Refusal(f"h264 whose parameter sets cannot be read ({error})")
        if header == data.header:
            return Refusal(f"h264 of {size[0]}x{size[1]} pixels, whose cropping cannot be removed from its header")
    shown = np.argsort(packets.pts[kept])
    places = np.searchsorted(packets.pts[kept][shown], np.append(packets.pts[key], pts))
    frames, order = np.unique(places, return_inverse=True)
    bytes_to = np.append(0, np.cumsum(packets.size[kept][shown]))[places + 1]
    still = STILL_BYTES + STILL_BITS / 8 * -(-size[0] // 16) * -(-size[1] // 16)
    standard, full_range = read_colours(frame)
    return EncodedClip(
        mp4=np.frombuffer(packed(header, data.fragments, packets, kept), dtype=np.uint8),
        frames=frames.astype(np.int32),
        order=order[1:].astype(np.int32),
        look=look_of(frame),
        moves=np.diff(bytes_to) > still * np.diff(places),
        pts_s=pts / track.timescale,
        shown=size,
        size=coded if track.codec == "h264" else size,
        standard=standard,
        full_range=full_range,
    )


def look_of(frame: VideoFrame) -> UInt8s:
    """Sample the luma of a 4:2:0 frame at the centres of LOOK x LOOK cells, uint8 (LOOK, LOOK)."""
    whole = Crop(x=0, y=0, width=frame.width, height=frame.height)
    picked: UInt8s = cut_planes(frame, whole)[0][look_places((frame.width, frame.height))]
    return picked


def look_places(shown: tuple[int, int]) -> tuple[Int64s, Int64s]:
    """Return the rows, int64 (LOOK, 1), and columns (LOOK,) of a thumbnail's pixels."""
    columns, rows = (((np.arange(LOOK) + 0.5) * side / LOOK).astype(np.int64) for side in shown)
    return rows[:, None], columns


def packed(header: bytes, fragments: bytes, packets: Packets, kept: Int64s) -> bytes:
    """Build an MP4 of the packets `kept` with a packet table (ISO 14496-12, 8.6 and 8.7), one frame per tick.

    `header` is the `ftyp moov` of a fragmented MP4, as `read_header` parsed it.
    """
    count, sizes = len(kept), packets.size[kept]
    rank = np.argsort(np.argsort(packets.pts[kept]))
    late = rank - np.arange(count)
    keys = np.flatnonzero(packets.keyframe[kept]) + 1
    tables = (
        _pack_table(b"stts", 1, [count, 1])
        + _pack_table(b"ctts", count, np.stack([np.ones_like(late), late - late.min()], axis=1))
        + _pack_table(b"stss", len(keys), keys)
        + _pack_table(b"stsc", 1, [1, count, 1])
        + _make_box(b"stsz", struct.pack(">III", 0, 0, count) + sizes.astype(">u4").tobytes())
    )
    place = len(_with_tables(header, tables)) + 20 + 8  # behind the packet table and the mdat header
    tables += _pack_table(b"stco", 1, [place])
    body = b"".join(
        fragments[start : start + size]
        for start, size in zip(packets.start[kept].tolist(), sizes.tolist(), strict=True)
    )
    return _with_tables(header, tables) + _make_box(b"mdat", body)


_INTO = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def _with_tables(header: bytes, tables: bytes) -> bytes:
    """Insert tables into the header's first `stbl`, after the sample entry, and remove the boxes of fragmented MP4."""
    around, made = _cut_around_tables(header)
    made += tables
    for kind, (before, behind) in zip(reversed(_INTO), reversed(around), strict=True):
        made = before + _make_box(kind, made) + behind
    return made


@lru_cache(maxsize=1024)
def _cut_around_tables(header: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the bytes before and after each of the nested boxes `_INTO`, and the sample entry."""
    data, span, around = memoryview(header), (0, len(header)), []
    for name in _INTO:
        found = [box for box in boxes(data, *span) if box[0] != b"mvex"]
        place = next(n for n, (kind, *_) in enumerate(found) if kind == name)
        sides = (found[:place], found[place + 1 :])
        before, behind = (b"".join(data[start:end] for _, start, _, end in side) for side in sides)
        around.append((before, behind))
        span = found[place][2:]
    entry = next(data[start:end] for kind, start, _, end in boxes(data, *span) if kind == b"stsd")
    return around, bytes(entry)


def _pack_table(kind: bytes, count: int, numbers: npt.ArrayLike) -> bytes:
    """Build a version-0 box with a count and its numbers."""
    return _make_box(kind, struct.pack(">II", 0, count) + np.asarray(numbers).astype(">u4").tobytes())


def _make_box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedBatch(VideoBatch):
    """A host batch of clips, most of them encoded; see `VideoBatch`.

    `video` and `planes` hold the views of the clips that were decoded on the CPU, in order.
    """

    clips: list[EncodedClip | Refusal]
    """Encoded clip of each sample, or why it was decoded on the CPU."""
    wanted: list[Wanted]
    """Identity of each sample."""
    crops: list[list[Crop]]
    """Crops of each sample's views."""


@dataclass(kw_only=True, slots=True)
class PackedPlan(AroundClip):
    """Plan of a clip that will be packed."""

    clip: ClipPlan
    wanted: Wanted
    """Identity of the sample."""
    packed: EncodedClip | Refusal | None = None
    """The clip, once packed or refused."""
    pixels: UInt8s | None = None
    """Pixels of a refused clip, uint8 (views, T, size, size, 3); empty if it was decoded to planes."""

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges to read."""
        return self.clip.ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRowMaker(RowMaker[PackedPlan, EncodedBatch]):
    """Makes the same draws as `clips`, then reads and packs clips instead of decoding them.

    Clips in formats that the decoder on `device` does not support are decoded here, so the choice depends only on their
    bytes. Planes are bit-identical whichever decoder produced them, so with planes the decoder is not part of the
    identity.
    """

    clips: ClipRowMaker
    device: str

    @property
    def _decoder(self) -> dict[str, str]:
        return {"backend": "dali"} if self.clips.output == "rgb" else {}

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Mask of the clip."""
        return self.clips.masks

    @property
    def traits(self) -> Traits:
        """Traits of the clips plus the decoder, since DALI's pixels differ from the CPU's."""
        clips = self.clips.traits
        return Traits(identity={**clips.identity, **self._decoder}, form={**clips.form, **self._decoder})

    def plan(self, items: Items) -> list[PackedPlan]:
        """Draw the clips and crops of samples."""
        both = zip(self.clips.plan(items), items.wanted.each(), strict=True)
        return [PackedPlan(clip=clip, wanted=wanted) for clip, wanted in both]

    def layout(self, memory: Memory[PackedPlan]) -> EncodedBatch:
        """Create the empty batch; `join` adds the clips."""
        size = self.clips.clip.size
        return EncodedBatch(
            clips=[],
            video=torch.empty((0, self.clips.clip.frames, size, size, 3), dtype=torch.uint8),
            wanted=[],
            crops=[],
            mask=None,
            flow=None,
            pts_s=memory(np.float64, self.clips.clip.frames),
            key=memory.key,
            label=memory.label,
        )

    def fill(self, rows: BatchRows[PackedPlan], batch: EncodedBatch, stats: Stats) -> None:
        """Read and pack clips, or decode them.

        Raises:
            SampleError: The bytes of a clip contradict its index.
        """
        for n, (item, plan, own) in enumerate(rows):
            size = (plan.clip.video.width, plan.clip.video.height)
            with item.manifest.reading(item.index, self.clips.component):
                with stats.stage("read"):
                    data = self.clips.read(item, plan.clip)
                with stats.stage("decode"):
                    clip = plan.packed = pack_clip(data, plan.numbers, size, self.device)
            if isinstance(clip, Refusal):
                memory = Memory([plan.clip], item.views)
                decoded = self.clips.layout(memory)
                self.clips.fill(BatchRows(rows.items.part(n), [plan.clip], [0], memory.arrays), decoded, stats)
                plan.pixels = decoded.video.numpy()
                own.of(batch.pts_s)[:] = decoded.pts_s.numpy()
            else:
                stats.read_bytes += data.size_bytes
                stats.short += plan.clip.short
                own.of(batch.pts_s)[:] = clip.pts_s

    def join(self, batch: EncodedBatch, plans: Iterable[PackedPlan], made: Mapping[str, Any]) -> EncodedBatch:
        """Add the clips to the batch."""
        own = list(plans)
        pixels = [plan.pixels for plan in own if plan.pixels is not None]
        planes = [view for plan in own for view in plan.clip.planes]
        return replace(
            batch,
            clips=[plan.packed for plan in own if plan.packed is not None],
            video=torch.from_numpy(np.concatenate(pixels)) if pixels else batch.video,
            planes=PlaneBatch.of(planes) if planes else None,
            wanted=[plan.wanted for plan in own],
            crops=[plan.clip.crops for plan in own],
            draws=tuple(draw for plan in own for draw in plan.clip.draws),
            **made,
        )


def unsuited(clips: ClipRowMaker, manifest: Manifest, device: torch.device, backend: str) -> str:
    """Return why DALI or torchcodec cannot serve a loader of these clips on a device; "" if it can."""
    if backend == "torchcodec" and device.type != "cuda":
        return "torchcodec decodes on CUDA devices; PyAV does on a CPU"
    if backend == "torchcodec" and (lacks := missing_torchcodec()):
        return lacks
    if change := clips.changes.title:
        return f"{change} runs on the CPU"
    if clips.sees_frames:
        return f"{clips.mask} needs the frames of each sample, but {backend} decodes whole batches"
    if clips.sees_energy:
        return f"{clips.mask} needs the stored energy, but {backend} receives only packets"
    if isinstance(clips.flow, SampleFlow):
        return (
            f"flow={clips.flow} needs single clips, but {backend} decodes whole batches (use a BatchFlow, or "
            "flow='none' with a mask that needs no flow)"
        )
    legal = CODECS.get(device.type, ())
    codecs = manifest.components[clips.component].words["codec"].names
    if not set(codecs) & set(legal):
        return (
            f"it decodes {' and '.join(legal) or 'nothing'} on the device {device.type!r}, but "
            f"{manifest.location} contains {', '.join(sorted(codecs))}"
        )
    if device.type == "cuda" and (missing := missing_libraries()):
        return (
            f"NVDEC needs {' and '.join(missing)}, which cannot be loaded (containers have it with the driver "
            "capability 'video')"
        )
    return ""
