"""Figures of video clips: frames, flow, visible tokens over time, and a model's predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType

import cv2
import numpy as np
from torch import Tensor

from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.flow.picture import choose_flow_scale, usable
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.shards.arrays import Bools, Float32s, UInt8s

from .card import Card, Drawing, Fact, FrameTrack, Movie, PictureGrid, join_picture_row
from .figures import MaskRow, received, sample_card
from .pictures import (
    Grid,
    check_grid,
    compared,
    draw_flow_picture,
    draw_masked_picture,
    draw_runs,
    picture,
    sized,
    spread,
)
from .words import count, percent, plural, span

FULL_SIDE_PX, FULL_SIDE_FRAMES, MIN_SIDE_PX = 224, 128, 96
TIMES = "\N{MULTIPLICATION SIGN}"
COMPARED_FRAMES = 4
"""Maximum number of frames of a clip that are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFigures:
    """Figures of video clips.

    Attributes:
        grid: Grid of the tokens.
        clip: Description of the clips.
        flow: Description of the flow's source; "" for none.
        label_names: Names of the labels.
    """

    grid: Grid
    clip: str = ""
    flow: str = ""
    label_names: Sequence[str] = ()

    def about(self, batch: VideoBatch) -> tuple[str, dict[str, str]]:
        """Describe the clips and their tokens."""
        t, h, w = self.grid.shape
        lede = (
            f"{received(len(batch), 'clip')}: cropped, resized and masked. The model sees only the visible tokens of a "
            f"clip and reconstructs hidden ones. A token is a block of {patch_words(self.grid)}; a clip has "
            f"{plural(t, 'time step')} of {h} {TIMES} {w} tokens, {t * h * w:,} in all."
        )
        return lede, {"clip": self.clip, "flow": self.flow, "scene cuts": cut_words(batch)}

    def sample(self, batch: VideoBatch, i: int) -> Card:
        """Draw frames, their visible tokens, flow, and visible tokens over time.

        Args:
            batch: The batch.
            i: Row.
        """
        check_grid(self.grid, batch.video.shape[1:4], "the clips")
        frames = sized(batch.video[i].cpu().numpy(), self.grid, choose_page_side(batch.video))
        times = batch.pts_s[i].tolist()
        mask = MaskRow.of(batch.mask, i) if batch.mask else None
        tracks = [draw_picture_track(frames, self.grid)]
        if mask is not None:
            tracks.append(draw_seen_track(frames, mask, self.grid))
        missing = []
        if batch.flow is None or batch.flow.vectors.shape[1] == 0:
            missing.append("The loader returns no flow with these clips.")
        else:
            tracks.append(draw_flow_track(batch.flow, i, self.grid, frames.shape[1:3]))
        movie = Movie(
            tracks=tuple(tracks),
            times=tuple(times),
            together=self.grid.patch[0],
            first=find_frame_with_flow(batch.flow, i, len(times)),
            beside=_draw_dwell(mask, self.grid) if mask else None,
        )
        visible = [] if mask is None else count_visible_per_step(mask, self.grid)
        steps = Fact(name="Visible per step", value=span(visible), of=f"of {per_step(self.grid)}") if visible else None
        return sample_card(
            batch,
            i,
            f"{plural(len(times), 'frame')}, {times[0]:.2f} to {times[-1]:.2f} s of its video",
            (movie, _draw_timeline(mask, self.grid)) if mask else (movie,),
            {"": mask},
            names=self.label_names,
            more=(steps,) if steps else (),
            missing=missing,
            icon=find_first_picture(tracks[0]),
        )

    def compared(self, batch: VideoBatch, made: VideoBatch, i: int, guessed: VideoBatch | None = None) -> Card:
        """Draw a few original frames, their visible part if they are masked, a baseline's completion, and the model's.

        Args:
            batch: The original batch.
            made: The model's batch.
            i: Row.
            guessed: The baseline's batch.
        """
        side, (video, own) = choose_page_side(batch.video), (one.video[i].cpu().numpy() for one in (batch, made))
        if batch.mask is None:
            rows = {
                "original": draw_whole_frames(video, self.grid, side),
                "reconstruction": draw_whole_frames(own, self.grid, side),
            }
        else:
            mask = MaskRow.of(batch.mask, i)
            rows = draw_compared_frames(video, own, mask, self.grid, side)
            if guessed is not None:
                guess = draw_compared_frames(video, guessed.video[i].cpu().numpy(), mask, self.grid, side)
                model = rows.pop("reconstruction")
                rows |= {"guess": guess["reconstruction"], "reconstruction": model}
        return Card(key=batch.key[i], words="", figures=join_frame_rows(rows, batch.pts_s[i].tolist()))


