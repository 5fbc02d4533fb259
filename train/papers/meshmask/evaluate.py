"""Evaluates the reconstruction of the fields at hidden nodes of meshes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.train.core.losses import squared
from maskstream.train.evaluate.evaluation import Compared, Evaluation, Example, Score, TrainingLoss
from maskstream.train.evaluate.held_out import read_batches

from .model import MeshNetwork, MeshNetworkConfig
from .rollout import Trajectories, measure_steps, next_model, persist, rollout, rollout_error

MEASURED = 512
"""The largest number of samples that are measured."""
VIEWS = 4
_SWEEPS = 200
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollouts(Example):
    """The first `shown` trajectories, and what models make of all of them by name, float32 (T, N, D)."""

    trajectories: Trajectories
    made: Mapping[str, Tensor]
    shown: int


def evaluate(model: MeshNetwork, config: MeshData, data: SplitLocation, shown: int) -> Evaluation:
    """The loss at hidden nodes and completed meshes from all of the split, or of a model of the next step rollouts."""
    return (
        _of_rollouts(next_model(model), data, shown) if config.mask is None else _of_fields(model, config, data, shown)
    )


def _of_fields(model: MeshNetwork, config: MeshData, data: SplitLocation, shown: int) -> Evaluation:
    losses, count = measure_masked(config, model, data)
    n = len(Manifest.load(data))
    chosen = set(np.unique(np.linspace(0, n - 1, shown).round().astype(int)).tolist())
    plain = replace(config, noise=None, views=1)
    examples = []
    for i, batch in enumerate(read_batches(plain, data, size=1, samples=n)):
        if i in chosen:
            with torch.inference_mode():
                made = model.reconstructed(batch)
            title = "Hidden nodes and the model's predictions"
            examples.append(Compared(title=title, reading=HIDDEN, batch=batch, made=made, rows=(0,)))
    return Evaluation(
        scores=(
            Score(
                name="squared error of fields at hidden nodes",
                value=losses["model"],
                of="meshes",
                count=count,
                baselines={"the mean field": losses["mean field"], "harmonic interpolation": losses["spread"]},
            ),
        ),
        examples=tuple(examples),
        loss=TrainingLoss(
            name="The mean squared error of the fields at hidden nodes, in standard deviations of the fields",
            baseline="predicting the mean field",
        ),
    )


def _of_rollouts(model: MeshNetwork, data: SplitLocation, shown: int) -> Evaluation:
    trajectories = Trajectories.open(data)
    made = rollout(model, trajectories)
    error, still = (rollout_error(one, trajectories) for one in (made, persist(trajectories)))
    own, guessed = measure_steps(model, trajectories)
    count = len(trajectories.start)
    return Evaluation(
        scores=(
            Score(
                name="squared error of one step's change",
                value=own,
                of="trajectories",
                count=count,
                baselines={"no change": guessed},
            ),
            *(
                Score(
                    name=f"error of a rollout, {name}",
                    value=float(own),
                    unit="deviations of the fields",
                    of="trajectories",
                    count=count,
                    baselines={"no change": float(none)},
                )
                for name, own, none in (
                    (f"mean of {len(error)} steps", error.mean(), still.mean()),
                    ("last step", error[-1], still[-1]),
                )
            ),
        ),
        examples=(
            Rollouts(
                title="Rollouts beside the truth",
                reading=ROLLOUTS,
                trajectories=trajectories,
                made={"Rollout": made},
                shown=shown,
            ),
        ),
        loss=TrainingLoss(
            name="The mean squared error of one step, in deviations of a step's change",
            baseline="predicting no change",
        ),
        learns="A network learns to predict the next step of a simulation from the current one with noise added.",
    )


@torch.inference_mode()
def measure_masked(config: MeshData, model: MeshNetwork, data: SplitLocation) -> tuple[dict[str, float], int]:
    """The losses of the model, of the mean field and of `spread_fields`, on VIEWS steps of each of up to MEASURED
    meshes, and how many meshes there are.
    """
    sums: dict[str, float] = {"model": 0.0, "mean field": 0.0, "spread": 0.0}
    total, meshes = 0.0, 0
    shown = replace(config, noise=None, views=VIEWS, fields=())
    for batch in read_batches(shown, data, size=1, samples=MEASURED):
        mask = batch.mask
        if mask is None:
            raise ValueError("the batch has no masks; give the loader mask=")
        target, weight = mask.target[0], mask.weight[0]
        made = {
            "model": model.reconstructed(batch).state[target],
            "mean field": torch.zeros_like(batch.state[target]),
            "spread": spread_fields(batch.state, mask.masked[0], batch.edges)[target],
        }
        for name, values in made.items():
            sums[name] += float(squared(values, batch.state[target], weight).total)
        total += float(weight.sum())
        meshes += 1
    return {name: value / max(total, 1e-12) for name, value in sums.items()}, meshes


def spread_fields(fields: Tensor, masked: Tensor, edges: Tensor) -> Tensor:
    """Fields (N, D) in which each hidden node (masked bool (N,)) has the mean of its neighbours.

    This is harmonic interpolation, by 200 Jacobi iterations: the best prediction from the mesh without any physics.
    """
    degree = torch.zeros(len(fields)).index_add(0, edges[1], torch.ones(edges.shape[1])).clamp(min=1)[:, None]
    values = torch.where(masked[:, None], 0, fields)
    for _ in range(_SWEEPS):
        means = torch.zeros_like(values).index_add(0, edges[1], values[edges[0]]) / degree
        values = torch.where(masked[:, None], means, fields)
    return values


EVALUATIONS = {MeshNetworkConfig: evaluate}
