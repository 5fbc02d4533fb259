"""Figures of clips of video: frames, flow, which tokens stay visible over time, and what a model makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.flow.picture import flow_scale, usable
from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch

from .card import Card, Drawing, Fact, Facts, Frame, FrameTrack, Movie, Picture, PictureGrid, label_words
from .figures import ClipTokens, mask_facts, outline_path, runs_path
from .pictures import Bool, Grid, UInt8, cell_size, check_grid, darken, data_uri, flow_picture, resize, token_pixels
from .words import count, percent, plural, span

FULL_SIDE_PX, FULL_SIDE_FRAMES, MIN_SIDE_PX = 224, 128, 96
TIMES = "\N{MULTIPLICATION SIGN}"
COMPARED_FRAMES = 4
"""As many frames of a clip at most are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFigures:
    """Of clips whose tokens are those of `grid`. flow: where the flow comes from, in words; empty for none."""

    grid: Grid
    clip: str = ""
    flow: str = ""
    label_names: Sequence[str] = ()

    def about(self, batch: VideoBatch) -> tuple[str, dict[str, str]]:
        """How clips are made, and into which tokens they are cut."""
        (t, h, w), n = self.grid.shape, len(batch)
        lede = (
            f"{plural(n, 'clip')} as the training loop receives {'it' if n == 1 else 'them'}: cropped, resized and "
            "masked. The model is shown only the visible tokens of a clip and has to reconstruct hidden ones. A token "
            f"is a block of {patch_words(self.grid)}; a clip has {plural(t, 'time step')} of {h} {TIMES} {w} tokens, "
            f"{t * h * w:,} in all."
        )
        return lede, {"clip": self.clip, "flow": self.flow, "scene cuts": cut_words(batch)}

    def sample(self, batch: VideoBatch, i: int) -> Card:
        """Frames, what the encoder sees of them, flow, and visible tokens over time."""
        check_grid(self.grid, *batch.video.shape[1:4])
        cell = cell_size(self.grid, picture_side(len(batch) * batch.video.shape[1]))
        frames = resize(batch.video[i].cpu().numpy(), self.grid.shape[1] * cell[0], self.grid.shape[2] * cell[1])
        times = batch.pts_s[i].tolist()
        tokens = ClipTokens.of(batch.mask, i, self.grid) if batch.mask else None
        tracks = [picture_track(frames, times, self.grid)]
        missing = []
        if tokens is None:
            missing.append("The loader was built without a mask.")
        else:
            tracks.append(seen_track(frames, times, tokens, self.grid, cell))
        if batch.flow is None or batch.flow.vectors.shape[1] == 0:
            missing.append("The loader gives no flow with these clips.")
        else:
            tracks.append(flow_track(batch.flow, i, times, self.grid, frames.shape[1:3]))
        words = f"{plural(len(times), 'frame')}, {times[0]:.2f} to {times[-1]:.2f} s of its video"
        first = frame_with_flow(batch.flow, i, len(times))
        movie = Movie(tracks=tuple(tracks), first=first, beside=None if tokens is None else _dwell(tokens, self.grid))
        return Card(
            key=batch.key[i],
            words=words,
            label=label_words(int(batch.label[i]), self.label_names),
            facts=() if tokens is None else (_facts(tokens),),
            figures=(movie,) if tokens is None else (movie, _timeline(tokens, self.grid)),
            missing=tuple(missing),
            icon=str(tracks[0].frames[0].picture and tracks[0].frames[0].picture.uri),
        )

    def compared(
        self, batch: VideoBatch, made: VideoBatch, i: int, guessed: VideoBatch | None = None, words: str = ""
    ) -> Card:
        """A few frames as they were, as the encoder saw them if they are masked, as a guess completes them, and as the
        model makes them.
        """
        side = picture_side(len(batch) * batch.video.shape[1])
        video = batch.video[i].cpu().numpy()
        if batch.mask is None:
            pairs = (("original", video), ("reconstruction", made.video[i].cpu().numpy()))
            rows = {name: whole_frames(frames, self.grid, side) for name, frames in pairs}
            return Card(key=batch.key[i], words=words, figures=frame_rows(rows, batch.pts_s[i].tolist()))
        rows = compared_frames(video, made.video[i].cpu().numpy(), batch.mask, i, self.grid, side)
        if guessed is not None:
            guess = compared_frames(video, guessed.video[i].cpu().numpy(), batch.mask, i, self.grid, side)
            rows = {"original": rows["original"], "seen": rows["seen"], "guess": guess["reconstruction"], **rows}
        times = batch.pts_s[i].tolist()
        return Card(key=batch.key[i], words=words, figures=frame_rows(rows, times))


