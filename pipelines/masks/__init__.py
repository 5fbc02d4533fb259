"""Masks: which tokens of a clip the encoder does not see, and which the decoder reconstructs.

A mask is a small frozen config, built once and used for every batch:

    grid = TokenGrid.video(16, 224, 224)                       # 8 x 14 x 14 tokens of 2 x 16 x 16
    mask = MotionGuided(ratio=0.9)
    batch = mask.draw(grid, draws)                             # a Draw per sample: its generator, and what it shows

`batch` is a `MaskBatch`: masked bool (B, N), True = hidden; visible, target int64 (B, count), sorted; weight float32.
A sample's mask depends only on its own `Draw` (draw.py), so it is the same in any batch.

Two questions, two parts. How much is a law's: a number, or an object that draws one for a view, a sample, a frame or a
batch, or follows the progress of the run; counts are exact (see ratio.py for the roundings). Where is a pattern's:

    pattern        file              visible of 8 x 14 x 14 at the defaults    source
    Random         random.py         156                                       MAE-ST
    Tube           tube.py           160, 20 of every slice                    VideoMAE
    MotionGuided   motion_guided.py  152, 19 of every slice; needs flow        MGMAE
    RunningCell    running_cell.py   784, 98 of every slice                    VideoMAE V2, the decoder's part
    Dual           dual.py           160; the decoder reconstructs 784         VideoMAE V2

A new pattern is a subclass of `Mask` with one method, `hide`, which says for one view of a sample which tokens are
hidden, and a line in `MASKS`, the names that the command line knows.
"""

from __future__ import annotations

from collections.abc import Callable

from .base import Mask, mask_batch
from .draw import Cues, Draw, Scope
from .dual import Dual
from .grid import TokenGrid
from .motion_guided import MotionGuided
from .padded import Padded
from .random import Random
from .ratio import Fixed, Law, Ratio, Rounding, visible_count
from .running_cell import RunningCell
from .tube import Tube

MASKS: dict[str, Callable[[], Mask]] = {
    "motion-guided": MotionGuided,
    "random": Random,
    "tube": Tube,
    "videomae2": Dual,
}
"""Masks by name, each with its paper's defaults."""

__all__ = [
    "MASKS",
    "Cues",
    "Draw",
    "Dual",
    "Fixed",
    "Law",
    "Mask",
    "MotionGuided",
    "Padded",
    "Random",
    "Ratio",
    "Rounding",
    "RunningCell",
    "Scope",
    "TokenGrid",
    "Tube",
    "mask_batch",
    "visible_count",
]
