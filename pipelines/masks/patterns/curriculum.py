"""Curriculum: an easy mask at first, a hard one with increasing probability."""

from dataclasses import dataclass, field
from typing import Annotated

from maskstream.pipelines.masks.core import SPECTROGRAM, Draw, Maps, Mask, Scheme, Shot, TokenGrid
from maskstream.pipelines.masks.core.ratio import OF_RATIOS
from maskstream.pipelines.masks.schedules.progress import ProgressSchedule, SquareRoot
from maskstream.shards.arrays import Bools

from .padded import Padded
from .target_blocks import TargetBlocks


@dataclass(frozen=True, kw_only=True, slots=True)
class Curriculum(Mask):
    """Mask each batch with `hard` at probability `share`, which follows the run's progress, and otherwise with `easy`.

    All samples of a batch, on all ranks, use the same mask. If the two hide different numbers of tokens, use `Padded`.
    A-JEPA (Fei et al., 2023) moves from target blocks of a spectrogram to smaller ones whose context excludes their
    times and frequencies.

    Attributes:
        easy: Mask at the start of the run.
        hard: Mask whose probability rises.
        share: Probability of `hard` as a schedule over the run.
    """

    easy: Mask = field(default_factory=lambda: TargetBlocks(stretched=True))
    hard: Mask = field(default_factory=lambda: TargetBlocks(blocks=3, scale=(0.05, 0.075), strips=True, stretched=True))
    share: Annotated[ProgressSchedule, OF_RATIOS] = field(default_factory=SquareRoot)

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.maps(grid, draw).hidden

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        chance = draw.generator("batch", "curriculum").random()
        mask = self.hard if chance < self.share.at(draw.place.progress) else self.easy
        return mask.maps(grid, draw)


SCHEMES = (
    Scheme(
        name="a-jepa",
        paper="A-JEPA",
        section="curriculum masking",
        mask=Padded(mask=Curriculum()),
        grid=SPECTROGRAM,
        title="From blocks to strips",
        note=(
            "At first, four blocks are predicted, as in I-JEPA; over the run, three smaller ones become more "
            "frequent, and the encoder sees none of their times and frequencies. Numbers are from the paper's "
            "summaries; whole rows and columns follow third-party code."
        ),
        shots=(Shot(caption="the start of the run"), Shot(caption="its end", progress=1.0)),
    ),
)