def cut_words(batch: VideoBatch) -> str:
    """How many scene cuts were found in the batch's clips; empty without flow."""
    if batch.flow is None:
        return ""
    return f"{plural(batch.scene_cuts(), 'cut')} in {plural(int(batch.flow.cuts.any(1).sum()), 'clip')} of {len(batch)}"


def picture_side(frames: int) -> float:
    """The longer side in pixels of the pictures of a page with so many frames: its area of pictures stays bounded."""
    return max(MIN_SIDE_PX, FULL_SIDE_PX * min(1.0, sqrt(FULL_SIDE_FRAMES / max(frames, 1))))


def patch_words(grid: Grid) -> str:
    """`2 frames` of 16 by 16 pixels, with signs of multiplication."""
    return f" {TIMES} ".join((plural(grid.patch[0], "frame"), str(grid.patch[1]), f"{grid.patch[2]} pixels"))


def picture_track(frames: UInt8, times: Sequence[float], grid: Grid) -> FrameTrack:
    """The frames (T, H, W, 3) of a clip."""
    together = grid.patch[0]
    steps = f"Frames that stand together ({together}) form one time step and share its tokens. " if together > 1 else ""
    return FrameTrack(
        name="picture",
        title="Frame",
        heading="Frames.",
        words=f"{steps}Times are seconds from the start of the video.",
        frames=_frames("picture", [Picture(uri=data_uri(f), alt="") for f in frames], times, grid),
    )


