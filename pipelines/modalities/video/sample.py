"""One video sample on its way to a batch: draw the clip, read its GOPs, decode, crop, flow, mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....shards.errors import SampleError, StoreError
from ....shards.format.manifest import Manifest
from ....shards.media.mp4 import Mp4Error, Packets
from ....shards.media.packet_table import RECORD, packets_name, read_table, records_of
from ....shards.media.video_index import VideoIndex
from ....shards.stores.base import Range
from ...augment import Augmentation
from ...augment.crop import Crop
from ...decode.cpu import DecodeError, decode_frames, to_rgb
from ...decode.packets import wanted_pts
from ...flow import ClipFlow, DecodedClip, SampleFlow, stack_flow
from ...masks import Cues, Draw, Maps, Mask, TokenGrid
from ...masks.core.batch import MaskBatch
from ...stream.place import Place
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from .batch import VideoBatch
from .clip import VideoClip


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRequest:
    """What was drawn for a sample before a byte was read: frame numbers int64 (T,) and a crop per view.

    ranges: the header and the run of fragments that hold the clip, in one range where they are one piece; of tars that
    others wrote the header and the records of the packet table, and the run of GOPs.
    """

    index: int
    epoch: int
    place: Place
    key: str
    video: VideoIndex
    numbers: npt.NDArray[np.int64]
    crops: list[Crop]
    ranges: tuple[Range, ...]

    @property
    def n_frames(self) -> int:
        """The frames of the whole video."""
        return self.video.n_frames


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


@dataclass(kw_only=True, slots=True)
class VideoDraft:
    """The memory of a batch; row r is views r k to (r + 1) k of it.

    video: uint8 (B, T, H, W, 3). pts_s: float64 (B, T). label: int64 (B,). key: of each view. maps: of each view's
    mask. flows: of each view; both None until they are drawn.
    """

    video: npt.NDArray[np.uint8]
    pts_s: npt.NDArray[np.float64]
    label: npt.NDArray[np.int64]
    key: list[str]
    maps: list[Maps | None]
    flows: list[ClipFlow | None]


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
    mask_of: Mask | None
    flow: SampleFlow | None
    seed: int
    views: int = 1
    component: str = "mp4"

    @property
    def needs_progress(self) -> bool:
        """Whether its mask changes over the run."""
        return self.mask_of is not None and self.mask_of.needs_progress

    def request(self, wanted: Wanted) -> ClipRequest:
        """Draws the clip and the crops of a sample, and says where its bytes lie."""
        index, epoch = wanted.index, wanted.epoch
        key = self.manifest.key(index)
        video = self.manifest.video(index, self.component)
        crops = [
            self.augment.draw(
                video.width, video.height, self.clip.size, sample_rng(self.seed, epoch, key, view, "crop")
            )
            for view in range(self.views)
        ]
        numbers = self.numbers(index, video, sample_rng(self.seed, epoch, key, 0, "clip"))
        return ClipRequest(
            index=index,
            epoch=epoch,
            place=wanted.place,
            key=key,
            video=video,
            numbers=numbers,
            crops=[even(crop, video.width, video.height) for crop in crops],
            ranges=clip_ranges(video, numbers, self.manifest.member(index, self.component)),
        )

    def numbers(self, index: int, video: VideoIndex, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """The frame numbers of a clip of sample `index`."""
        return self.clip.numbers(video.n_frames, rng)

    def allocate(self, rows: int, *, size: int | None = None) -> VideoDraft:
        """The memory of a batch of so many samples; size: of its pixels, by default the clip's."""
        size, n = self.clip.size if size is None else size, rows * self.views
        return VideoDraft(
            video=np.empty((n, self.clip.frames, size, size, 3), dtype=np.uint8),
            pts_s=np.empty((n, self.clip.frames), dtype=np.float64),
            label=np.empty(n, dtype=np.int64),
            key=[""] * n,
            maps=[None] * n,
            flows=[None] * n,
        )

    def mask(self, request: ClipRequest, draft: VideoDraft, row: int) -> None:
        """Draws the masks of a sample's views where they follow nothing that it shows."""
        if self.mask_of is not None and not self.mask_of.needs:
            self._draw_maps(self.mask_of, request, draft, row)

    def read(self, request: ClipRequest) -> ClipBytes:
        """The bytes of the GOPs that hold the clip, and no others."""
        video = request.video
        if video.foreign:
            return self._read_foreign(request)
        first, _ = video.gops_of(request.numbers)
        head, *rest = self.manifest.store.read_many(request.ranges)
        size = video.header_size
        return ClipBytes(
            header=head[:size], fragments=rest[0] if rest else head[size:], first_frame=int(video.first_frame[first])
        )

    def _read_foreign(self, request: ClipRequest) -> ClipBytes:
        """The packet table says, before a byte of the tar is read, where the last packet that is needed ends."""
        video, store = request.video, self.manifest.store
        header, records, span = request.ranges
        first, _ = video.gops_of(request.numbers)
        begin, first_frame = int(video.offset[first]), int(video.first_frame[first])
        head, table = store.read_many((header, records))
        packets = read_table(table, begin)
        last = np.flatnonzero(np.isin(packets.pts, wanted_pts(packets, first_frame, request.numbers)))[-1]
        size = int((packets.start[: last + 1] + packets.size[: last + 1]).max())
        if size > span.size:
            raise Mp4Error(f"a packet ends {size - span.size} bytes behind its GOPs; run `maskstream index` again")
        data = store.read(span.name, span.offset, size)
        return ClipBytes(header=head, fragments=data, first_frame=first_frame, packets=packets)

    def sample_error(self, request: ClipRequest, error: Exception) -> SampleError:
        """What is raised for a sample that cannot be read or decoded."""
        return SampleError(
            shard=self.manifest.shard_path(request.index).name,
            key=request.key,
            component=self.component,
            reason=str(error),
        )

    def fill(self, request: ClipRequest, draft: VideoDraft, row: int, stats: Stats) -> None:
        """Writes a sample's views; SampleError where it cannot be decoded."""
        try:
            with stats.stage("read"):
                data = self.read(request)
            stats.read_bytes += data.size_bytes
            with stats.stage("decode"):
                decoded = decode_frames(
                    data.header,
                    memoryview(data.fragments),
                    data.first_frame,
                    request.numbers,
                    packets=data.packets,
                    motion_vectors=self.flow is not None and self.flow.vectors,
                )
        except (StoreError, Mp4Error, DecodeError) as error:
            raise self.sample_error(request, error) from error
        own = self.views_of(row)
        size = (self.clip.size, self.clip.size)
        with stats.stage("convert"):
            for crop, to in zip(request.crops, draft.video[own], strict=True):
                to_rgb(decoded.frames, crop, size, to)
        self.describe(request, decoded.pts_s, draft, row)
        with stats.stage("flow"):
            if self.flow is not None:
                for view, crop in enumerate(request.crops, start=own.start):
                    draft.flows[view] = self.flow.of_clip(
                        DecodedClip(
                            pixels=draft.video[view],
                            crop=crop,
                            source=(request.video.width, request.video.height),
                            frames=request.numbers,
                            vectors=decoded.vectors,
                        )
                    )
        if self.mask_of is not None and self.mask_of.needs:
            with stats.stage("mask"):
                self._draw_maps(self.mask_of, request, draft, row)

    def views_of(self, row: int) -> slice:
        """The views of a row."""
        return slice(row * self.views, (row + 1) * self.views)

    def describe(self, request: ClipRequest, pts_s: npt.NDArray[np.float64], draft: VideoDraft, row: int) -> None:
        """Writes what the views of a sample have in common: key, label and times float64 (T,)."""
        own = self.views_of(row)
        draft.pts_s[own] = pts_s
        draft.label[own] = self.manifest.label[request.index]
        draft.key[own] = [request.key] * self.views

    def _draw_maps(self, mask: Mask, request: ClipRequest, draft: VideoDraft, row: int) -> None:
        """Draws the masks of a sample's views."""
        own = self.views_of(row)
        for view, flow in enumerate(draft.flows[own]):
            cues = Cues() if flow is None else Cues(flow=flow.vectors)
            draw = Draw.of(self.seed, request.epoch, request.key, view, request.place, cues)
            draft.maps[own.start + view] = mask.maps(self.grid, draw)

    def join(self, draft: VideoDraft) -> VideoBatch:
        """The batch; the views of a sample come one after the other."""
        flows = [flow for flow in draft.flows if flow is not None]
        return VideoBatch(
            video=torch.from_numpy(draft.video),
            mask=self.mask_batch(draft),
            flow=stack_flow(flows) if flows else None,
            label=torch.from_numpy(draft.label),
            key=draft.key,
            pts_s=torch.from_numpy(draft.pts_s),
        )

    def mask_batch(self, draft: VideoDraft) -> MaskBatch | None:
        """The masks of all views."""
        maps = [own for own in draft.maps if own is not None]
        return None if self.mask_of is None else self.mask_of.joined(self.grid, maps)


def clip_ranges(video: VideoIndex, numbers: npt.NDArray[np.int64], member: Range) -> tuple[Range, ...]:
    """What is read for the frames `numbers` of a video."""
    shard, base, _ = member
    first, stop = video.gops_of(numbers)
    begin, end = int(video.offset[first]), int(video.offset[stop - 1] + video.size[stop - 1])
    span = Range(shard, base + begin, end - begin)
    if video.foreign:
        table = packets_name(shard)
        header = Range(table, video.table_offset or 0, video.header_size)
        return header, Range(table, *records_of(video, first, stop)), span
    if begin == video.header_size:
        return (Range(shard, base, end),)
    return Range(shard, base, video.header_size), span


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
