"""Curriculum: an easy mask at first, a hard one more and more often."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core import SPECTROGRAM, Draw, Maps, Mask, Scheme, Shot, TokenGrid
from maskstream.pipelines.masks.laws.progress import ProgressLaw, SquareRoot

from .padded import Padded
from .target_blocks import TargetBlocks


@dataclass(frozen=True, kw_only=True, slots=True)
class Curriculum(Mask):
    """Each batch is masked by `hard` with the chance `share`, which follows the run's progress, otherwise by `easy`.

    All samples of a batch, on all ranks, have the same of both. Use `Padded` where they hide different numbers of
    tokens. A-JEPA (Fei et al., 2023) goes from target blocks of a spectrogram to smaller ones, of which the context has
    neither a time nor a frequency.
    """

    easy: Mask = field(default_factory=lambda: TargetBlocks(stretched=True))
    hard: Mask = field(default_factory=lambda: TargetBlocks(blocks=3, scale=(0.05, 0.075), strips=True, stretched=True))
    share: ProgressLaw = field(default_factory=SquareRoot)

    def __post_init__(self) -> None:
        self.share.check_ratios()

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
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
            "At first four blocks of a spectrogram are predicted, as in I-JEPA. More and more often they are three "
            "smaller ones, and the encoder sees neither the times nor the frequencies of any of them. Numbers are "
            "those of the paper's summaries; whole rows and columns are how the code of others reads it."
        ),
        shots=(Shot(caption="the start of the run"), Shot(caption="its end", progress=1.0)),
    ),
)
