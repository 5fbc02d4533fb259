"""One video sample on its way to a batch: draw the clip, read its GOPs, decode, crop, flow, mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from ....shards.errors import SampleError, StoreError
from ....shards.format.manifest import Manifest
from ....shards.media.mp4 import Mp4Error, Packets
from ....shards.media.packet_table import RECORD, packets_name, read_table, records_of
from ....shards.media.video_index import VideoIndex
from ...augment import Augmentation
from ...augment.crop import Crop
from ...decode.cpu import DecodedFrames, DecodeError, decode_frames, to_rgb
from ...decode.packets import wanted_pts
from ...flow import ClipFlow, codec_flow, codec_flow_fits, dis_flow, stack_flow
from ...masks import Cues, Draw, Maps, Mask, TokenGrid
from ...stream.place import START, Place
from ...stream.rng import sample_rng
from ...stream.stats import Stats
from .batch import VideoBatch
from .clip import VideoClip


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRequest:
    """What was drawn for a sample before a byte was read: frame numbers int64 (T,) and a crop per view."""

    index: int
    key: str
    video: VideoIndex
    numbers: npt.NDArray[np.int64]
    crops: list[Crop]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipBytes:
    """The header and the run of fragments that hold a clip; `first_frame` is the number of the run's first frame.

    Of tars that others wrote, `fragments` is a stretch of the member, up to the last packet that is needed, and
    `packets` says what lies in it.
    """

    header: bytes
    fragments: bytes
    first_frame: int
    packets: Packets | None = None

    @property
    def size_bytes(self) -> int:
        """How much was read."""
        return (
            len(self.header)
            + len(self.fragments)
            + (0 if self.packets is None else RECORD.itemsize * len(self.packets.start))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoSample:
    """The views of one sample: video uint8 (views, T, H, W, 3), the maps of each one's mask, and the flow of each.

    The rest is as in VideoBatch.
    """

    video: npt.NDArray[np.uint8]
    maps: list[Maps] | None
    flows: list[ClipFlow] | None
    label: int
    key: str
    pts_s: npt.NDArray[np.float64]
    stats: Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What is ready before sample `index` is made: the batch's memory for its views, uint8 (views, T, H, W, 3), and
    their masks, where these follow nothing that it shows.
    """

    index: int
    video: npt.NDArray[np.uint8]
    maps: list[Maps] | None
    stats: Stats


