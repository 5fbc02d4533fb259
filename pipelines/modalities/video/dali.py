"""Decode and resize whole batches with NVIDIA DALI: with NVDEC on a CUDA device, VP9 on the CPU.

The draws of clips, crops and masks are those of the CPU path (sample.py), and so are the decoded packets.
`PackingSampler` packs these packets into one MP4 fragment of one frame per tick, because DALI's decoder selects frames
by number, always decodes from the first one, and starts over for a repeated number. `DaliFinish` decodes the batch.

Pixels agree with the CPU path up to the decoders' colour conversion (1 to 2 levels on average). DALI converts NVDEC's
frames as BT.601, so the colours of BT.709 video in shards of the profile `copy` are shifted.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import nvidia.dali
import nvidia.dali.fn
import nvidia.dali.plugin.pytorch
import torch
from torch import Tensor

from ....shards.errors import SampleError
from ....shards.media.mp4 import Int64Array, Packets, Track, read_header
from ....shards.stores.base import Announcement
from ...augment.crop import Crop
from ...decode.packets import wanted_packets, wanted_pts
from ...flow.source import SampleFlow
from ...masks.core.batch import MaskBatch
from ...masks.core.draw import Draw
from ...stream.batch import Batch
from ...stream.sampler import BadRowsError, Composed, Wanted
from ...stream.source import Source
from ...stream.stats import Stats
from .batch import VideoBatch
from .sample import ClipBytes, ClipRequest, VideoDraft, VideoSampler

log = logging.getLogger(__name__)

dali: Any = nvidia.dali
"""Typed as Any, because DALI is only partly annotated."""

CODECS = {"cuda": ("h264", "hevc"), "cpu": ("vp9",)}
"""The codecs decoded on each type of device. NVDEC would count the hidden frames of VP9 and AV1."""

_SYNC, _NON_SYNC = 0x02000000, 0x01010000


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedClip:
    """The needed packets of a clip, as a separate MP4.

    mp4: uint8 (bytes,). frames: int32 (F,), increasing, the distinct frames of the clip by number in this MP4. order:
    int32 (T,), the index into `frames` of each frame of the clip. pts_s: float64 (T,), seconds from the start of the
    original video.
    """

    mp4: npt.NDArray[np.uint8]
    frames: npt.NDArray[np.int32]
    order: npt.NDArray[np.int32]
    pts_s: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch(Batch):
    """A host batch of encoded clips.

    clips, requests, regions: one per sample; a region is float32 (views, 6), see `region`. The rest is as in
    `VideoBatch`.
    """

    clips: list[EncodedClip]
    requests: list[ClipRequest]
    regions: list[npt.NDArray[np.float32]]
    mask: MaskBatch | None
    pts_s: Tensor
    draws: tuple[Draw, ...]


@dataclass(kw_only=True, slots=True)
class PackedDraft:
    """The draft of a packed batch: `rest` holds everything but pixels, the lists have one entry per sample."""

    rest: VideoDraft
    clips: list[EncodedClip | None]
    requests: list[ClipRequest | None]


@dataclass(frozen=True, kw_only=True)
class PackingSampler:
    """Makes the draws of the video sampler `inner`, then reads and packs clips instead of decoding them."""

    inner: VideoSampler

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

    def allocate(self, rows: int) -> PackedDraft:
        """The draft of `rows` samples, without pixels."""
        return PackedDraft(rest=self.inner.allocate(rows, size=0), clips=[None] * rows, requests=[None] * rows)

    def mask(self, request: ClipRequest, draft: PackedDraft, row: int) -> None:
        """Draws the masks of a sample's views if they need no content."""
        self.inner.mask(request, draft.rest, row)

    def fill(self, request: ClipRequest, draft: PackedDraft, row: int, stats: Stats) -> None:
        """Reads and packs a clip; raises SampleError if its bytes contradict the index."""
        with self.inner.manifest.reading(request.index, self.inner.component), stats.stage("read"):
            data = self.inner.read(request)
            clip = encoded_clip(data, request.numbers)
        stats.read_bytes += data.size_bytes
        draft.clips[row], draft.requests[row] = clip, request
        self.inner.describe(request, clip.pts_s, draft.rest, row)

    def join(self, draft: PackedDraft) -> PackedBatch:
        """The host batch."""
        requests = [request for request in draft.requests if request is not None]
        size, rest = self.inner.clip.size, draft.rest
        return PackedBatch(
            clips=[clip for clip in draft.clips if clip is not None],
            requests=requests,
            regions=[np.stack([region(crop, size) for crop in request.crops]) for request in requests],
            mask=self.inner.mask_batch(rest),
            label=torch.from_numpy(rest.label),
            key=rest.key,
            pts_s=torch.from_numpy(rest.pts_s),
            draws=self.inner.draws(rest),
        )


