"""Strips of a spectrogram: whole columns in time and whole rows in frequency."""

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from maskstream.pipelines.masks.core import SPECTROGRAM, Draw, Mask, Scheme, Shot, TokenGrid
from maskstream.pipelines.masks.core.ratio import (
    Ratio,
    RatioAlone,
    Rounding,
    as_proportion_schedule,
    as_schedule,
    visible_count,
)
from maskstream.pipelines.masks.schedules.random import MultiRatio
from maskstream.shards.arrays import Bools
from maskstream.shards.limits import Proportion

from .padded import Padded
from .random import adjust_map, draw_random_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Strips(Mask):
    """Hide random columns in time and random rows in frequency, both with exact counts.

    At 0.7 and 0.3 on 64 (time) x 8 (freq) tokens, 19 columns and 5 rows are visible, 95 tokens. The grid's axes are
    (time, freq) or (freq, time). Source: Audio-MAE (Huang et al. 2022, structured masking).

    Attributes:
        time: Fraction of hidden columns, or a ratio schedule; 0 hides none.
        freq: Fraction of hidden rows, or a ratio schedule; 0 hides none.
        rounding: Conversion of ratios to counts; see core/ratio.py.
    """

    time: Ratio = 0.7
    freq: Ratio = 0.3
    rounding: Rounding = "floor_visible"

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        columns, rows = spectrogram(grid, by="Strips")
        time = draw_random_tokens(columns, as_schedule(self.time).visible(columns, draw, self.rounding), draw.rng)
        freq = draw_random_tokens(rows, as_schedule(self.freq).visible(rows, draw, self.rounding), draw.rng)
        return cross_strips(time, freq, grid)


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledStrips(Mask):
    """Hide random columns and rows, then hide or unhide single tokens until the count is exact.

    At ratio 0.8 on 8 (freq) x 64 (time) tokens, 35 columns and 4 rows are hidden, plus 14 of the remaining 116 tokens,
    so 102 are visible. At 0.2, 0.4 and 0.6 the strips hide more than the ratio, and random tokens of them become
    visible again. The grid's axes are (freq, time) or (time, freq). Source: AVSiam (Lin & Bertasius 2024), structured
    masking of audio.

    Attributes:
        ratio: Fraction of hidden tokens, or a schedule of ratios.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
        time: Fraction of the ratio used for columns: floor(ratio * time * columns) are hidden. (1, 0) for `time` and
            `freq` hides columns only, (0, 1) rows only.
        freq: Fraction of the ratio used for rows: floor(ratio * freq * rows) are hidden.
    """

    ratio: RatioAlone = 0.8
    rounding: Rounding = "floor_visible"
    time: Proportion = 0.7
    freq: Proportion = 0.7

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        columns, rows = spectrogram(grid, by="FilledStrips")
        ratio, rng = as_proportion_schedule(self.ratio, by="FilledStrips").draw(draw), draw.rng
        time = draw_random_tokens(columns, columns - struck(columns, ratio, self.time), rng)
        freq = draw_random_tokens(rows, rows - struck(rows, ratio, self.freq), rng)
        return adjust_map(cross_strips(time, freq, grid), visible_count(grid.size, ratio, self.rounding), rng)


def spectrogram(grid: TokenGrid, by: str) -> tuple[int, int]:
    """Return the numbers of columns (time) and rows (frequency).

    Raises:
        ValueError: The grid has other axes; the message names the pattern `by`.
    """
    if sorted(grid.axes) != ["freq", "time"]:
        raise ValueError(f"{by} needs a grid with the axes ('time', 'freq') or ('freq', 'time'), got {grid.axes}")
    return grid.shape[grid.axes.index("time")], grid.shape[grid.axes.index("freq")]


def cross_strips(time: Bools, freq: Bools, grid: TokenGrid) -> Bools:
    """Combine hidden columns and rows into a map of the grid: bool (N,)."""
    first, second = (time, freq) if grid.axes[0] == "time" else (freq, time)
    return (first[:, None] | second).reshape(-1)


def struck(n: int, ratio: float, part: float) -> int:
    """Return floor(ratio * part * n) in exact decimal arithmetic."""
    return floor(Fraction(str(ratio)) * Fraction(str(part)) * n)


SCHEMES = (
    Scheme(
        name="audio-mae-strips",
        paper="Audio-MAE",
        section="structured masking",
        mask=Strips(time=0.7, freq=0.3),
        grid=SPECTROGRAM,
        visible=95,
        title="Strips of time and frequency",
        note="Hides 45 whole columns and 3 whole rows.",
    ),
    Scheme(
        name="avsiam-audio",
        paper="AVSiam",
        section="multi-ratio masking of sounds",
        mask=Padded(mask=FilledStrips(ratio=MultiRatio(name="audio"))),
        grid=TokenGrid(axes=("freq", "time"), shape=(8, 64), patch=(16, 16)),
        title="Filled strips, several ratios in a batch",
        note=(
            "Strips first, then single tokens until the count is exact; equal parts of a batch get the ratios 0 to 0.8."
        ),
        shots=tuple(Shot(caption=f"sample {i + 1}", row=i, rows=5) for i in range(5)),
    ),
)
