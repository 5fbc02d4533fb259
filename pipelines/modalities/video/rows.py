"""Rows of clips: plan and read clips, decode and crop them, and compute flow, tokens and mask inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from av.video.frame import VideoFrame

from maskstream.pipelines.augment import Augmentation
from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.augment.transform import NO_CHANGES, FrameChanges
from maskstream.pipelines.decode.cpu import (
    PIXELS_VERSION,
    CodedFrames,
    DecodedFrames,
    crop_planes,
    decode_coded,
    find_coded,
    to_rgb,
    to_tokens,
)
from maskstream.pipelines.flow import BatchFlow, ClipFlow, Codec, DecodedClip, FlowSource, SampleFlow
from maskstream.pipelines.flow.base import with_cuts
from maskstream.pipelines.flow.codec import Motion
from maskstream.pipelines.masks import Cues, Maps, Mask, TokenGrid
from maskstream.pipelines.masks.core import read_only
from maskstream.pipelines.modalities.rows import (
    BatchRows,
    Draws,
    Item,
    Items,
    Masked,
    Memory,
    RowMaker,
    SampleRows,
    Traits,
    is_of_package,
    list_late_masks,
)
from maskstream.pipelines.stream.kept import empty
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Int64s, UInt8s
from maskstream.shards.media.gop_notes import GopNotes
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.stores.base import Range

from .batch import TOKEN_OUTPUTS, Output, PlaneBatch, TokenRoom, VideoBatch, ViewTokens, list_chosen_tokens
from .clip import VideoClip
from .clip_plan import FLOW_CUES, ClipBytes, ClipPlan, ForTokens, clip_ranges, find_indexed_video, join_flow, read_clip
from .energy import read_stored_energy

KERNELS = ("maskstream.pipelines.decode.packets", "maskstream.pipelines.decode.pixels")


class Coded(NamedTuple):
    """Packets of a clip and the data stored for its GOPs."""

    frames: CodedFrames
    notes: GopNotes


class ClipMotion(NamedTuple):
    """Views of a decoded clip, uint8 (views, T, H, W, 3), with each frame's motion and scene start by frame number, as
    in `DecodedClip`.
    """

    plan: ClipPlan
    views: UInt8s
    vectors: Mapping[int, Motion]
    starts: Mapping[int, bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRowMaker(RowMaker[ClipPlan, VideoBatch]):
    """Creates rows of clips. The views of a sample share the clip; each view has its own crop and mask."""

    component: str
    clip: VideoClip
    grid: TokenGrid
    augment: Augmentation
    mask: Mask | None
    flow: FlowSource | None
    changes: FrameChanges = NO_CHANGES
    output: Output = "rgb"
    camera: str = ""
    """Name of a camera other than the first; it has separate masks."""
    shared: bool = True
    """Whether the camera shares the draws of crop, colour and transform with the first."""
    together: int = 1
    """Number of samples that a thread fills at once."""
    needs: frozenset[str] = field(init=False, repr=False, compare=False)
    """Inputs that the mask reads."""

    def __post_init__(self) -> None:
        # Cached because Mask.needs traverses the mask's fields on each call.
        object.__setattr__(self, "needs", frozenset() if self.mask is None else self.mask.needs)

    @property
    def finish_draws(self) -> bool:
        """True if a device transform draws the masks, because they follow flow computed for whole batches."""
        return isinstance(self.flow, BatchFlow) and bool(self.needs & FLOW_CUES)

    @property
    def sees_frames(self) -> bool:
        """True if masks read frames while a sample is created, so that pixels are computed on the CPU."""
        return "frames" in self.needs and not self.finish_draws

    @property
    def sees_energy(self) -> bool:
        """True if masks read the stored energy."""
        return "energy" in self.needs

    @property
    def traits(self) -> Traits:
        """Traits of the rows.

        Torch is needed to detect scene cuts, except with `Codec`, which reads stored ones; users' classes may also
        import it. Parts of a mixture must all have flow or none (or the same `BatchFlow`) and the same output. All
        outputs use the same pixel arithmetic.
        """
        looks = isinstance(self.flow, SampleFlow) and not isinstance(self.flow, Codec)
        flow = self.flow if isinstance(self.flow, BatchFlow) else "no" if self.flow is None else "yes"
        return Traits(
            together=self.together,
            needs_torch=looks or not is_of_package((self.augment, self.changes, self.mask, self.flow)),
            identity={"pixels": PIXELS_VERSION},
            form={"flow": flow, "output": self.output},
        )

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Mask of the clip."""
        return (Masked("mask", self.mask, self.grid, part=self.camera, by_sampler=not self.finish_draws),)

    def plan(self, items: Items) -> list[ClipPlan]:
        """Draw the clips and crops of samples and find the byte ranges to read.

        Raises:
            SampleError: A video is missing or its index is inconsistent.
        """
        clips, crops = items.rngs("clip", views=1), items.rngs(self._name_purpose("crop"), views=1)

        def numbers(item: Item, video: VideoIndex) -> Int64s:
            return self.clip.numbers(video.n_frames, next(clips), video.first_frame, fps=video.fps)

        return [self.plan_of(item, numbers, [next(crops)] if item.views == 1 else None) for item in items]

    def plan_of(
        self,
        item: Item,
        numbers_of: Callable[[Item, VideoIndex], Int64s],
        crop_rngs: Sequence[np.random.Generator] | None = None,
    ) -> ClipPlan:
        """Plan a clip whose frame numbers, int64 (T,), `numbers_of` draws; `crop_rngs` as in `plan_video`."""
        video, member = find_indexed_video(item, self.component)
        numbers = numbers_of(item, video)
        return self.plan_video(item, video, numbers, clip_ranges(video, numbers, member), crop_rngs)

    def plan_video(
        self,
        item: Draws,
        video: VideoIndex,
        numbers: Int64s,
        own: tuple[Range, ...] = (),
        crop_rngs: Sequence[np.random.Generator] | None = None,
    ) -> ClipPlan:
        """Plan the frames `numbers`, int64 (T,), of a video.

        Args:
            item: Source of random draws.
            video: Index of the video.
            numbers: Frame numbers.
            own: Byte ranges to read.
            crop_rngs: Generators of the crops of all views, if they already exist.
        """
        rngs = item.rngs(self._name_purpose("crop")) if crop_rngs is None else crop_rngs
        crops = self.augment.views(video.width, video.height, self.clip.size, rngs)
        return ClipPlan(
            video=video,
            numbers=numbers,
            crops=[align_to_chroma_grid(crop, video.width, video.height) for crop in crops],
            own=own,
            draws=tuple(item.draw(view, part=self.camera) for view in range(item.views)) if self.finish_draws else (),
            short=int(numbers[-1] - numbers[0]) < self.clip.span(video.fps) - 1,
        )

    def layout(self, memory: Memory[ClipPlan]) -> VideoBatch:
        """Create the empty batch, with planes as large as the largest crops."""
        frames, size = self.clip.frames, self.clip.size if self.output == "rgb" else 0
        planes = None
        if self.output == "yuv":
            planes = PlaneBatch.empty(memory.rows, frames, [crop for plan in memory.plans for crop in plan.crops])
        return VideoBatch(
            video=memory(np.uint8, frames, size, size, 3),
            mask=None,
            flow=None,
            pts_s=memory(np.float64, frames),
            planes=planes,
            room=TokenRoom(memory.rows, (*self.grid.patch, 3)) if self.output in TOKEN_OUTPUTS else None,
            key=memory.key,
            label=memory.label,
        )

    def read(self, item: Item, plan: ClipPlan) -> ClipBytes:
        """Read the header and the GOPs that contain a clip."""
        return read_clip(item.manifest.store, plan.video, plan.numbers, plan.own)

    def fill(self, rows: BatchRows[ClipPlan], batch: VideoBatch, stats: Stats) -> None:
        """Read, decode and write the views of clips.

        Raises:
            SampleError: A clip cannot be read or decoded.
        """
        # Find all packets before decoding the first clip, and compute all flow after the last: decoding evicts Python's
        # code from the CPU cache, which makes it take twice as long.
        coded = [self._coded(item, plan, stats) for item, plan, _ in rows]
        late, filled = list_late_masks(self.masks) if batch.room is not None else (), list[ClipMotion]()
        for n, ((item, plan, own), (frames, notes)) in enumerate(zip(rows, coded, strict=True)):
            size = plan.video.width, plan.video.height
            with item.manifest.reading(item.index, self.component), stats.stage("decode"):
                decoded = decode_coded(frames, size=size, stored=notes.flows)
            filled.append(self.write(item, plan, decoded, notes, batch, own, stats))
            del decoded  # release the frames, so that the next clip is decoded into their memory
            if batch.room is not None:
                # Convert tokens before the next clip is decoded; their masks are known only now.
                self.add_flow([filled.pop()], stats)
                with stats.stage("mask"):
                    self.draw_masks(rows, batch, n, late)
                self.add_tokens(plan, rows.maps[self.camera][own.slice], stats)
        self.add_flow(filled, stats)

    def _coded(self, item: Item, plan: ClipPlan, stats: Stats) -> Coded:
        """Read a clip and find its packets and the data stored for its GOPs."""
        stats.short += plan.short
        with item.manifest.reading(item.index, self.component):
            with stats.stage("read"):
                data = self.read(item, plan)
            stats.read_bytes += data.size_bytes
            with stats.stage("decode"):
                moving, size = self.moving(plan), (plan.video.width, plan.video.height)
                notes = data.notes(size) if len(moving) or self.sees_energy else GopNotes()
                if self.sees_energy:
                    places = (self.grid.shape[1], self.grid.shape[2])
                    plan.energy = [read_stored_energy(notes, plan.numbers, crop, size, places) for crop in plan.crops]
                fragments, first = memoryview(data.fragments), data.first_frame
                frames = find_coded(data.header, fragments, first, plan.numbers, data.table, moving, data.whole)
        return Coded(frames, notes)

    def moving(self, plan: ClipPlan) -> Int64s:
        """Return the numbers of frames whose motion is needed, int64 (n,)."""
        return self.flow.vectors_of(plan.numbers) if isinstance(self.flow, SampleFlow) else plan.numbers[:0]

    def write(
        self,
        item: Draws,
        plan: ClipPlan,
        decoded: DecodedFrames,
        notes: GopNotes,
        batch: VideoBatch,
        own: SampleRows,
        stats: Stats,
    ) -> ClipMotion:
        """Write the views of a decoded clip and return the input of `add_flow`."""
        views = own.of(batch.video)
        if batch.room is not None:
            whole = self.sees_frames or isinstance(self.flow, SampleFlow) or bool(self.changes.title)
            size, frames = self.clip.size, len(decoded.frames)
            views = empty((len(plan.crops), frames, size, size, 3), np.uint8) if whole else views
            plan.decoded = ForTokens(decoded.frames, views if whole else None, batch.room, own.start)
        with stats.stage("convert"):
            if plan.decoded is not None and plan.decoded.clips is None:
                pass  # tokens are converted once the masks are known
            elif batch.planes is not None:
                plan.planes = [
                    crop_planes(decoded.frames, crop, batch.planes.room(view, crop))
                    for view, crop in enumerate(plan.crops, start=own.start)
                ]
            else:
                self._to_rgb(item, plan, decoded.frames, views)
        own.of(batch.pts_s)[:] = decoded.pts_s
        return ClipMotion(plan, views, decoded.vectors, notes.starts)

    def add_flow(self, clips: Sequence[ClipMotion], stats: Stats) -> None:
        """Compute the flow of the views of some clips and store it in their plans."""
        if isinstance(self.flow, SampleFlow) and clips:
            with stats.stage("flow"):
                flows = iter(flow_of(self.flow, clips))
                for clip in clips:
                    clip.plan.flows = list(islice(flows, len(clip.plan.crops)))

    def cues(
        self, rows: BatchRows[ClipPlan], batch: VideoBatch, n: int, view: int, part: str, needs: frozenset[str]
    ) -> Cues:
        """Return the frames, flow and stored energy of a view."""
        return self.cues_of(rows.plans[n], batch, rows.starts[n] + view, view, needs)

    def cues_of(self, plan: ClipPlan, batch: VideoBatch, row: int, view: int, needs: frozenset[str]) -> Cues:
        """Return the mask inputs of a plan's view in a given row."""
        frames = None
        if "frames" in needs:
            clips = None if plan.decoded is None else plan.decoded.clips
            frames = read_only(batch.video.numpy()[row] if clips is None else clips[view])
        energy = plan.energy[view] if plan.energy else None
        if not plan.flows:
            return Cues(frames=frames, energy=energy)
        flow = plan.flows[view]
        return Cues(frames=frames, flow=flow.vectors, cuts=flow.cuts, energy=energy)

    def add_tokens(self, plan: ClipPlan, maps: Sequence[Maps | None], stats: Stats) -> None:
        """Convert the tokens that the masks of a plan's views select."""
        if plan.decoded is None:
            return
        frames, clips, room, row = plan.decoded
        (_, *places), tokens = self.grid.shape, []
        with stats.stage("convert"):
            for view, (crop, own) in enumerate(zip(plan.crops, maps, strict=True)):
                assert own is not None
                index = list_chosen_tokens(own, self.output)
                pixels = room.of(row + view, len(index))
                if clips is None:
                    to_tokens(frames, crop, (places[0], places[1]), index, pixels)
                else:
                    pixels[:] = split_into_tokens(clips[view], self.grid)[np.unravel_index(index, self.grid.shape)]
                tokens.append(ViewTokens(index, pixels))
        plan.tokens, plan.decoded = tokens, None

    def join(self, batch: VideoBatch, plans: Iterable[ClipPlan], made: Mapping[str, Any]) -> VideoBatch:
        """Add flow, planes or tokens, and the draws of masks that a device transform computes."""
        plans = list(plans)
        planes = tokens = None
        if batch.room is not None:
            tokens = batch.room.joined([clip for plan in plans for clip in plan.tokens], self.output)
        if batch.planes is not None:
            planes = batch.planes.of_clips([clip for plan in plans for clip in plan.planes])
        draws = tuple(draw for plan in plans for draw in plan.draws)
        return replace(batch, flow=join_flow(plans), draws=draws, planes=planes, tokens=tokens, room=None, **made)

    def numbers(self, item: Draws, video: VideoIndex, n_frames: int | None = None) -> Int64s:
        """Draw the frame numbers of a clip, int64 (T,), from the first `n_frames` of the video; None means all."""
        n_frames = video.n_frames if n_frames is None else n_frames
        return self.clip.numbers(n_frames, item.rng("clip"), video.first_frame, fps=video.fps)

    def _name_purpose(self, name: str) -> str:
        """Return the purpose of a draw that cameras may share."""
        return name if self.shared or not self.camera else f"{name} {self.camera}"

    def _rng(self, item: Draws, view: int, name: str) -> np.random.Generator:
        return item.rng(self._name_purpose(name), view)

    def _to_rgb(self, item: Draws, plan: ClipPlan, frames: list[VideoFrame], views: UInt8s) -> None:
        """Write a sample's views, uint8 (views, T, size, size, 3)."""
        for view, (crop, to) in enumerate(zip(plan.crops, views, strict=True)):
            to_rgb(frames, crop, (self.clip.size, self.clip.size), to)
            self.changes.apply(to, partial(self._rng, item, view))