@dataclass(frozen=True, kw_only=True)
class VideoSampler:
    """Makes samples of one dataset; holds settings only, so that it can be sent to worker processes.

    Every random choice is a function of (seed, epoch, key, view): the clip is shared by the views of a sample, each
    view has a crop and a mask of its own.
    """

    manifest: Manifest
    clip: VideoClip
    grid: TokenGrid
    augment: Augmentation
    mask: Mask | None
    flow: Literal["codec", "dis"] | None
    seed: int
    views: int = 1
    component: str = "mp4"

    @property
    def needs_progress(self) -> bool:
        """Whether its mask changes over the run."""
        return self.mask is not None and self.mask.needs_progress

    def request(self, index: int, epoch: int) -> ClipRequest:
        """Draws the clip and the crops of sample `index`."""
        key = self.manifest.key(index)
        video = self.manifest.video(index, self.component)
        crops = [
            self.augment.draw(
                video.width, video.height, self.clip.size, sample_rng(self.seed, epoch, key, view, "crop")
            )
            for view in range(self.views)
        ]
        return ClipRequest(
            index=index,
            key=key,
            video=video,
            numbers=self.numbers(index, video, sample_rng(self.seed, epoch, key, 0, "clip")),
            crops=[even(crop, video.width, video.height) for crop in crops],
        )

    def numbers(self, index: int, video: VideoIndex, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """The frame numbers of a clip of sample `index`."""
        return self.clip.numbers(video.n_frames, rng)

    def read(self, request: ClipRequest) -> ClipBytes:
        """The bytes of the GOPs that hold the clip, and no others."""
        video, name = request.video, self.manifest.shard_name(request.index)
        base = self.manifest.member(request.index, self.component).offset
        if video.foreign:
            return self._read_foreign(request, name, base)
        first, stop = video.gops_of(request.numbers)
        begin, end = int(video.offset[first]), int(video.offset[stop - 1] + video.size[stop - 1])
        if begin == video.header_size:
            data = self.manifest.store.read(name, base, end)
            header, fragments = data[:begin], data[begin:]
        else:
            header = self.manifest.store.read(name, base, video.header_size)
            fragments = self.manifest.store.read(name, base + begin, end - begin)
        return ClipBytes(header=header, fragments=fragments, first_frame=int(video.first_frame[first]))

    def _read_foreign(self, request: ClipRequest, name: str, base: int) -> ClipBytes:
        """The packet table says, before a byte of the tar is read, where the last packet that is needed ends."""
        video = request.video
        first, stop = video.gops_of(request.numbers)
        table = packets_name(name)
        header = self.manifest.store.read(table, video.table_offset or 0, video.header_size)
        begin, first_frame = int(video.offset[first]), int(video.first_frame[first])
        packets = read_table(self.manifest.store.read(table, *records_of(video, first, stop)), begin)
        last = np.flatnonzero(np.isin(packets.pts, wanted_pts(packets, first_frame, request.numbers)))[-1]
        size = int((packets.start[: last + 1] + packets.size[: last + 1]).max())
        data = self.manifest.store.read(name, base + begin, size)
        return ClipBytes(header=header, fragments=data, first_frame=first_frame, packets=packets)

    def sample_error(self, request: ClipRequest, error: Exception) -> SampleError:
        """What is raised for a sample that cannot be read or decoded."""
        return SampleError(
            shard=self.manifest.shard_path(request.index).name,
            key=request.key,
            component=self.component,
            reason=str(error),
        )

    def prepare(self, samples: list[tuple[int, int, Place]]) -> list[Prepared]:
        """For the samples (index, epoch, place) of a batch: its memory, and masks that follow nothing they show."""
        size = self.clip.size
        video = np.empty((len(samples) * self.views, self.clip.frames, size, size, 3), dtype=np.uint8)
        prepared = []
        for n, (index, epoch, place) in enumerate(samples):
            stats = Stats()
            with stats.stage("mask"):
                maps = self._free_maps(self.manifest.key(index), epoch, place)
            room = video[n * self.views : (n + 1) * self.views]
            prepared.append(Prepared(index=index, video=room, maps=maps, stats=stats))
        return prepared

    def make(self, index: int, epoch: int, place: Place = START, prepared: Prepared | None = None) -> VideoSample:
        """Sample `index` as the epoch shows it at its place in the run, in the memory that was prepared for it or for
        one that it replaces; SampleError where it cannot be decoded.
        """
        prepared = prepared or self.prepare([(index, epoch, place)])[0]
        stats = Stats(samples=1)
        stats.add(prepared.stats)
        request = self.request(index, epoch)
        maps = prepared.maps
        if prepared.index != index:
            with stats.stage("mask"):
                maps = self._free_maps(request.key, epoch, place)
        try:
            with stats.stage("read"):
                data = self.read(request)
            stats.read_bytes = data.size_bytes
            with stats.stage("decode"):
                decoded = decode_frames(
                    data.header,
                    memoryview(data.fragments),
                    data.first_frame,
                    request.numbers,
                    packets=data.packets,
                    motion_vectors=self.flow == "codec",
                )
        except (StoreError, Mp4Error, DecodeError) as error:
            raise self.sample_error(request, error) from error
        size = (self.clip.size, self.clip.size)
        video = prepared.video
        with stats.stage("convert"):
            for view, crop in enumerate(request.crops):
                to_rgb(decoded.frames, crop, size, video[view])
        with stats.stage("flow"):
            flows = self._flows(video, decoded, request)
        if self.mask is not None and self.mask.needs:
            with stats.stage("mask"):
                maps = self.draw_maps(request.key, epoch, place, flows)
        return VideoSample(
            video=video,
            maps=maps,
            flows=flows,
            label=int(self.manifest.label[index]),
            key=request.key,
            pts_s=decoded.pts_s,
            stats=stats,
        )

    def _free_maps(self, key: str, epoch: int, place: Place) -> list[Maps] | None:
        """The masks of a sample's views where they follow nothing that it shows, else None."""
        return None if self.mask is None or self.mask.needs else self.draw_maps(key, epoch, place, None)

    def draw_maps(self, key: str, epoch: int, place: Place, flows: list[ClipFlow] | None) -> list[Maps] | None:
        """What the masks of a sample's views are."""
        if self.mask is None:
            return None
        cues = [Cues()] * self.views if flows is None else [Cues(flow=flow.vectors) for flow in flows]
        draws = [Draw.of(self.seed, epoch, key, view, place, cues[view]) for view in range(self.views)]
        return [self.mask.maps(self.grid, draw) for draw in draws]

    def _flows(
        self, video: npt.NDArray[np.uint8], decoded: DecodedFrames, request: ClipRequest
    ) -> list[ClipFlow] | None:
        """The flow of each view."""
        if self.flow is None:
            return None
        return [self._view_flow(video[v], decoded, request, crop) for v, crop in enumerate(request.crops)]

    def _view_flow(
        self, clip: npt.NDArray[np.uint8], decoded: DecodedFrames, request: ClipRequest, crop: Crop
    ) -> ClipFlow:
        if self.flow == "dis" or not codec_flow_fits(request.numbers):
            return dis_flow(clip)
        return codec_flow(
            decoded.vectors,
            crop,
            source=(request.video.width, request.video.height),
            size=self.clip.size,
            frames=request.numbers,
            clip=clip,
        )

    def collate(self, samples: list[VideoSample]) -> VideoBatch:
        """Samples to a batch, the views of a sample one after the other."""
        maps = [m for s in samples for m in s.maps or ()]
        flows = [flow for s in samples for flow in s.flows or ()]
        return VideoBatch(
            video=torch.from_numpy(joined([s.video for s in samples])),
            mask=self.mask.joined(self.grid, maps) if self.mask is not None else None,
            flow=stack_flow(flows) if flows else None,
            label=torch.tensor([s.label for s in samples for _ in range(self.views)], dtype=torch.int64),
            key=[s.key for s in samples for _ in range(self.views)],
            pts_s=torch.from_numpy(np.stack([s.pts_s for s in samples for _ in range(self.views)])),
        )


def joined(parts: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Arrays joined along the first axis; without a copy where they are the parts of one array in turn."""
    whole = parts[0].base
    if isinstance(whole, np.ndarray) and whole.shape[1:] == parts[0].shape[1:]:
        starts = np.cumsum([0, *(len(part) for part in parts)])
        places = [whole.ctypes.data + int(start) * whole.strides[0] for start in starts]
        if len(whole) == starts[-1] and [part.ctypes.data for part in parts] == places[:-1]:
            return whole
    return np.concatenate(parts)


def even(crop: Crop, width: int, height: int) -> Crop:
    """The crop on the chroma grid of 4:2:0 video: even offsets and sizes, inside the frame, moved by at most one
    pixel.
    """
    x, y = crop.x & ~1, crop.y & ~1
    return Crop(
        x=x,
        y=y,
        width=max(2, min(crop.x + crop.width + 1 & ~1, width & ~1) - x),
        height=max(2, min(crop.y + crop.height + 1 & ~1, height & ~1) - y),
        flip=crop.flip,
    )
