"""Evaluates the reconstruction of the fields at hidden nodes of meshes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ....pipelines.modalities.mesh.data import MeshData
from ...core.losses import squared
from ...evaluate.held_out import HeldOut, Score, batches, margin
from .model import MeshNetwork

MEASURED = 512
"""The largest number of samples that are measured."""
VIEWS = 4
_SWEEPS = 200


def held_out(config: MeshData, model: MeshNetwork, data: str | Path) -> HeldOut:
    """The loss on the split, compared with those of two baselines."""
    losses = masked_losses(config, model, data)
    own, trivial = losses["model"], min(losses["mean field"], losses["spread"])
    return HeldOut(
        facts={
            "loss on these meshes": f"{own:.4f}, {margin(own, trivial, 'the better of the next two')}",
            "loss of the mean field": f"{losses['mean field']:.4f}",
            "loss of interpolating the visible nodes": f"{losses['spread']:.4f}",
            "mask": repr(config.mask),
        },
        loss="The mean squared error of the fields at hidden nodes, in standard deviations of the fields",
        baseline="predicting the mean field",
        score=Score(
            name="squared error of fields at hidden nodes",
            value=own,
            baselines={"the mean field": losses["mean field"], "harmonic interpolation": losses["spread"]},
        ),
    )


@torch.inference_mode()
def masked_losses(config: MeshData, model: MeshNetwork, data: str | Path) -> dict[str, float]:
    """The losses of the model, of the mean field and of `spread`, on VIEWS steps of each of up to MEASURED meshes."""
    sums: dict[str, float] = {"model": 0.0, "mean field": 0.0, "spread": 0.0}
    total = 0.0
    shown = replace(config, noise=None, views=VIEWS, fields=())
    for batch in batches(shown, data, size=1, samples=MEASURED):
        mask = batch.mask
        if mask is None:
            raise ValueError("the batch has no masks; give the loader mask=")
        target, weight = mask.target[0], mask.weight[0]
        made = {
            "model": model.reconstructed(batch).state[target],
            "mean field": torch.zeros_like(batch.state[target]),
            "spread": spread(batch.state, mask.masked[0], batch.edges)[target],
        }
        for name, values in made.items():
            sums[name] += float(squared(values, batch.state[target], weight).total)
        total += float(weight.sum())
    return {name: value / max(total, 1e-12) for name, value in sums.items()}


def spread(fields: Tensor, masked: Tensor, edges: Tensor) -> Tensor:
    """Fields (N, D) in which each hidden node (masked bool (N,)) has the mean of its neighbours.

    This is harmonic interpolation, by 200 Jacobi iterations: the best prediction from the mesh without any physics.
    """
    degree = torch.zeros(len(fields)).index_add(0, edges[1], torch.ones(edges.shape[1])).clamp(min=1)[:, None]
    values = torch.where(masked[:, None], 0, fields)
    for _ in range(_SWEEPS):
        means = torch.zeros_like(values).index_add(0, edges[1], values[edges[0]]) / degree
        values = torch.where(masked[:, None], means, fields)
    return values