def flow_of(flow: SampleFlow, clips: Sequence[ClipMotion]) -> list[ClipFlow]:
    """Compute the flow of all views of some clips, with their scene cuts."""
    views = [
        DecodedClip(
            pixels=pixels,
            crop=crop,
            source=(clip.plan.video.width, clip.plan.video.height),
            frames=clip.plan.numbers,
            vectors=clip.vectors,
            starts=clip.starts,
        )
        for clip in clips
        for crop, pixels in zip(clip.plan.crops, clip.views, strict=True)
    ]
    return [
        with_cuts(found, flow.cuts(view, found)) if found.cuts is None else found
        for view, found in zip(views, flow.of_each(views), strict=True)
    ]


def split_into_tokens(clip: UInt8s, grid: TokenGrid) -> UInt8s:
    """Rearrange a view, uint8 (T, H, W, 3), into tokens, (t, h, w, tubelet, p, p, 3)."""
    (t, h, w), (tubelet, p, q) = grid.shape, grid.patch
    return clip.reshape(t, tubelet, h, p, w, q, 3).transpose(0, 2, 4, 1, 3, 5, 6)


def align_to_chroma_grid(crop: Crop, width: int, height: int) -> Crop:
    """Align a crop to the chroma grid of 4:2:0 video: even offsets and sizes within the frame, at least 2 pixels.

    Each edge moves by at most one pixel, or two if the frame has an odd side.
    """
    x, y = min(crop.x & ~1, (width & ~1) - 2), min(crop.y & ~1, (height & ~1) - 2)
    return Crop(
        x=x,
        y=y,
        width=min(crop.x + crop.width + 1 & ~1, width & ~1) - x,
        height=min(crop.y + crop.height + 1 & ~1, height & ~1) - y,
        flip=crop.flip,
    )