def cut_words(batch: VideoBatch) -> str:
    """Return the number of scene cuts in the batch's clips; "" without flow."""
    if batch.flow is None:
        return ""
    return f"{plural(batch.scene_cuts(), 'cut')} in {plural(int(batch.flow.cuts.any(1).sum()), 'clip')} of {len(batch)}"


def choose_picture_side(frames: int) -> float:
    """Return the longer side in pixels of a page's images, so that their total area stays bounded."""
    return max(MIN_SIDE_PX, FULL_SIDE_PX * min(1.0, sqrt(FULL_SIDE_FRAMES / max(frames, 1))))


def choose_page_side(video: Tensor) -> float:
    """Return the side of the images of a page with all frames of clips (B, T, H, W, 3)."""
    return choose_picture_side(video.shape[0] * video.shape[1])


def find_first_picture(track: FrameTrack) -> str:
    """Return the address of the first image of a track."""
    return track.pictures[0].uri if track.pictures[0] else ""


def per_step(grid: Grid) -> int:
    """Return the number of tokens of a time step."""
    return grid.shape[1] * grid.shape[2]


def count_visible_per_step(mask: MaskRow, grid: Grid) -> list[int]:
    """Return the number of visible tokens in each time step.

    Args:
        mask: The mask.
        grid: Grid of the tokens.
    """
    visible: list[int] = (~mask.masked).reshape(grid.shape).sum((1, 2)).tolist()
    return visible


def patch_words(grid: Grid) -> str:
    """Describe a token: `2 frames` of 16 by 16 pixels, with multiplication signs."""
    return f" {TIMES} ".join((plural(grid.patch[0], "frame"), str(grid.patch[1]), f"{grid.patch[2]} pixels"))


def draw_picture_track(frames: UInt8s, grid: Grid) -> FrameTrack:
    """Return the track of a clip's frames.

    Args:
        frames: Frames (T, H, W, 3).
        grid: Grid of the tokens.
    """
    together = grid.patch[0]
    steps = f"Frames that are grouped ({together}) form one time step and share its tokens. " if together > 1 else ""
    return FrameTrack(
        name="picture",
        title="Frame",
        heading="Frames.",
        words=f"{steps}Times are seconds from the start of the video.",
        pictures=tuple(picture(frame, f"picture {f + 1}") for f, frame in enumerate(frames)),
    )


def draw_seen_track(frames: UInt8s, mask: MaskRow, grid: Grid) -> FrameTrack:
    """Return the track of the frames' visible tokens.

    Args:
        frames: Frames (T, H, W, 3).
        mask: The mask.
        grid: Grid of the tokens.
    """
    hidden, visible = mask.masked.reshape(grid.shape).repeat(grid.patch[0], axis=0), count_visible_per_step(mask, grid)
    return FrameTrack(
        name="seen",
        title="Visible tokens",
        heading="The mask.",
        words=f"Bright squares are visible to the encoder: {span(visible)} of {per_step(grid)} per time step. Grey "
        "ones are hidden.",
        pictures=tuple(draw_masked_picture(frames[f], hidden[f], f"seen {f + 1}") for f in range(len(frames))),
        under=tuple(f"{n} visible" for n in visible),
    )


def draw_flow_track(flow: Flow, i: int, grid: Grid, size: tuple[int, int], scale_px: float | None = None) -> FrameTrack:
    """Return the track of the flow of clip `i`, for each frame except the first.

    Args:
        flow: Flow of the batch.
        i: Row.
        grid: Grid of the tokens.
        size: Height and width of the images.
        scale_px: Length of full colour; chosen for the clip by default.
    """
    vectors: Float32s = flow.vectors[i].float().cpu().numpy()
    valid: Bools = flow.valid[i].cpu().numpy().astype(bool)
    scale_px = scale_px or choose_flow_scale(vectors, valid)
    absent = 1.0 - float(usable(vectors, valid).mean())
    hatched = f" Hatched cells ({percent(absent)}) have no vector." if absent > 0 else ""
    drawn = [draw_flow_picture(v, ok, scale_px, size) for v, ok in zip(vectors, valid, strict=True)]
    return FrameTrack(
        name="flow",
        title="Flow",
        heading="Flow.",
        words="Colour is the direction of motion since the previous frame, as on the disc; saturation is its length, "
        f"and full colour is {scale_px:g} px or more. White did not move.{hatched}",
        pictures=(None, *(picture(one, f"flow {f}") for f, one in enumerate(drawn, start=2))),
        under=_cut_steps(flow.cuts[i].tolist(), grid.patch[0]),
        legend=f"{scale_px:g} px",
    )


def draw_confidence_track(trust: Float32s, size: tuple[int, int]) -> FrameTrack:
    """Return the track of the confidence of a clip's flow, for each frame except the first.

    Args:
        trust: Confidence (T-1, h, w) in [0, 1].
        size: Height and width of the images.
    """
    grey = np.rint(255 * trust).astype(np.uint8)[..., None].repeat(3, axis=-1)
    drawn = [cv2.resize(one, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8) for one in grey]
    return FrameTrack(
        name="trust",
        title="Confidence",
        heading="Confidence.",
        words="White where the previous frame, warped along the flow, explains the cell; black where it does not, or "
        "where the source has no vector.",
        pictures=(None, *(picture(one, f"confidence {f}") for f, one in enumerate(drawn, start=2))),
    )


def _cut_steps(cuts: Sequence[bool], together: int) -> tuple[str, ...]:
    """Return a note under each time step in which a scene begins; nothing for a clip of one scene."""
    begins = [False, *cuts]
    steps = [any(begins[f : f + together]) for f in range(0, len(begins), together)]
    return tuple("a scene begins" if step else "" for step in steps) if any(steps) else ()


def find_frame_with_flow(flow: Flow | None, i: int, frames: int) -> int:
    """Return the index of the frame of clip `i` nearest to the middle in which at least half of the flow's cells have a
    vector.

    The first frame of a GOP has none. Without such a frame, the middle is returned.

    Args:
        flow: Flow of the batch.
        i: Row.
        frames: Number of frames.
    """
    middle = frames // 2
    if flow is None:
        return middle
    valid = usable(flow.vectors[i].float().cpu().numpy(), flow.valid[i].cpu().numpy().astype(bool))
    known = [f for f, cells in enumerate(valid, start=1) if cells.mean() >= 0.5]
    return min(known, key=lambda f: abs(f - middle), default=middle)


def _draw_dwell(mask: MaskRow, grid: Grid) -> Drawing:
    """Draw the number of steps in which each position is visible."""
    steps, rows, columns = grid.shape
    dwell = (~mask.masked).reshape(grid.shape).sum(0)
    levels = [n for n in range(1, steps + 1) if (dwell == n).any()]
    return Drawing(
        paths=tuple(("dwelt", draw_runs(dwell == n)) for n in levels),
        opacity=tuple(n / steps for n in levels),
        width=columns,
        height=rows,
        aspect=columns * grid.patch[2] / (rows * grid.patch[1]),
        alt="Steps in which each position is visible",
        words=f"How long tokens stay visible. The stronger the colour, the more of the {steps} steps a position is "
        f"visible in. {count(int((dwell > 0).sum()))} of {count(dwell.size)} positions are seen at least once.",
    )


