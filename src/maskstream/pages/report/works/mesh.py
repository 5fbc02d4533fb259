"""A model's work on meshes: fields that it completes, or rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from torch import Tensor

from ....pipelines.modalities.mesh.batch import MeshBatch
from ....pipelines.modalities.mesh.data import MeshData
from ....shards.format.manifest import Manifest
from ....train.evaluate.held_out import HeldOut, Score, batches
from ....train.papers.meshmask.evaluate import held_out
from ....train.papers.meshmask.model import MeshNetwork
from ....train.papers.meshmask.rollout import Trajectories, next_model, next_step_errors, rollout, rollout_error
from ...figures.card import Card, Picture, Pictures, Section
from ...figures.figures import Figures
from ...figures.mesh import MeshFigures, field_picture, nodes_of
from ...figures.mesh_field import ShownField
from ...figures.pictures import data_uri
from ...figures.work import Work, compared

HIDDEN = (
    "A triangle has the mean colour of its corners, and is grey where a corner was hidden; those nodes and all of "
    "their edges were taken out of the graph that the encoder saw. In the last picture their fields are the model's. "
    "Errors are in deviations of the fields over the dataset; the loss is the mean square of them, so the mean "
    "field's is near 1. Interpolation gives every hidden node the mean of its neighbours."
)
ROLLOUTS = (
    "A rollout begins with the true first step and goes on from its own steps; only the fields at walls and inflow "
    "are given. A row is one step of the trajectory; all pictures of a trajectory have one scale of colours."
)
SHOWN_STEPS = (1 / 15, 1 / 3, 2 / 3, 1)
"""Steps of a rollout that are drawn, as parts of its length."""


def show(config: MeshData, model: MeshNetwork, data: str | Path, shown: int, figures: Figures[MeshBatch]) -> Work:
    """Completed fields of meshes from all of the split, or rollouts of the first ones of a model of the next step."""
    if config.mask is None:
        if not isinstance(figures, MeshFigures):
            raise ValueError(f"rollouts are drawn by MeshFigures, got {type(figures).__name__}")
        return rollouts(next_model(model), data, shown, figures)
    title = "Hidden nodes and the model's predictions"
    n = len(Manifest.load(data))
    chosen = set(np.unique(np.linspace(0, n - 1, shown).round().astype(int)).tolist())
    plain = replace(config, noise=None, views=1)
    cards: list[Card] = []
    for i, batch in enumerate(batches(plain, data, size=1, samples=n)):
        if i in chosen:
            cards += compared(figures, batch, model, title=title, words=HIDDEN, rows=1).cards
    section = Section(title=title, words=HIDDEN, cards=tuple(cards), layout="columns")
    return Work(found=held_out(config, model, data), sections=(section,))


def rollouts(model: MeshNetwork, data: str | Path, shown: int, figures: MeshFigures) -> Work:
    """Errors on all trajectories of the split, and rollouts of the first `shown` beside the truth."""
    trajectories = Trajectories.open(data, component=figures.reader.component)
    made = rollout(model, trajectories)
    error = rollout_error(made, trajectories)
    own, guessed = next_step_errors(model, trajectories)
    found = HeldOut(
        facts={
            "loss of one step on these trajectories": f"{own:.4f}",
            "loss of persistence": f"{guessed:.4f}",
            f"rollout error, mean of {len(error)} steps": f"{float(error.mean()):.3f} of a deviation",
            "rollout error, last step": f"{float(error[-1]):.3f} of a deviation",
        },
        learns="A network learns to predict the next step of a simulation from the current one with noise added.",
        loss="The mean squared error of one step, in deviations of a step's change",
        baseline="predicting no change",
        score=Score(name="squared error of one step's change", value=own, baselines={"no change": guessed}),
    )
    cards = islice(rollout_cards(figures, trajectories, {"Rollout": made}), shown)
    return Work(found=found, sections=(rollout_section(tuple(cards)),))


def rollout_section(cards: tuple[Card, ...]) -> Section:
    """Rollouts beside the truth."""
    return Section(title="Rollouts beside the truth", words=ROLLOUTS, cards=cards, layout="wide")


def rollout_cards(figures: MeshFigures, trajectories: Trajectories, made: dict[str, Tensor]) -> Iterator[Card]:
    """The truth and the rollouts float32 (T, N, D) of each trajectory at a few steps, drawn on one scale."""
    reader, last = figures.reader, len(trajectories.fields) - 1
    steps = sorted({max(round(part * last), 1) for part in SHOWN_STEPS})
    for i, key in enumerate(trajectories.start.key):
        nodes = nodes_of(trajectories.start, i)
        mesh, shown = reader.mesh(i), ShownField.of(reader, i)
        drawn = {name: values[:, nodes].numpy() for name, values in {"Truth": trajectories.fields, **made}.items()}
        scale = shown.scale(drawn["Truth"])
        rows = []
        for step in steps:
            title = f"After {step} step{'s'[: step > 1]}"
            items = tuple(
                Picture(
                    uri=data_uri(field_picture(mesh, shown, values[step], scale)), alt=f"{name}, {title}", caption=name
                )
                for name, values in drawn.items()
            )
            rows.append(Pictures(items=items, across=len(items), title=title))
        words = shown.name if scale is None else f"{shown.name}, {scale[0]:.2f} (dark) to {scale[1]:.2f} (bright)"
        yield Card(key=key, words=words, figures=tuple(rows))
