"""Random masks without structure in space or time."""

from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.masks.core import (
    CLIP,
    PICTURE,
    SPECTROGRAM,
    Draw,
    Mask,
    Ratio,
    Rounding,
    Scheme,
    Shot,
    TokenGrid,
    as_schedule,
    square,
)
from maskstream.pipelines.masks.schedules.progress import Linear, SquaredCosine
from maskstream.pipelines.masks.schedules.random import MaskGIT, MultiRatio
from maskstream.shards.arrays import Bools

from .padded import Padded


@dataclass(frozen=True, kw_only=True, slots=True)
class Random(Mask):
    """Hide uniformly random tokens of any grid, with an exact count.

    At ratio 0.9 on 8 x 14 x 14 tokens, 156 of 1568 are visible. Source: MAE-ST (Feichtenhofer et al. 2022),
    spacetime-agnostic sampling; on an image grid it is MAE's mask.

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
    """

    ratio: Ratio = 0.9
    rounding: Rounding = "floor_visible"

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        visible = as_schedule(self.ratio).visible(grid.size, draw, self.rounding)
        return draw_random_tokens(grid.size, visible, draw.rng)


def draw_random_tokens(n: int, visible: int, rng: np.random.Generator) -> Bools:
    """Keep `visible` random tokens of `n` visible and hide the others: bool (n,), True = hidden."""
    hidden = np.ones(n, dtype=np.bool_)
    hidden[rng.permutation(n)[:visible]] = False
    return hidden


def adjust_map(hidden: Bools, visible: int, rng: np.random.Generator) -> Bools:
    """Hide or unhide random tokens of a map, bool (n,), until `visible` are visible."""
    missing = len(hidden) - int(np.count_nonzero(hidden)) - visible
    if missing:
        changed = np.flatnonzero(~hidden if missing > 0 else hidden)
        hidden = hidden.copy()
        hidden[rng.permutation(changed)[: abs(missing)]] = missing > 0
    return hidden


SCHEMES = (
    Scheme(
        name="random",
        paper="MAE-ST",
        section="sec. 3",
        mask=Random(ratio=0.9),
        grid=CLIP,
        visible=156,
        title="Random",
        note="Random tokens in space and time.",
    ),
    Scheme(
        name="diffmavil",
        paper="DiffMAViL",
        section="masking ratio curriculum",
        mask=Random(ratio=Linear(start=0.9, end=0.8)),
        grid=CLIP,
        title="Curriculum",
        note=(
            "The ratio falls over the run; with a token budget, batches shrink too. The two ends are not in "
            "published code."
        ),
        shots=(Shot(caption="First batch"), Shot(caption="Last batch", progress=1.0)),
    ),
    Scheme(
        name="mae",
        paper="MAE",
        section="sec. 3",
        mask=Random(ratio=0.75),
        grid=PICTURE,
        visible=49,
        title="Random",
        note="A random quarter of the patches stays visible: the baseline for all other masks.",
    ),
    Scheme(
        name="m3ae-image",
        paper="M3AE",
        section="its image",
        mask=Random(ratio=0.75),
        grid=square(18),
        visible=81,
        title="Random, image of an image-text pair",
        note="The image of a pair; `masks.Joint` masks both parts of a sample.",
    ),
    Scheme(
        name="maskgit",
        paper="MaskGIT",
        section="sec. 3.3",
        mask=Padded(mask=Random(ratio=MaskGIT())),
        grid=square(16),
        title="Cosine of a uniform number",
        note=(
            "The ratio of each sample is the cosine of a uniform number: mostly high, sometimes almost 0. "
            "`curve=` selects the paper's other functions."
        ),
        shots=tuple(Shot(caption=f"draw {i + 1}", view=i) for i in range(3)),
    ),
    Scheme(
        name="lmd",
        paper="LMD",
        section="masking schedulers",
        mask=Random(ratio=SquaredCosine()),
        grid=TokenGrid(axes=("h", "w"), shape=(7, 7), patch=(4, 4)),
        title="Ratio that rises and holds",
        note=(
            "The ratio rises from 15 to 75 % along a squared cosine in two thirds of the run. Tokens are patches "
            "of a latent image. `masks.Piecewise()` is the paper's second schedule."
        ),
        shots=tuple(Shot(caption=f"at {round(100 * p)} % of the run", progress=p) for p in (0.0, 1 / 3, 1.0)),
    ),
    Scheme(
        name="avsiam-image",
        paper="AVSiam",
        section="multi-ratio masking of images",
        mask=Padded(mask=Random(ratio=MultiRatio(name="image"))),
        grid=PICTURE,
        title="Several ratios in a batch",
        note="Equal parts of a batch get the ratios 0, 0.2, 0.4, 0.6 and 0.8, in a new order each time.",
        shots=tuple(Shot(caption=f"sample {i + 1}", row=i, rows=5) for i in range(5)),
    ),
    Scheme(
        name="audio-mae",
        paper="Audio-MAE",
        section="sec. 3",
        mask=Random(ratio=0.8),
        grid=SPECTROGRAM,
        visible=102,
        title="Random",
        note="Random spectrogram tokens: the paper's pre-training mask.",
    ),
)