def _draw_timeline(mask: MaskRow, grid: Grid) -> Drawing:
    """Draw visible tokens: time steps (rows) by positions in the frame (columns). Tokens that were visible at the same
    position in the previous step are counted as kept.
    """
    (steps, rows, columns), places = grid.shape, per_step(grid)
    seen, undecoded = ~mask.masked.reshape(steps, -1), draw_runs((mask.masked & ~mask.targeted).reshape(steps, -1))
    visible, again = seen.sum(1), (seen[1:] & seen[:-1]).sum(1)
    kept = ""
    if later := int(visible[1:].sum()):
        share = percent(int(again.sum()) / later)
        kept = f" Of the tokens visible in a step, {share} were visible at the same position in the previous step."
    return Drawing(
        title="Visible tokens over time",
        words=f"Each row is a time step, each column one of the {places} positions, numbered along the frame's rows. A "
        f"position that stays visible draws a vertical line.{kept}",
        keys=describe_token_colours(undecoded),
        paths=(
            ("undecoded", undecoded),
            ("visible", draw_runs(seen)),
            ("rule", "".join(f"M{r * columns} 0v{steps}" for r in range(1, rows))),
        ),
        width=places,
        height=steps,
        alt="Visible tokens by step and position",
        stretch=True,
        left=tuple(str(step + 1) for step in range(steps)),
        right=tuple(zip(map(str, visible), ["", *(f"{n} kept" for n in again)], strict=True)),
        below=("top row of the frame", "bottom row"),
    )


def describe_token_colours(undecoded: str) -> tuple[tuple[str, str], ...]:
    """Return the legend of a map of tokens; `undecoded` is the path of tokens that are not reconstructed."""
    if not undecoded:
        return (("visible", "visible"), ("", "hidden"))
    return (("visible", "visible"), ("", "hidden, reconstructed"), ("undecoded", "hidden, not reconstructed"))


Rows = dict[str, UInt8s]


def draw_compared_frames(video: UInt8s, made: UInt8s, mask: MaskRow, grid: Grid, side_px: float) -> Rows:
    """Draw a few original frames of a clip, their visible part, and the model's completion.

    Args:
        video: Original frames (T, H, W, 3).
        made: The model's frames.
        mask: The mask.
        grid: Grid of the tokens.
        side_px: Longer side of the images in pixels.
    """
    if made.shape != video.shape:
        raise ValueError(f"reconstructions must have the shape of the clips, {video.shape}, got {made.shape}")
    check_grid(grid, video.shape[:3], "the clips")
    steps = spread(len(video), COMPARED_FRAMES) // grid.patch[0]
    hidden, targeted = (one.reshape(grid.shape)[steps] for one in (mask.masked, mask.targeted))
    return compared(draw_whole_frames(video, grid, side_px), draw_whole_frames(made, grid, side_px), hidden, targeted)


def draw_whole_frames(frames: UInt8s, grid: Grid, side_px: float) -> UInt8s:
    """Return a few frames (T, H, W, 3), resized for the figures.

    Args:
        frames: The frames.
        grid: Grid of the tokens.
        side_px: Longer side of the images in pixels.
    """
    return sized(frames[spread(len(frames), COMPARED_FRAMES)], grid, side_px)


NAMES = {
    "original": "Original",
    "the encoder saw": "The encoder saw",
    "guess": "Interpolation",
    "reconstruction": "Reconstruction",
    "ids": "Decoded from its ids",
    "generated": "Generated",
    "persistence": "The last frame, repeated",
}


def join_frame_rows(
    rows: Rows, times: Sequence[float], sounds: Mapping[str, UInt8s] = MappingProxyType({})
) -> tuple[PictureGrid, ...]:
    """Return a row of images for each row of frames.

    Args:
        rows: Frames by name.
        times: Times of all frames of the clip.
        sounds: Spectrograms (H, W, 3) that end the rows of their names.
    """
    shown, last = [times[f] for f in spread(len(times), COMPARED_FRAMES)], list(rows)[-1]
    grids = []
    for name, frames in rows.items():
        pictures = [
            picture(frame, f"{name} at {at:.2f} s", f"{at:.2f} s" if name == last else "")
            for frame, at in zip(frames, shown, strict=True)
        ]
        if name in sounds:
            pictures.append(picture(sounds[name], f"spectrogram, {name}", "audio" if name == last else ""))
        grids.append(join_picture_row(*pictures, title=NAMES[name]))
    return tuple(grids)