class DaliFinish:
    """Decodes batches with a DALI pipeline, which is built for the first batch and rebuilt for a larger one.

    If DALI fails, it fails for the whole batch. Its clips are then decoded on the CPU; those that fail there are bad
    rows.
    """

    def __init__(self, sampler: VideoSampler, threads: int) -> None:
        self._sampler, self._threads = sampler, threads
        self._pipeline: Any = None
        self._stream: Any = None

    def __call__(self, batch: PackedBatch, device: torch.device) -> VideoBatch:
        """The batch with its pixels on `device`."""
        try:
            video = self._decoded(batch, device)
        except RuntimeError as error:
            log.warning("DALI failed, so this batch is decoded on the CPU: %s", " ".join(str(error).split()))
            self._pipeline = None
            video = self._decoded_on_cpu(batch.requests).to(device)
        return VideoBatch(
            video=video,
            mask=batch.mask,
            flow=None,
            label=batch.label,
            key=batch.key,
            pts_s=batch.pts_s,
            draws=batch.draws,
            fields=batch.fields,
            weight=batch.weight,
        )

    def _decoded_on_cpu(self, requests: list[ClipRequest]) -> Tensor:
        draft, bad = self._sampler.allocate(len(requests)), {}
        for row, request in enumerate(requests):
            try:
                self._sampler.fill(request, draft, row, Stats())
            except SampleError as error:
                bad[row] = error
        if bad:
            raise BadRowsError(bad)
        return torch.from_numpy(draft.video)

    def _decoded(self, batch: PackedBatch, device: torch.device) -> Tensor:
        size, frames, views = self._sampler.clip.size, self._sampler.clip.frames, self._sampler.views
        rows = len(batch.clips)
        if self._pipeline is None or self._pipeline.max_batch_size < rows:
            self._pipeline = clip_pipeline(rows, views, size, self._threads, device)
        (output,) = self._pipeline.run(
            video=[clip.mp4 for clip in batch.clips],
            frames=[clip.frames for clip in batch.clips],
            order=[clip.order for clip in batch.clips],
            regions=batch.regions,
        )
        return self._to_torch(output.as_tensor(), (rows, views, frames, size, size, 3), device).flatten(0, 1)

    def _to_torch(self, source: Any, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """A copy on the device, on a separate stream: the host waits for the copy, not for training steps."""
        if device.type == "cuda" and self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            video = torch.empty(shape, dtype=torch.uint8, device=device)
        dali.plugin.pytorch.feed_ndarray(source, video, cuda_stream=self._stream)
        if self._stream:
            self._stream.synchronize()
            video.record_stream(torch.cuda.current_stream(device))
        return video


def on_dali(
    cpu: Source[ClipRequest, VideoDraft, VideoBatch, VideoBatch],
    sampler: VideoSampler,
    device: torch.device,
    threads: int,
) -> Source[ClipRequest, PackedDraft, PackedBatch, VideoBatch]:
    """The source of `sampler`, decoded by DALI on `device`. A BatchFlow computes flow of DALI's pixels.

    A mask that follows this flow belongs to DALI's pixels, so the backend is then part of the identity.

    Errors: ValueError for a SampleFlow, and for codecs that DALI does not decode on this device.
    """
    if isinstance(sampler.flow, SampleFlow):
        raise ValueError(
            f"backend='dali' with flow={sampler.flow}: DALI decodes batches, and a SampleFlow needs single clips; "
            "use backend='cpu', a BatchFlow, or flow='none' with a mask that needs none"
        )
    if other := undecodable(sampler, device):
        legal = " and ".join(CODECS.get(device.type, ())) or "nothing"
        raise ValueError(
            f"backend='dali' decodes {legal} on the device {device.type!r}, and {sampler.manifest.location} holds "
            f"{', '.join(other)}; use backend='cpu'"
        )
    decoding = DaliFinish(sampler, threads)
    return Source(
        sampler=PackingSampler(inner=sampler),
        finish=decoding if sampler.flow is None else Composed(decoding, cpu.finish),
        samples=cpu.samples,
        identity={**cpu.identity, "backend": "dali"} if sampler.finish_masks else cpu.identity,
        visible=cpu.visible,
        form={**cpu.form, "backend": "dali"},
    )


def undecodable(sampler: VideoSampler, device: torch.device) -> list[str]:
    """The codecs of the shards that DALI does not decode on this type of device."""
    codec = sampler.manifest.components[sampler.component].words["codec"]
    return sorted(set(codec.names) - set(CODECS.get(device.type, ())))


def clip_pipeline(
    batch_size: int, views: int, size: int, threads: int, device: torch.device, *, encoded: bool = True
) -> Any:
    """The DALI pipeline from clips to pixels. Its inputs are lists with one array per sample.

    video: an MP4, uint8 (bytes,); with `encoded=False`, decoded frames, uint8 (F, height, width, 3), without the input
    frames. frames, order: as in `EncodedClip`. regions: float32 (views, 6), see `region`. The output is uint8
    (views, T, size, size, 3). Resizing is linear with pixel centres at half; a crop of more than twice `size` is first
    resized to twice `size` with antialiasing, and the second step then averages pairs.
    """
    fn, types = dali.fn, dali.types
    gpu = device.type == "cuda"
    device_id = (device.index if device.index is not None else torch.cuda.current_device()) if gpu else None
    pipeline = dali.Pipeline(batch_size=batch_size, num_threads=threads, device_id=device_id, prefetch_queue_depth=1)
    with pipeline:
        layout, ndim = (None, 1) if encoded else ("FHWC", 4)
        video = fn.external_source(name="video", dtype=types.UINT8, ndim=ndim, layout=layout)
        order = fn.external_source(name="order", dtype=types.INT32, ndim=1)
        regions = fn.external_source(name="regions", dtype=types.FLOAT, ndim=2)
        if encoded:
            frames, mode = fn.external_source(name="frames", dtype=types.INT32, ndim=1), "mixed" if gpu else "cpu"
            pixels = fn.decoders.video(video, device=mode, frames=frames, pad_mode="none", affine=False)
        else:
            pixels = video.gpu() if gpu else video
        clips = []
        for view in range(views):
            r = regions[view]
            near = fn.resize(pixels, roi_start=r[0:2], roi_end=r[2:4], size=r[4:6], antialias=True)
            small = fn.resize(near, size=[size, size], antialias=False)
            clips.append(fn.sequence_rearrange(small, new_order=order))
        pipeline.set_outputs(fn.stack(*clips))
    pipeline.build()
    return pipeline


def region(crop: Crop, size: int) -> npt.NDArray[np.float32]:
    """Top, left, bottom, right of the crop (left, right swapped for a flip); height, width of the first resize."""
    left, right = crop.x, crop.x + crop.width
    if crop.flip:
        left, right = right, left
    near = (min(crop.height, 2 * size), min(crop.width, 2 * size))
    return np.array([crop.y, left, crop.y + crop.height, right, *near], dtype=np.float32)


def encoded_clip(data: ClipBytes, numbers: Int64Array) -> EncodedClip:
    """Packs the packets needed for the frames `numbers`; raises Mp4Error if the bytes contradict the index."""
    track = read_header(data.header)
    packets = data.packets
    pts = wanted_pts(packets, data.first_frame, numbers)
    kept = wanted_packets(memoryview(data.fragments), track, packets, pts)
    kept = kept[packets.pts[kept] >= packets.pts[0]]  # DALI would count frames before the keyframe
    different, order = np.unique(pts, return_inverse=True)
    return EncodedClip(
        mp4=np.frombuffer(packed(data, track, packets, kept), dtype=np.uint8),
        frames=np.searchsorted(np.sort(packets.pts[kept]), different).astype(np.int32),
        order=order.astype(np.int32),
        pts_s=pts / track.timescale,
    )


def packed(data: ClipBytes, track: Track, packets: Packets, kept: Int64Array) -> bytes:
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
        data.fragments[start : start + size]
        for start, size in zip(packets.start[kept].tolist(), packets.size[kept].tolist(), strict=True)
    )
    return data.header + _box(b"moof", head + _box(b"traf", ids + run)) + _box(b"mdat", body)


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload
