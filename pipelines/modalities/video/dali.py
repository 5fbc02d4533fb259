"""Decode and resize whole batches with NVIDIA DALI: NVDEC on a CUDA device, VP9 on the CPU.

What a clip shows, its masks and its times come from the same draws as on the CPU path (../video_sample.py), and so do
the packets that are decoded: they are packed anew into one fragment, at one frame a tick. That suits DALI's decoder,
which knows frames by number, always decodes from the first one, and starts over for a number that comes twice.

Pixels agree with the CPU path up to the decoders' colour conversion (1 to 2 levels on average). NVDEC's frames are
always taken for BT.601, so the colours of BT.709 video in shards of the profile `copy` shift.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import nvidia.dali
import nvidia.dali.fn
import nvidia.dali.plugin.pytorch
import torch
from torch import Tensor

from ....shards.errors import StoreError
from ....shards.media.mp4 import Int64Array, Mp4Error, Packets, Track, read_fragments, read_header
from ...augment.crop import Crop
from ...decode.packets import wanted_packets, wanted_pts
from ...stream.place import START, Place
from ...stream.stats import Stats
from .batch import VideoBatch
from .sample import ClipBytes, ClipRequest, VideoSample, VideoSampler

log = logging.getLogger(__name__)

dali: Any = nvidia.dali
"""Untyped, since only a part of DALI has annotations."""

CODECS = {"cuda": ("h264", "hevc"), "cpu": ("vp9",)}
"""What is decoded on each kind of device. (On NVDEC, VP9 and AV1 have hidden frames that would be counted too.)"""

_SYNC, _NON_SYNC = 0x02000000, 0x01010000


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedClip:
    """The wanted packets of a clip as an MP4 of their own.

    mp4: uint8 (bytes,). frames: int32 (F,), increasing, the numbers of the clip's different frames in it. order: int32
    (T,), which of them each frame of the clip is. pts_s: float64 (T,), seconds from the start of the whole video.
    """

    mp4: npt.NDArray[np.uint8]
    frames: npt.NDArray[np.int32]
    order: npt.NDArray[np.int32]
    pts_s: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DaliSample:
    """A sample before decoding: clip, regions float32 (views, 6) as of `region`, and `rest`, all but the pixels."""

    index: int
    epoch: int
    place: Place
    clip: EncodedClip
    regions: npt.NDArray[np.float32]
    rest: VideoSample

    @property
    def stats(self) -> Stats:
        """Of reading and masks; decoding happens in the batch."""
        return self.rest.stats


class DaliSampler:
    """The `Sampler` of a loader that decodes on `device`: threads read and draw, `collate` decodes the batch.

    Errors: ValueError for flow (it is made on the CPU) and for shards with a codec that DALI does not decode there.
    """

    def __init__(self, sampler: VideoSampler, device: torch.device, threads: int) -> None:
        if sampler.flow is not None:
            raise ValueError(
                "backend='dali' gives no flow; use backend='cpu', or flow='none' with a mask that needs none"
            )
        if other := undecodable(sampler, device):
            legal = " and ".join(CODECS.get(device.type, ())) or "nothing"
            raise ValueError(
                f"backend='dali' decodes {legal} on the device {device.type!r}, and {sampler.manifest.folder} holds "
                f"{', '.join(other)}; use backend='cpu'"
            )
        self.seed, self.needs_progress = sampler.seed, sampler.needs_progress
        self._sampler, self._device, self._threads = sampler, device, threads
        self._pipeline: Any = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def make(self, index: int, epoch: int, place: Place = START) -> DaliSample:
        """Sample `index` as the epoch shows it, not yet decoded; SampleError where its bytes are not as indexed."""
        sampler, stats = self._sampler, Stats(samples=1)
        request = sampler.request(index, epoch)
        try:
            with stats.stage("read"):
                data = sampler.read(request)
                clip = encoded_clip(data, request)
        except (StoreError, Mp4Error) as error:
            raise sampler.sample_error(request, error) from error
        stats.read_bytes = len(data.header) + len(data.fragments)
        with stats.stage("mask"):
            maps = sampler.draw_maps(request.key, epoch, place, None)
        rest = VideoSample(
            video=np.empty((sampler.views, 0, 0, 0, 3), dtype=np.uint8),
            maps=maps,
            flows=None,
            label=int(sampler.manifest.label[index]),
            key=request.key,
            pts_s=clip.pts_s,
            stats=stats,
        )
        regions = np.stack([region(crop, sampler.clip.size) for crop in request.crops])
        return DaliSample(index=index, epoch=epoch, place=place, clip=clip, regions=regions, rest=rest)

    def collate(self, samples: list[DaliSample]) -> VideoBatch:
        """Decodes the batch; `video` is on the device, the rest on the CPU.

        DALI fails a batch as a whole: then the samples are decoded on the CPU, and SampleError names a bad one.
        """
        try:
            video = self._decode(samples)
        except RuntimeError as error:
            log.warning("DALI failed, so this batch is decoded on the CPU: %s", " ".join(str(error).split()))
            self._pipeline = None
            batch = self._sampler.collate([self._sampler.make(s.index, s.epoch, s.place) for s in samples])
            return replace(batch, video=batch.video.to(self._device))
        return replace(self._sampler.collate([s.rest for s in samples]), video=video)

    def _decode(self, samples: list[DaliSample]) -> Tensor:
        size, frames, views = self._sampler.clip.size, self._sampler.clip.frames, self._sampler.views
        if self._pipeline is None or self._pipeline.max_batch_size < len(samples):
            self._pipeline = clip_pipeline(len(samples), views, size, self._threads, self._device)
        (output,) = self._pipeline.run(
            video=[s.clip.mp4 for s in samples],
            frames=[s.clip.frames for s in samples],
            order=[s.clip.order for s in samples],
            regions=[s.regions for s in samples],
        )
        shape = (len(samples), views, frames, size, size, 3)
        return self._to_torch(output.as_tensor(), shape).flatten(0, 1)

    def _to_torch(self, source: Any, shape: tuple[int, ...]) -> Tensor:
        """A copy on the device, in a stream of its own: the host waits for it, not for the training step before it."""
        with torch.cuda.stream(self._stream):
            video = torch.empty(shape, dtype=torch.uint8, device=self._device)
        dali.plugin.pytorch.feed_ndarray(source, video, cuda_stream=self._stream)
        if self._stream:
            self._stream.synchronize()
            video.record_stream(torch.cuda.current_stream(self._device))
        return video


def undecodable(sampler: VideoSampler, device: torch.device) -> list[str]:
    """The codecs of the shards that DALI does not decode on this kind of device."""
    codec = sampler.manifest.components[sampler.component].words["codec"]
    return sorted(set(codec.names) - set(CODECS.get(device.type, ())))


def clip_pipeline(
    batch_size: int, views: int, size: int, threads: int, device: torch.device, *, encoded: bool = True
) -> Any:
    """The DALI graph from clips to pixels; run it with lists of arrays, one a sample: video, frames, order, regions.

    video is an MP4, uint8 (bytes,); with `encoded=False` it is the decoded frames, uint8 (F, height, width, 3), and
    frames is left out. The output is uint8 (views, T, size, size, 3), linear with pixel centres at half. What is more
    than twice too large is first shrunk to twice the size, antialiased; the second step then averages pairs.
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
    """Top, left, bottom, right of the crop (left and right exchanged for a flip); height, width of the first step."""
    left, right = crop.x, crop.x + crop.width
    if crop.flip:
        left, right = right, left
    near = (min(crop.height, 2 * size), min(crop.width, 2 * size))
    return np.array([crop.y, left, crop.y + crop.height, right, *near], dtype=np.float32)


def encoded_clip(data: ClipBytes, request: ClipRequest) -> EncodedClip:
    """The packets that the clip needs, packed; Mp4Error where the bytes are not what the index says."""
    track = read_header(data.header)
    packets = data.packets or read_fragments(memoryview(data.fragments), track)
    pts = wanted_pts(packets, data.first_frame, request.numbers)
    kept = wanted_packets(memoryview(data.fragments), track, packets, pts)
    kept = kept[packets.pts[kept] >= packets.pts[0]]  # what leads the first keyframe would be counted as frames
    different, order = np.unique(pts, return_inverse=True)
    return EncodedClip(
        mp4=np.frombuffer(packed(data, track, packets, kept), dtype=np.uint8),
        frames=np.searchsorted(np.sort(packets.pts[kept]), different).astype(np.int32),
        order=order.astype(np.int32),
        pts_s=pts / track.timescale,
    )


def packed(data: ClipBytes, track: Track, packets: Packets, kept: Int64Array) -> bytes:
    """An MP4 of the header and one fragment (ISO 14496-12, 8.8) of the packets `kept`, one frame a tick."""
    rank = np.argsort(np.argsort(packets.pts[kept]))
    late = rank - np.arange(len(kept))
    flags = np.where(packets.keyframe[kept], _SYNC, _NON_SYNC)
    table = np.stack([np.ones_like(late), packets.size[kept], flags, late - late.min()], axis=1).astype(">u4").tobytes()
    head = _box(b"mfhd", struct.pack(">II", 0, 1))
    ids = _box(b"tfhd", struct.pack(">II", 0x020000, track.track_id)) + _box(b"tfdt", struct.pack(">II", 0, 0))
    # From the moof's first byte to mdat's payload: the headers of moof, traf, trun and mdat, and trun's fixed fields.
    offset = len(head) + len(ids) + len(table) + 4 * 8 + 12
    run = _box(b"trun", struct.pack(">III", 0x000F01, len(kept), offset) + table)
    body = b"".join(
        data.fragments[start : start + size]
        for start, size in zip(packets.start[kept].tolist(), packets.size[kept].tolist(), strict=True)
    )
    return data.header + _box(b"moof", head + _box(b"traf", ids + run)) + _box(b"mdat", body)


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload
