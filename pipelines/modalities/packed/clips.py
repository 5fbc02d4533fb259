"""Clips for packed rows: lengths and crops from the manifest alone, and the tokens of a clip."""

from dataclasses import dataclass, field, replace
from math import ceil, floor
from typing import Any, ClassVar, Self

import numpy as np

from maskstream.pipelines.augment.transform import FrameChanges
from maskstream.pipelines.decode.cpu import PIXELS_VERSION, decode_frames, to_rgb
from maskstream.pipelines.flow import SampleFlow
from maskstream.pipelines.masks import Cues, TokenGrid
from maskstream.pipelines.masks.core import read_only
from maskstream.pipelines.modalities.rows import Item
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.clip_plan import (
    AroundClip,
    ClipPlan,
    clip_ranges,
    find_indexed_video,
    read_clip,
)
from maskstream.pipelines.modalities.video.energy import read_stored_energy
from maskstream.pipelines.modalities.video.rows import ClipMotion, align_to_chroma_grid, flow_of
from maskstream.pipelines.stream.order import GlobalBatch
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float64s, Int64s, UInt8s
from maskstream.shards.media.gop_notes import ANCHOR_STRIDE, ANCHORED, GopNotes
from maskstream.shards.media.limits import MAX_PIXELS
from maskstream.shards.stores.base import Range

from .native import NativeDraws, NativeSamples, Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTokensPlan(AroundClip):
    """A clip to read, whose crop becomes `shape` tokens of `patch` pixels."""

    clip: ClipPlan
    component: str
    shape: Shape
    patch: int
    changes: FrameChanges
    energy: bool
    """True if the mask reads the stored energy."""
    flow: SampleFlow | None
    """Source of the flow that the mask reads."""

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges of the clip."""
        return self.clip.ranges

    @property
    def held(self) -> int:
        """Number of tokens that are not padding: all of them."""
        t, h, w = self.shape
        return t * h * w

    def fill(self, item: Item, out: UInt8s, stats: Stats) -> Cues:
        """Write the tokens of the clip, uint8 (t * h * w, tubelet * p * p * 3).

        Raises:
            SampleError: The clip is unusable.
        """
        clip, side, (t, h, w) = self.clip, self.patch, self.shape
        size, energy = (clip.video.width, clip.video.height), None
        stats.short += clip.short
        with item.manifest.reading(item.index, self.component):
            with stats.stage("read"):
                data = read_clip(item.manifest.store, clip.video, clip.numbers, clip.own)
            stats.read_bytes += data.size_bytes
            with stats.stage("decode"):
                notes = data.notes(size) if self.energy or self.flow is not None else GopNotes()
                if self.energy:
                    energy = read_stored_energy(notes, clip.numbers, clip.crops[0], size, (h, w))
                decoded = decode_frames(
                    data.header,
                    memoryview(data.fragments),
                    data.first_frame,
                    clip.numbers,
                    size=size,
                    packets=data.table,
                    vectors_of=None if self.flow is None else self.flow.vectors_of(clip.numbers),
                    stored=notes.flows,
                    whole=data.whole,
                )
        with stats.stage("convert"):
            frames = np.empty((len(clip.numbers), h * side, w * side, 3), np.uint8)
            to_rgb(decoded.frames, clip.crops[0], (h * side, w * side), frames)
            self.changes.apply(frames, item.rng)
            cubes = frames.reshape(t, -1, h, side, w, side, 3).transpose(0, 2, 4, 1, 3, 5, 6)
            out.reshape(cubes.shape)[:] = cubes
        if self.flow is None:
            return Cues(energy=energy)
        with stats.stage("flow"):
            (flow,) = flow_of(self.flow, [ClipMotion(clip, frames[None], decoded.vectors, notes.starts)])
        return Cues(frames=read_only(frames), flow=flow.vectors, cuts=flow.cuts)


@dataclass(frozen=True, kw_only=True)
class NativeClips(NativeSamples):
    """Clips of a split's videos at their own aspect ratio, with a drawn length if `clip` draws it.

    Raises:
        ValueError: No clip of these lengths has whole tubelets and few enough tokens.
    """

    kind: ClassVar[str] = "video"
    clip: VideoClip
    """Clip settings, with `align` for the split's profile."""
    profile: str
    """Profile of the split."""
    longest: bool
    """Make clips as long as possible, as in validation."""
    changes: FrameChanges
    flow: SampleFlow | None = None
    """Source of the flow that the mask reads."""
    steps: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", self._steps())

    def _steps(self) -> tuple[int, int]:
        """Minimum and maximum number of time steps of a clip."""
        clip, native = self.clip, self.native
        if isinstance(clip.seconds, tuple):
            least = ceil(clip.shortest.frames / native.tubelet)
            most = floor(round(clip.seconds[1] * (clip.fps or 1), 6) / native.tubelet)
            if most < least:
                raise ValueError(
                    f"clip.seconds={clip.seconds}: at {clip.fps} frames per second, no clip length in this "
                    f"range is a multiple of tubelet={native.tubelet} frames; use a wider range"
                )
        else:
            least = most = clip.frames // native.tubelet
            if clip.frames % native.tubelet:
                raise ValueError(
                    f"clip.frames={clip.frames} is not a multiple of tubelet={native.tubelet} in Native; change one"
                )
        room = native.limits[1] // native.multiple**2
        if room < least:
            raise ValueError(
                f"most={native.limits[1]} in Native is less than the shortest clip needs, with {least} time "
                f"steps of at least {native.multiple**2} tokens; raise most, or use a shorter clip"
            )
        return least, min(most, room)

    def at(self, progress: float) -> Self:
        """Return the clips as drawn at a progress.

        Raises:
            ValueError: The maximum length is below the minimum.
        """
        made, seconds = super().at(progress), self.clip.seconds
        if self.seconds is None:
            return made
        if not isinstance(seconds, tuple):
            raise ValueError(
                f"seconds={self.seconds}: clip.seconds={seconds} is not a range of lengths; pass (low, high)"
            )
        if (longest := min(self.seconds.at(progress), seconds[1])) < seconds[0]:
            raise ValueError(
                f"seconds={self.seconds} is {longest:g} at progress {progress:g}, but the shortest clip has "
                f"{seconds[0]:g} seconds; use a lower start in clip.seconds"
            )
        return replace(made, clip=replace(self.clip, seconds=(seconds[0], longest)))

    @property
    def identity(self) -> dict[str, Any]:
        """Version of the pixel arithmetic, and the flow source."""
        return {"pixels": PIXELS_VERSION, **({} if self.flow is None else {"flow": self.flow.title})}

    @property
    def token_size(self) -> int:
        """Number of values of a token."""
        return self.native.tubelet * self.native.patch**2 * 3

    @property
    def extremes(self) -> tuple[Shape, ...]:
        """The smallest clip, and the largest ones, square and one patch high, at the shortest and longest length."""
        few, many = self.steps
        least, most = self.native.limits
        side = int((most // many) ** 0.5)
        square = (many, side, most // many // side)
        return (few, 1, max(-(-least // few), 1)), square, (many, 1, most // many), (few, 1, most // few)

    def draw(self, samples: GlobalBatch) -> NativeDraws:
        """Draw the lengths and crops of some clips. A sample without a usable video is replaced by a short clip of one
        patch.
        """
        component, indexes = self.manifest.component(self.components[0]), self.indexes(samples.indexes)
        facts, side = {name: component.facts[name][indexes] for name in _FACTS}, self.native.patch
        width, height, n_frames = (facts[name].astype(np.int64) for name in ("width", "height", "n_frames"))
        fps = facts["fps"].astype(np.float64)
        usable = (component.offset[indexes] > 0) & (width > 1) & (height > 1) & (n_frames > 0)
        usable &= (width <= MAX_PIXELS // np.maximum(height, 1)) & (fps > 0) & np.isfinite(fps)
        width, height, n_frames = (
            np.where(usable, of, other) for of, other in ((width, side), (height, side), (n_frames, 1))
        )
        few, many = self.steps
        held = self.clip.most_frames(n_frames, np.where(usable, fps, 1.0)) // self.native.tubelet
        reach = np.clip(held, few, many)
        numbers = self.uniform(samples, "length")[:, 0]
        steps = reach if self.longest else few + (numbers * (reach - few + 1)).astype(np.int64)
        crops = self.native.crops(width, height, self.uniform(samples, "native"), steps)
        return NativeDraws(
            shape=np.stack([steps, crops.rows, crops.columns], axis=1),
            crop=np.stack([crops.width, crops.height], axis=1),
            pixels=width * height * self._decoded(steps * self.native.tubelet, fps) // _PER_PIXEL,
        )

    def _decoded(self, frames: Int64s, fps: Float64s) -> Int64s:
        """Estimate how many frames are decoded for clips of some frames, int64 (N,); in profiles with anchors, frames
        that no other refers to are skipped.
        """
        apart = fps * self.clip.step_s(1.0) if self.clip.is_timed else float(self.clip.stride)
        passed = frames * apart / (ANCHOR_STRIDE if self.profile in ANCHORED else 1)
        return np.maximum(np.where(np.isfinite(passed), passed, 0).astype(np.int64), frames)

    def grid(self, shape: Shape) -> TokenGrid:
        """Return the (t, h, w) grid of a clip."""
        return TokenGrid(axes=("t", "h", "w"), shape=shape, patch=(self.native.tubelet, *(self.native.patch,) * 2))

    def plan(self, item: Item, shape: Shape, crop: tuple[int, int] | None) -> ClipTokensPlan:
        """Plan a clip.

        Raises:
            SampleError: The sample has no usable video.
        """
        native, component = self.native, self.components[0]
        video, member = find_indexed_video(item, component)
        wide, tall = native.fitting(video.width, video.height, *shape[1:]) if crop is None else crop
        placed = native.place(video.width, video.height, wide, tall, item.rng("crop"))
        if (wide, tall) == (shape[2] * native.patch, shape[1] * native.patch):
            placed = replace(placed, x=placed.x & ~1, y=placed.y & ~1)  # on the chroma grid, so nothing is resampled
        drawn = isinstance(self.clip.seconds, tuple)
        clip = self.clip.of_frames(shape[0] * native.tubelet) if drawn else self.clip
        numbers = clip.numbers(video.n_frames, item.rng("clip"), video.first_frame, fps=video.fps)
        planned = ClipPlan(
            video=video,
            numbers=numbers,
            crops=[align_to_chroma_grid(placed, video.width, video.height)],
            own=clip_ranges(video, numbers, member),
            draws=(),
            short=int(numbers[-1] - numbers[0]) < int(clip.offsets(video.fps)[-1]),
        )
        return ClipTokensPlan(
            clip=planned,
            component=component,
            shape=shape,
            patch=native.patch,
            changes=self.changes,
            energy=self.mask is not None and "energy" in self.mask.needs,
            flow=self.flow,
        )


_FACTS = ("width", "height", "n_frames", "fps")
_PER_PIXEL = 3
"""Number of video pixels that cost as much to decode as one image pixel, as measured."""
