"""A report's sections on spiking networks: what they say of images, and the spikes by which they say it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ....pipelines.modalities.image.batch import ImageBatch
from ....pipelines.modalities.image.data import ImageData
from ....shards.format.dataset import read_dataset_json
from ....shards.format.manifest import Manifest
from ....train.evaluate.held_out import batches
from ....train.papers.spiking_mst.evaluate import ADDITION_PJ, MULTIPLICATION_PJ, STEPS, held_out, plain
from ....train.papers.spiking_mst.model import SpikingTransformer
from ...figures.card import Card, Fact, Facts, Picture, Pictures, Section, label_names, label_words
from ...figures.figures import Figures
from ...figures.pictures import data_uri
from ...figures.work import Work

SHOWN_KINDS = ("embedded", "q", "k", "scores", "hidden")
"""The kinds of neurons whose spikes are drawn."""
NEURONS, STEP_PX, NEURON_PX = 48, 10, 3
READING = (
    "A held-out picture, and spikes of the simulation: a row is a neuron, a column a time step, a mark a spike. There "
    "are {neurons} neurons of each kind, spread evenly over the first block and the picture. Energy is that of the "
    "operations alone: {add} pJ for an addition, {multiply} pJ for a multiplication with an addition (45 nm, 32-bit "
    "floats)."
)


def show(
    config: ImageData, model: SpikingTransformer, data: str | Path, shown: int, figures: Figures[ImageBatch]
) -> Work:
    """The classes of shuffled samples, and their spikes."""
    size = min(shown, len(Manifest.load(data)))
    batch = next(batches(plain(config), data, size=size, samples=size, shuffle=True))
    names = label_names(read_dataset_json(data))
    words = READING.format(neurons=NEURONS, add=ADDITION_PJ, multiply=MULTIPLICATION_PJ)
    rasters, said, energy = _simulated(model, batch)
    cards = tuple(
        replace(
            _with_rasters(figures.sample(batch, i), {kind: marks[i] for kind, marks in rasters.items()}),
            note=f"After {STEPS} time steps the network says {label_words(said[i], names)}.",
            facts=(Facts(items=(Fact(name="Energy of its spikes", value=f"{energy[i]:,.0f} nJ"),)),),
            missing=(),
        )
        for i in range(size)
    )
    section = Section(title="Spikes", words=words, cards=cards, layout="columns")
    return Work(found=held_out(config, model, data), sections=(section,))


@torch.inference_mode()
def _simulated(
    model: SpikingTransformer, batch: ImageBatch
) -> tuple[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]], list[int], list[float]]:
    """The spikes (B, NEURONS, STEPS) of each kind, the class of each picture, and the energy of its spikes in nJ."""
    rasters = {}
    for kind in SHOWN_KINDS:
        found, run = model.simulated(batch, STEPS, keeps=kind)
        per_step = len(run.kept) // STEPS
        spikes = torch.stack(run.kept[::per_step], dim=2)
        chosen = torch.linspace(0, spikes.shape[1] - 1, NEURONS).long()
        rasters[kind] = spikes[:, chosen].numpy()
    energy = []
    for i in range(len(batch)):
        one = replace(batch, image=batch.image[i : i + 1], label=batch.label[i : i + 1], key=batch.key[i : i + 1])
        _, run = model.simulated(one, STEPS)
        energy.append((run.additions[-1] * ADDITION_PJ + model.embedding_work(1) * MULTIPLICATION_PJ) / 1000)
    return rasters, found[-1].argmax(dim=1).tolist(), energy


def _with_rasters(card: Card, rasters: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]) -> Card:
    """The card with a picture of the spikes of each kind."""
    items = tuple(
        Picture(
            uri=data_uri(_raster(marks), lossless=True), alt=f"spikes of {kind}", caption=f"{kind}: {marks.mean():.1%}"
        )
        for kind, marks in rasters.items()
    )
    words = "Time runs to the right; under each, the share of steps with a spike."
    return replace(card, figures=(*card.figures, Pictures(items=items, across=3, title="Spikes", words=words)))


def _raster(marks: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Spikes (neurons, steps) as pixels, dark on light."""
    large = np.kron(marks, np.ones((NEURON_PX, STEP_PX), np.bool_)).astype(np.bool_)
    return np.where(large[..., None], np.array([29, 78, 216]), np.array([238, 240, 245])).astype(np.uint8)