def seen_track(
    frames: UInt8, times: Sequence[float], tokens: ClipTokens, grid: Grid, cell: tuple[int, int]
) -> FrameTrack:
    """What the encoder sees of the frames."""
    shown = darken(frames, token_pixels(tokens.masked, grid, cell))
    outlines = [outline_path(~masked) for masked in tokens.masked.reshape(grid.shape)]
    _, rows, columns = grid.shape
    pictures = [
        Picture(uri=data_uri(frame), alt="", outline=outlines[f // grid.patch[0]], columns=columns, rows=rows)
        for f, frame in enumerate(shown)
    ]
    visible = tokens.counts.visible_per_step
    return FrameTrack(
        name="seen",
        title="What the encoder sees",
        heading="The mask.",
        words=f"Bright squares are what the encoder sees: {span(visible)} of {tokens.counts.per_step} per time step. "
        "Grey ones are hidden from it.",
        frames=_frames("seen", pictures, times, grid),
        under=tuple(f"{n} visible" for n in visible),
    )


def _frames(name: str, pictures: Sequence[Picture | None], times: Sequence[float], grid: Grid) -> tuple[Frame, ...]:
    """The frames of a track, each named by its number."""
    return tuple(
        Frame(
            number=f + 1,
            step=f // grid.patch[0] + 1,
            time_s=time,
            picture=None
            if one is None
            else Picture(uri=one.uri, alt=f"{name} {f + 1}", outline=one.outline, columns=one.columns, rows=one.rows),
        )
        for f, (one, time) in enumerate(zip(pictures, times, strict=True))
    )


def flow_track(
    flow: Flow, i: int, times: Sequence[float], grid: Grid, size: tuple[int, int], scale_px: float | None = None
) -> FrameTrack:
    """The flow of clip `i`, for each frame but the first; scale_px: the length of full colour, by default its own."""
    vectors: npt.NDArray[np.float32] = flow.vectors[i].float().cpu().numpy()
    valid: Bool = flow.valid[i].cpu().numpy().astype(bool)
    scale_px = scale_px or flow_scale(vectors, valid)
    absent = 1.0 - float(usable(vectors, valid).mean())
    hatched = f" Hatched cells ({percent(absent)}) have no vector of their own." if absent > 0 else ""
    drawn = [flow_picture(v, ok, scale_px, size) for v, ok in zip(vectors, valid, strict=True)]
    pictures = [Picture(uri=data_uri(one), alt="") for one in drawn]
    return FrameTrack(
        name="flow",
        title="Flow",
        heading="Flow.",
        words="Colour is the direction in which things moved since the frame before, as on the disc; strength is how "
        f"far, and full colour is {scale_px:g} px or more. White is rest.{hatched}",
        frames=_frames("flow", [None, *pictures], times, grid),
        under=_cut_steps(flow.cuts[i].tolist(), grid.patch[0]),
        legend=f"{scale_px:g} px",
    )


def confidence_track(
    trust: npt.NDArray[np.float32], word: str, times: Sequence[float], grid: Grid, size: tuple[int, int]
) -> FrameTrack:
    """How far the flow of a clip can be trusted, (T-1, h, w) in [0, 1], for each frame but the first."""
    grey = np.rint(255 * trust).astype(np.uint8)[..., None].repeat(3, axis=-1)
    drawn = [cv2.resize(one, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8) for one in grey]
    pictures = [Picture(uri=data_uri(one), alt="") for one in drawn]
    return FrameTrack(
        name=f"trust-{word}",
        title=f"Confidence, {word}",
        heading=f"Confidence of {word}.",
        words="White where the frame before, moved along the flow, explains the cell; black where it does not, or "
        "where the source has no vector.",
        frames=_frames("confidence", [None, *pictures], times, grid),
    )


def _cut_steps(cuts: Sequence[bool], together: int) -> tuple[str, ...]:
    """Under each time step, whether a scene begins in it; nothing for a clip of one scene."""
    begins = [False, *cuts]
    steps = [any(begins[f : f + together]) for f in range(0, len(begins), together)]
    return tuple("a scene begins" if step else "" for step in steps) if any(steps) else ()


def frame_with_flow(flow: Flow | None, i: int, frames: int) -> int:
    """The index of the frame of clip `i` that is nearest to the middle among those where half of the flow's cells or
    more have a vector (a frame at the start of a GOP has none); the middle where no frame has.
    """
    middle = frames // 2
    if flow is None:
        return middle
    valid = usable(flow.vectors[i].float().cpu().numpy(), flow.valid[i].cpu().numpy().astype(bool))
    known = [f for f, cells in enumerate(valid, start=1) if cells.mean() >= 0.5]
    return min(known, key=lambda f: abs(f - middle), default=middle)


def _facts(tokens: ClipTokens) -> Facts:
    visible = Fact(
        name="Visible per step", value=span(tokens.counts.visible_per_step), of=f"of {tokens.counts.per_step}"
    )
    return Facts(items=(*mask_facts(tokens.counts), visible))


def _dwell(tokens: ClipTokens, grid: Grid) -> Drawing:
    """In how many steps each place is visible."""
    (steps, rows, columns), counts = grid.shape, tokens.counts
    levels = [n for n in range(1, steps + 1) if (counts.dwell == n).any()]
    return Drawing(
        paths=tuple(("dwelt", runs_path(counts.dwell == n)) for n in levels),
        opacity=tuple(n / steps for n in levels),
        width=columns,
        height=rows,
        aspect=columns * grid.patch[2] / (rows * grid.patch[1]),
        alt="Steps in which each place is visible",
        words=f"Where tokens stay. The stronger the colour, the more of the {steps} steps a place is visible in. "
        f"{count(counts.places_seen)} of {count(counts.per_step)} places are seen at least once.",
    )


def _timeline(tokens: ClipTokens, grid: Grid) -> Drawing:
    """Visible tokens: time steps (rows) by places of the picture (columns)."""
    (steps, rows, columns), counts = grid.shape, tokens.counts
    undecoded = runs_path((tokens.masked & ~tokens.targeted).reshape(steps, -1))
    kept = (
        ""
        if counts.kept_share is None
        else (
            f" Of the tokens visible in a step, {percent(counts.kept_share)} were visible at the same place in the "
            "step before."
        )
    )
    kept_words = ["", *(f"{n} kept" for n in counts.kept_per_step[1:])]
    return Drawing(
        title="Visible tokens over time",
        words=f"Each row is a time step, each column one of the {counts.per_step} places, numbered along the picture's "
        f"rows. A place that stays visible draws a vertical line.{kept}",
        keys=token_keys(undecoded),
        paths=(
            ("undecoded", undecoded),
            ("visible", runs_path(~tokens.masked.reshape(steps, -1))),
            ("rule", "".join(f"M{r * columns} 0v{steps}" for r in range(1, rows))),
        ),
        width=counts.per_step,
        height=steps,
        alt="Visible tokens by step and place",
        stretch=True,
        left=tuple(str(step + 1) for step in range(steps)),
        right=tuple(zip(map(str, counts.visible_per_step), kept_words, strict=True)),
        below=("top row of the picture", "bottom row"),
    )


def token_keys(undecoded: str) -> tuple[tuple[str, str], ...]:
    """What the colours of a map of tokens say; `undecoded` is the path of those that nobody reconstructs."""
    if not undecoded:
        return (("visible", "visible"), ("", "hidden"))
    return (("visible", "visible"), ("", "hidden, reconstructed"), ("undecoded", "hidden, not reconstructed"))


Rows = dict[str, UInt8]


def compared_frames(video: UInt8, made: UInt8, mask: MaskBatch, i: int, grid: Grid, side_px: float) -> Rows:
    """A few frames of clip `i` (T, H, W, 3): as they were, as the encoder saw them, and as the model completes them."""
    if made.shape != video.shape:
        raise ValueError(f"reconstructions have the shape of the clips, {video.shape}, got {made.shape}")
    check_grid(grid, *video.shape[:3])
    shown = shown_frames(len(video))
    tokens = ClipTokens.of(mask, i, grid)
    cell = cell_size(grid, side_px)
    height, width = grid.shape[1] * cell[0], grid.shape[2] * cell[1]
    masked = token_pixels(tokens.masked, grid, cell)[shown]
    targeted = token_pixels(tokens.targeted, grid, cell)[shown]
    video, made = resize(video[shown], height, width), resize(made[shown], height, width)
    completed = complete(video, made, masked, targeted)
    return {"original": video, "seen": darken(video, masked), "reconstruction": completed}


def whole_frames(frames: UInt8, grid: Grid, side_px: float) -> UInt8:
    """A few frames (T, H, W, 3), in the size of the figures."""
    cell = cell_size(grid, side_px)
    return resize(frames[shown_frames(len(frames))], grid.shape[1] * cell[0], grid.shape[2] * cell[1])


def shown_frames(length: int) -> npt.NDArray[np.int64]:
    """The frames that are compared, evenly spaced."""
    return np.unique(np.linspace(0, length - 1, min(COMPARED_FRAMES, length)).round().astype(np.int64))


def complete(video: UInt8, made: UInt8, masked: Bool, targeted: Bool) -> UInt8:
    """What may be shown as the model's work, uint8 (T, H, W, 3): `made` where a token was hidden and predicted.

    Where the encoder saw a token it is `video`, and where it was neither seen nor predicted it is `video` darkened.
    masked, targeted: bool (T, H, W).
    """
    return np.where((masked & targeted)[..., None], made, darken(video, masked))


NAMES = {
    "original": "Original",
    "seen": "The encoder saw",
    "guess": "Interpolation",
    "reconstruction": "Reconstruction",
    "ids": "Drawn from its ids",
    "generated": "Generated",
    "persistence": "The last frame, repeated",
}


def frame_rows(rows: Rows, times: Sequence[float], *beside: tuple[str, Picture]) -> tuple[PictureGrid, ...]:
    """A row of pictures for each of the rows of frames; `beside` pictures end the rows of their names."""
    shown = [times[f] for f in shown_frames(len(times))]
    last = list(rows)[-1]
    made = []
    for name, frames in rows.items():
        pictures = [
            Picture(uri=data_uri(frame), alt=f"{name} at {at:.2f} s", caption=f"{at:.2f} s" if name == last else "")
            for frame, at in zip(frames, shown, strict=True)
        ]
        pictures += [picture for row, picture in beside if row == name]
        made.append(PictureGrid(items=tuple(pictures), across=len(pictures), title=NAMES[name]))
    return tuple(made)
