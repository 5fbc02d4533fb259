"""The video sampler: it draws clips, reads their GOPs, decodes, crops, and makes flow and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from av.video.frame import VideoFrame

from ....shards.errors import DataError
from ....shards.format.manifest import Manifest
from ....shards.media.gop_notes import GopNotes, gop_notes
from ....shards.media.mp4 import Mp4Error, Packets, read_fragments, read_header
from ....shards.media.packet_table import RECORD, packets_name, read_table, records_of
from ....shards.media.video_index import VideoIndex
from ....shards.members.video import table_problems
from ....shards.stores.base import Announcement, Range
from ...augment import Augmentation
from ...augment.colour import ColourJitter
from ...augment.crop import Crop
from ...decode.cpu import decode_frames, to_rgb
from ...decode.packets import wanted_pts
from ...decode.planes import CropPlanes, PlaneMemory, crop_planes
from ...flow import BatchFlow, ClipFlow, DecodedClip, FlowSource, SampleFlow, stack_flow
from ...flow.base import with_cuts
from ...masks import Cues, Draw, Maps, Mask, TokenGrid
from ...masks.core.batch import MaskBatch
from ...stream.place import Place
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from .batch import VideoBatch
from .clip import VideoClip
from .plane_batch import PlaneBatch
from .yuv import Output


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRequest:
    """The draws of a sample: frame numbers, int64 (T,), and one crop per view.

    ranges: the fragments that hold the clip, up to its last packet where the manifest has its end, after the header if
    the manifest does not have it, in one range if they are contiguous. In foreign tars: the header, the clip's records
    of the packet table, and its GOPs.
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
        """The number of frames of the whole video."""
        return self.video.n_frames


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipBytes:
    """The header and the fragments that hold a clip; `first_frame` is the number of their first frame.

    The fragments have `whole` bytes, and `fragments` may end with the last packet needed. header_known: whether the
    header is the manifest's, so it was not read. In foreign tars, `fragments` is a stretch of the member that ends with
    the last packet needed, and `table` lists the packets in it.
    """

    header: bytes
    fragments: bytes
    first_frame: int
    whole: int
    table: Packets | None = None
    header_known: bool = False

    @classmethod
    def of(cls, video: VideoIndex, numbers: npt.NDArray[np.int64], found: Sequence[bytes]) -> ClipBytes:
        """What was read of the ranges of `clip_ranges`, of a video that is not foreign."""
        first, stop = video.gops_of(numbers)
        first_frame, whole = int(video.first_frame[first]), int(video.size[first:stop].sum())
        head, *rest = found
        if video.header is not None:
            return cls(header=video.header, fragments=head, first_frame=first_frame, whole=whole, header_known=True)
        size = video.header_size
        return cls(header=head[:size], fragments=rest[0] if rest else head[size:], first_frame=first_frame, whole=whole)

    @property
    def packets(self) -> Packets:
        """The packets of the GOPs that hold the clip; raises Mp4Error if the bytes are no such fragments."""
        if self.table is not None:
            return self.table
        return read_fragments(memoryview(self.fragments), read_header(self.header), self.whole)

    def notes(self, size: tuple[int, int]) -> GopNotes:
        """What is stored of GOPs of frames of size = (width, height); nothing in foreign tars."""
        return GopNotes() if self.table is not None else gop_notes(memoryview(self.fragments), *size, self.whole)

    @property
    def size_bytes(self) -> int:
        """The number of bytes read."""
        return (
            (0 if self.header_known else len(self.header))
            + len(self.fragments)
            + (0 if self.table is None else RECORD.itemsize * len(self.table.start))
        )


