"""A report's sections on clips with sound: reconstructions of both, and retrieval."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from ....pipelines.modalities.audiovisual.batch import AudioVisualBatch
from ....pipelines.modalities.audiovisual.data import AudioVisualData
from ....train.evaluate.evaluation import NORMALISED
from ....train.evaluate.held_out import Score
from ....train.evaluate.pair_errors import pairs_of
from ....train.evaluate.pair_match import Retrieval
from ....train.evaluate.pairs import held_out
from ....train.nn.pair_model import PairModel
from ....train.papers.diffmavil.denoising import denoised
from ....train.papers.diffmavil.model import AudioVisualDiffusion
from ...figures.card import Card, Picture, Pictures, Section
from ...figures.figures import Figures
from ...figures.pictures import data_uri
from ...figures.work import Work

SIDE_PX = 480
MATCHING = (
    "A row is a clip, a column is a sound, in one order; bright is near. Pairs lie on the diagonal, from the top "
    "left to the bottom right. Neighbours overlap in time and are cut from the same videos, so bright squares around "
    "the diagonal are clips that look and sound alike. Clips and sounds are whole here, nothing is hidden."
)
READING = (
    "The encoder saw only the bright tokens of the middle rows, of the pictures and of the sound. In the bottom rows "
    "the others are the model's predictions. In spectrograms time runs to the right, frequency rises upwards, bright "
    "is loud. "
)


def show_denoised(
    config: AudioVisualData,
    model: AudioVisualDiffusion,
    data: str | Path,
    shown: int,
    figures: Figures[AudioVisualBatch],
) -> Work:
    """What `show` has, of a model that is judged by the patches that it denoises."""
    found = denoised(config, model, data)
    return show(config, model, data, shown, figures, (found.facts(), found.score()))


def show(
    config: AudioVisualData,
    model: PairModel,
    data: str | Path,
    shown: int,
    figures: Figures[AudioVisualBatch],
    scored: tuple[dict[str, str], Score] | None = None,
) -> Work:
    """The retrievals, and `shown` clips with their sounds.

    scored: the facts and the score of a model that is judged by something else.
    """
    told = held_out(config, model, data, scored)
    batch = next(iter(pairs_of(config, data, shown, samples=shown, shuffle=True)))
    with torch.inference_mode():
        rows, made = model.reconstruction_rows(batch), model.reconstructed(batch)
    cards = tuple(figures.compared(rows, made, i) for i in range(min(shown, len(rows))))
    matrices = tuple(_matrix(name, one) for name, one in told.matched.items())
    return Work(
        found=told.found,
        sections=(
            Section(title="Which clip finds which sound", words=MATCHING, cards=matrices, layout="columns"),
            Section(title="Reconstructions", words=READING + NORMALISED, cards=cards, layout="columns"),
        ),
    )


def _matrix(name: str, found: Retrieval) -> Card:
    """The similarities: dark is far, bright is near, pairs lie on the diagonal."""
    values = found.similarity.numpy()
    low, high = float(values.min()), float(values.max())
    grey = (255 * (values - low) / max(high - low, 1e-6)).astype(np.uint8)
    image = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
    scale = max(1, SIDE_PX // found.pairs)
    uri = data_uri(np.ascontiguousarray(image.repeat(scale, axis=0).repeat(scale, axis=1)), lossless=True)
    picture = Picture(uri=uri, alt=f"{name}: similarity of {found.pairs} clips and sounds")
    return Card(key=name, words=found.words(), figures=(Pictures(items=(picture,), across=1),))
