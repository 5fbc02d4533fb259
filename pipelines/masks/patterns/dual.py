"""Masks for a decoder that reconstructs only part of the hidden tokens: a second mask, or a random subset."""

from dataclasses import dataclass, field, replace

import numpy as np

from maskstream.pipelines.masks.core import (
    CLIP,
    PICTURE,
    Draw,
    Maps,
    Mask,
    Ratio,
    Rounding,
    Scheme,
    Shot,
    TokenGrid,
    as_schedule,
    hidden_count,
    square,
    visible_count,
)
from maskstream.pipelines.masks.schedules.random import TruncatedNormal
from maskstream.shards.arrays import Bools
from maskstream.shards.limits import PositiveProportion, Proportion

from .frames import Tube
from .random import Random


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningCell(Mask):
    """Mask 4 * ratio tokens in each cell of 2 x 2 tokens, advancing by one position per time step.

    Every time step has exactly ratio * h * w masked tokens, and any 4 consecutive steps mask every position exactly 4 *
    ratio times. The first position is drawn per view. The grid's axes are (t, h, w) with even h and w. Source: VideoMAE
    V2 (Wang et al. 2023), where it selects the tokens that the decoder skips (see `Dual`).

    Attributes:
        ratio: Masked fraction: 0.25, 0.5 or 0.75.
    """

    ratio: float = 0.5

    def validate(self) -> None:
        if self.ratio not in (0.25, 0.5, 0.75):
            raise ValueError(f"the ratio for a cell of 4 tokens must be 0.25, 0.5 or 0.75, got {self.ratio}")

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        t, h, w = grid.need("t", "h", "w", by="RunningCell")
        if h % 2 or w % 2:
            raise ValueError(f"RunningCell tiles the plane with 2 x 2 cells: h and w must be even, got h={h}, w={w}")
        queue = np.arange(4) < 4 * self.ratio
        turn = int(draw.rng.integers(4)) + 1 + np.arange(t)
        cells = queue[(turn[:, None] + np.arange(4)) % 4].reshape(t, 2, 2)
        return np.tile(cells, (1, h // 2, w // 2)).reshape(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dual(Mask):
    """Hide the tokens masked by `encoder`; reconstruct the tokens left unmasked by `decoder`.

    Targets that the encoder saw have weight 0. With the defaults on 8 x 14 x 14 tokens, the encoder sees 160 tokens and
    the decoder reconstructs 784 of 1568. Source: VideoMAE V2 (Wang et al. 2023), dual masking.

    Attributes:
        encoder: Mask of the encoder.
        decoder: Mask of the decoder; its visible tokens are the targets.
    """

    encoder: Mask = field(default_factory=Tube)
    decoder: Mask = field(default_factory=RunningCell)

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.encoder.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        return Maps(hidden=self.encoder.hide(grid, draw), target=~self.decoder.hide(grid, draw))


@dataclass(frozen=True, kw_only=True, slots=True)
class PartDecoded(Mask):
    """Reconstruct only a random subset of another mask's targets, round(share n) of n, at least 1.

    Targets are equally likely and drawn again for each view, so the expected loss is unchanged. With half of them, a
    decoder step costs less than half. Source: CrossMAE (Fu et al. 2024), partial reconstruction; its commands
    reconstruct a third of the hidden tokens, or all.

    Attributes:
        mask: Mask of the encoder and full set of targets.
        share: Fraction of targets to reconstruct.
    """

    mask: Mask = field(default_factory=lambda: Random(ratio=0.75))
    share: PositiveProportion = 0.5

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.mask.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        maps = self.mask.maps(grid, draw)
        pool = np.flatnonzero(maps.hidden if maps.target is None else maps.target)
        target = np.zeros(grid.size, dtype=np.bool_)
        target[draw.rng.permutation(pool)[: hidden_count(len(pool), self.share, "nearest_masked")]] = True
        return replace(maps, target=target)


@dataclass(frozen=True, kw_only=True, slots=True)
class DropAndMask(Mask):
    """Mask random tokens; a fixed fraction of all tokens is dropped, and other masked tokens enter as the mask token.

    In a batch, `masked` marks the dropped tokens, `visible` the tokens that enter, `mask_token` those that enter as the
    mask token, and `target` all masked tokens. The dropped tokens are masked even if the drawn ratio is lower. With the
    defaults on 16 x 16 tokens, 128 are dropped and 128 to 256 masked, equally many in every sample of a batch because
    the schedule's scope is the batch; with another scope, use `Padded`. Any grid. Source: MAGE (Li et al. 2023,
    variable masking ratio), which counts by `ceil_masked`.

    Attributes:
        ratio: Fraction of masked tokens, or a ratio schedule.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
        drop: Fraction of all tokens that is dropped.
    """

    ratio: Ratio = field(default_factory=lambda: TruncatedNormal(scope="batch"))
    rounding: Rounding = "ceil_masked"
    drop: Proportion = 0.5

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.maps(grid, draw).hidden

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        kept = visible_count(grid.size, self.drop, self.rounding)
        visible = min(as_schedule(self.ratio).visible(grid.size, draw, self.rounding), kept)
        order = draw.rng.permutation(grid.size)
        hidden = np.ones(grid.size, dtype=np.bool_)
        hidden[order[:kept]] = False
        target = np.ones(grid.size, dtype=np.bool_)
        target[order[:visible]] = False
        return Maps(hidden=hidden, target=target, mask_token=target & ~hidden)


SCHEMES = (
    Scheme(
        name="videomae2",
        paper="VideoMAE V2",
        section="sec. 3.2",
        mask=Dual(encoder=Tube(ratio=0.9), decoder=RunningCell(ratio=0.5)),
        grid=CLIP,
        visible=160,
        title="Dual",
        note=(
            "A tube for the encoder. The decoder skips running cells, which move by one position per time step: "
            "784 tokens are reconstructed, and those that the encoder sees have weight 0."
        ),
    ),
    Scheme(
        paper="CrossMAE",
        section="partial reconstruction",
        mask=PartDecoded(mask=Random(ratio=0.75), share=0.333),
        grid=PICTURE,
        visible=49,
        title="Part decoded",
        note=(
            "The encoder sees the same tokens as in MAE. Of the 147 hidden tokens a random 49 are reconstructed, "
            "a quarter of all tokens, as in the authors' published command."
        ),
    ),
    Scheme(
        name="mage",
        paper="MAGE",
        section="sec. 3.1",
        mask=DropAndMask(ratio=TruncatedNormal(scope="batch"), drop=0.5),
        grid=square(16),
        visible=128,
        title="Drop and mask",
        note=(
            "Half of the tokens are dropped. More become the mask token; their number is drawn from a truncated "
            "normal for the whole batch. 128 to 256 are reconstructed."
        ),
        shots=(Shot(caption="a batch"), Shot(caption="another epoch's batch", epoch=1)),
    ),
)
