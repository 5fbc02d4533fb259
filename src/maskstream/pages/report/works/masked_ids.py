"""What MAGE generates, for `maskstream generate`."""

from __future__ import annotations

from pathlib import Path

from ....pipelines.modalities.image.data import ImageData
from ....train.evaluate.pictures import held_out_pictures
from ....train.papers.mage.generate import TEMPERATURE, generated_examples
from ....train.papers.mage.model import GenerativeEncoder
from ...figures.card import Section
from ...figures.image import ImageFigures
from ...figures.work import Drawn
from ..evaluated import section_of


def generated(config: ImageData, model: GenerativeEncoder, data: str | Path, drawn: Drawn) -> Section:
    """Generated pictures beside real ones of the split."""
    examples = generated_examples(
        model,
        held_out_pictures(config, data)[0].image[: drawn.count],
        count=drawn.count,
        rounds=drawn.rounds,
        temperature=TEMPERATURE if drawn.temperature is None else drawn.temperature,
        seed=drawn.seed,
    )
    return section_of(examples, ImageFigures(grid=config.grids["image"], label_names=()))
