"""Drop and mask: a fixed number of tokens leaves the sequence, a variable number of others becomes the mask token."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Maps, Mask
from maskstream.pipelines.masks.core.draw import Draw, TokenGrid
from maskstream.pipelines.masks.core.ratio import Ratio, Rounding, as_law, check_ratio, check_rounding, visible_count
from maskstream.pipelines.masks.core.scheme import Scheme, Shot, square
from maskstream.pipelines.masks.laws.random import TruncatedNormal


@dataclass(frozen=True, kw_only=True, slots=True)
class DropAndMask(Mask):
    """Random tokens are masked. A share `drop` of all tokens is dropped; the other masked tokens enter the encoder as
    the mask token.

    In a batch `masked` are the dropped tokens, `visible` the tokens that enter, `mask_token` those that enter as the
    mask token, and `target` all masked tokens. At least the dropped tokens are masked, whatever the law says. At the
    defaults on 16 x 16 tokens 128 are dropped and 128 to 256 masked, as many in every sample of a
    batch, since the law's scope is the batch; with another scope see `Padded`. Any grid. Source: MAGE (Li et al. 2023,
    variable masking ratio), which counts by `ceil_masked`.
    """

    ratio: Ratio = field(default_factory=lambda: TruncatedNormal(scope="batch"))
    rounding: Rounding = "ceil_masked"
    drop: float = 0.5

    def __post_init__(self) -> None:
        as_law(self.ratio)
        check_rounding(self.rounding)
        check_ratio(self.drop, "the share of dropped tokens")

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        return self.maps(grid, draw).hidden

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        kept = visible_count(grid.size, self.drop, self.rounding)
        visible = min(as_law(self.ratio).visible(grid.size, draw, self.rounding), kept)
        order = draw.rng.permutation(grid.size)
        hidden = np.ones(grid.size, dtype=np.bool_)
        hidden[order[:kept]] = False
        target = np.ones(grid.size, dtype=np.bool_)
        target[order[:visible]] = False
        return Maps(hidden=hidden, target=target, mask_token=target & ~hidden)


SCHEMES = (
    Scheme(
        name="mage",
        paper="MAGE",
        section="sec. 3.1",
        mask=DropAndMask(ratio=TruncatedNormal(scope="batch"), drop=0.5),
        grid=square(16),
        visible=128,
        title="Drop and mask",
        note=(
            "Half of the tokens leave the sequence, and others become the mask token: as many as a truncated normal "
            "says, one number for the whole batch. 128 to 256 are reconstructed."
        ),
        shots=(Shot(caption="a batch"), Shot(caption="another epoch's batch", epoch=1)),
    ),
)