@dataclass(kw_only=True, slots=True)
class VideoDraft:
    """The memory of a batch of B views. With k views per sample, row r is the views [r k, (r + 1) k).

    video: uint8 (B, T, H, W, 3). pts_s: float64 (B, T), seconds. label: int64 (B,). key, maps (masks), flows, draws (of
    masks that a finish makes), planes (instead of video): one per view, None until they are made. memory: where planes
    are written.
    """

    video: npt.NDArray[np.uint8]
    pts_s: npt.NDArray[np.float64]
    label: npt.NDArray[np.int64]
    key: list[str]
    maps: list[Maps | None]
    flows: list[ClipFlow | None]
    planes: list[CropPlanes | None]
    draws: list[Draw | None]
    memory: PlaneMemory


@dataclass(frozen=True, kw_only=True)
class VideoSampler:
    """Makes host batches of clips. It holds only settings, so it can be sent to worker processes.

    Every random draw is a function of (seed, epoch, key, view). The views of a sample share the clip; each view has its
    own crop and mask.
    """

    manifest: Manifest
    clip: VideoClip
    grid: TokenGrid
    augment: Augmentation
    pattern: Mask | None
    flow: FlowSource | None
    seed: int
    component: str
    views: int = 1
    colour: ColourJitter | None = None
    output: Output = "rgb"

    @property
    def needs_progress(self) -> bool:
        """Whether the mask depends on the progress of the run."""
        return self.pattern is not None and self.pattern.needs_progress

    def request(self, wanted: Wanted) -> ClipRequest:
        """Draws the clip and the crops of a sample, and finds the byte ranges to read."""
        index, epoch = wanted.index, wanted.epoch
        key = self.manifest.key(index)
        member = self.manifest.member(index, self.component)
        with self.manifest.reading(index, self.component):
            video = self.manifest.video(index, self.component)
            if problem := next(table_problems(video, member.size), None):
                raise DataError(problem)
        rngs = [sample_rng(self.seed, epoch, key, view, "crop") for view in range(self.views)]
        crops = self.augment.views(video.width, video.height, self.clip.size, rngs)
        numbers = self.numbers(index, video, sample_rng(self.seed, epoch, key, 0, "clip"))
        return ClipRequest(
            index=index,
            epoch=epoch,
            place=wanted.place,
            key=key,
            video=video,
            numbers=numbers,
            crops=[on_chroma_grid(crop, video.width, video.height) for crop in crops],
            ranges=clip_ranges(video, numbers, member),
        )

    def numbers(self, index: int, video: VideoIndex, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draws the frame numbers of a clip of sample `index`, int64 (T,)."""
        return self.clip.numbers(video.n_frames, rng, video.first_frame, fps=video.fps)

    def announce(self, request: ClipRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, requests: Sequence[object], *, size: int | None = None) -> VideoDraft:
        """The draft of some requests; size: the height and width in pixels, by default the clip's."""
        size = (self.clip.size if self.output == "rgb" else 0) if size is None else size
        n = len(requests) * self.views
        return VideoDraft(
            video=np.empty((n, self.clip.frames, size, size, 3), dtype=np.uint8),
            pts_s=np.empty((n, self.clip.frames), dtype=np.float64),
            label=np.empty(n, dtype=np.int64),
            key=[""] * n,
            maps=[None] * n,
            flows=[None] * n,
            planes=[None] * n,
            draws=[None] * n,
            memory=PlaneMemory(n, self.clip.frames),
        )

    @property
    def finish_masks(self) -> bool:
        """Whether a finish makes the masks, because they follow the flow of the whole batch."""
        return isinstance(self.flow, BatchFlow) and self.pattern is not None and bool(self.pattern.needs)

    def mask(self, request: ClipRequest, draft: VideoDraft, row: int) -> None:
        """Draws the masks of a sample's views if they need no content; keeps the draws of those that a finish makes."""
        if self.output == "yuv":
            draft.memory.announce(request.crops)
        if self.pattern is not None and not self.pattern.needs:
            self._draw_maps(self.pattern, request, draft, row)
        elif self.finish_masks:
            own = self.views_of(row)
            draft.draws[own] = [self._draw(request, view, Cues()) for view in range(self.views)]

    def read(self, request: ClipRequest) -> ClipBytes:
        """Reads the header and the GOPs that hold the clip."""
        video = request.video
        if video.foreign:
            return self._read_foreign(request)
        first, stop = video.gops_of(request.numbers)
        first_frame, whole = int(video.first_frame[first]), int(video.size[first:stop].sum())
        head, *rest = self.manifest.store.read_many(request.ranges)
        if video.header is not None:
            return ClipBytes(
                header=video.header, fragments=head, first_frame=first_frame, whole=whole, header_known=True
            )
        size = video.header_size
        fragments = rest[0] if rest else head[size:]
        return ClipBytes(header=head[:size], fragments=fragments, first_frame=first_frame, whole=whole)

    def _read_foreign(self, request: ClipRequest) -> ClipBytes:
        """Reads a clip of a foreign tar; the packet table gives the end of the last packet needed."""
        video, store = request.video, self.manifest.store
        header, records, span = request.ranges
        first, _ = video.gops_of(request.numbers)
        begin, first_frame = int(video.offset[first]), int(video.first_frame[first])
        head, table = store.read_many((header, records))
        packets = read_table(table, begin)
        last = np.flatnonzero(np.isin(packets.pts, wanted_pts(packets, first_frame, request.numbers)))[-1]
        size = int((packets.start[: last + 1] + packets.size[: last + 1]).max())
        if max(size, int(packets.size.sum())) > span.size:
            raise Mp4Error(
                f"the packet table names {size} bytes of GOPs of {span.size} bytes; run `maskstream index` again"
            )
        data = store.read(span.name, span.offset, size)
        return ClipBytes(header=head, fragments=data, first_frame=first_frame, whole=size, table=packets)

    def fill(self, request: ClipRequest, draft: VideoDraft, row: int, stats: Stats) -> None:
        """Reads, decodes and writes a sample's views; raises SampleError if it cannot be read or decoded."""
        source = (request.video.width, request.video.height)
        with self.manifest.reading(request.index, self.component):
            with stats.stage("read"):
                data = self.read(request)
            stats.read_bytes += data.size_bytes
            flow = self.flow if isinstance(self.flow, SampleFlow) else None
            with stats.stage("decode"):
                moving = flow.vectors_of(request.numbers) if flow else request.numbers[:0]
                notes = data.notes(source) if len(moving) else GopNotes()
                decoded = decode_frames(
                    data.header,
                    memoryview(data.fragments),
                    data.first_frame,
                    request.numbers,
                    size=source,
                    packets=data.packets,
                    vectors_of=moving,
                    stored=notes.flows,
                )
        own = self.views_of(row)
        with stats.stage("convert"):
            if self.output == "yuv":
                draft.planes[own] = [
                    crop_planes(decoded.frames, crop, draft.memory.of(view, crop))
                    for view, crop in enumerate(request.crops, start=own.start)
                ]
            else:
                self._to_rgb(request, decoded.frames, draft.video[own])
        self.describe(request, decoded.pts_s, draft, row)
        with stats.stage("flow"):
            if flow:
                for view, crop in enumerate(request.crops, start=own.start):
                    clip = DecodedClip(
                        pixels=draft.video[view],
                        crop=crop,
                        source=source,
                        frames=request.numbers,
                        vectors=decoded.vectors,
                        starts=notes.starts,
                    )
                    found = flow.of_clip(clip)
                    draft.flows[view] = with_cuts(found, flow.cuts(clip, found))
        if self.pattern is not None and self.pattern.needs and not self.finish_masks:
            with stats.stage("mask"):
                self._draw_maps(self.pattern, request, draft, row)

    def _to_rgb(self, request: ClipRequest, frames: list[VideoFrame], views: npt.NDArray[np.uint8]) -> None:
        """Writes a sample's views, uint8 (views, T, size, size, 3)."""
        for view, (crop, to) in enumerate(zip(request.crops, views, strict=True)):
            to_rgb(frames, crop, (self.clip.size, self.clip.size), to)
            if self.colour is not None:
                picture = to.reshape(-1, to.shape[2], 3)  # one picture, so that all frames get the same colours
                self.colour(picture, sample_rng(self.seed, request.epoch, request.key, view, "colour"))

    def views_of(self, row: int) -> slice:
        """The indexes of the views of a row."""
        return slice(row * self.views, (row + 1) * self.views)

    def describe(self, request: ClipRequest, pts_s: npt.NDArray[np.float64], draft: VideoDraft, row: int) -> None:
        """Writes what the views of a sample share: key, label and the times `pts_s`, float64 (T,)."""
        own = self.views_of(row)
        draft.pts_s[own] = pts_s
        draft.label[own] = self.manifest.label[request.index]
        draft.key[own] = [request.key] * self.views

    def _draw_maps(self, mask: Mask, request: ClipRequest, draft: VideoDraft, row: int) -> None:
        """Draws the masks of a sample's views."""
        own = self.views_of(row)
        for view, flow in enumerate(draft.flows[own]):
            cues = Cues() if flow is None else Cues(flow=flow.vectors, cuts=flow.cuts)
            draft.maps[own.start + view] = mask.maps(self.grid, self._draw(request, view, cues))

    def _draw(self, request: ClipRequest, view: int, cues: Cues) -> Draw:
        """The draw of the mask of a view."""
        return Draw.of(self.seed, request.epoch, request.key, view, request.place, cues)

    def join(self, draft: VideoDraft) -> VideoBatch:
        """The host batch; the views of a sample are consecutive."""
        flows = [flow for flow in draft.flows if flow is not None]
        planes = [own for own in draft.planes if own is not None]
        return VideoBatch(
            video=torch.from_numpy(draft.video),
            mask=self.mask_batch(draft),
            flow=stack_flow(flows) if flows else None,
            label=torch.from_numpy(draft.label),
            key=draft.key,
            pts_s=torch.from_numpy(draft.pts_s),
            draws=self.draws(draft),
            planes=PlaneBatch.of(planes, draft.memory) if planes else None,
        )

    def draws(self, draft: VideoDraft) -> tuple[Draw, ...]:
        """The draws of the masks that a finish makes."""
        return tuple(draw for draw in draft.draws if draw is not None)

    def mask_batch(self, draft: VideoDraft) -> MaskBatch | None:
        """The masks of all views; None if there are none, or a finish makes them."""
        if self.pattern is None or self.finish_masks:
            return None
        return self.pattern.batched(self.grid, [own for own in draft.maps if own is not None])


def clip_ranges(video: VideoIndex, numbers: npt.NDArray[np.int64], member: Range) -> tuple[Range, ...]:
    """The byte ranges to read for the frames `numbers` of a video (see `ClipRequest`)."""
    shard, base, _ = member
    first, stop = video.gops_of(numbers)
    begin, end = int(video.offset[first]), video.end_of(numbers, stop)
    span = Range(shard, base + begin, end - begin)
    if video.foreign:
        table = packets_name(shard)
        header = Range(table, video.table_offset or 0, video.header_size)
        return header, Range(table, *records_of(video, first, stop)), span
    if video.header is not None:
        return (span,)
    if begin == video.header_size:
        return (Range(shard, base, end),)
    return Range(shard, base, video.header_size), span


def on_chroma_grid(crop: Crop, width: int, height: int) -> Crop:
    """The crop aligned to the chroma grid of 4:2:0 video: even offsets and sizes within the frame, of 2 pixels or more.

    Each edge moves by at most one pixel, or two where the frame has an odd side.
    """
    x, y = min(crop.x & ~1, (width & ~1) - 2), min(crop.y & ~1, (height & ~1) - 2)
    return Crop(
        x=x,
        y=y,
        width=min(crop.x + crop.width + 1 & ~1, width & ~1) - x,
        height=min(crop.y + crop.height + 1 & ~1, height & ~1) - y,
        flip=crop.flip,
    )
