"""Rollouts: a next-step model predicts a trajectory from its first step, with its own predictions as input.

Nodes whose fields are given (walls, inflow) have the true values at every step, as in MeshGraphNets (Pfaff et al.,
2021). Errors are measured at the other nodes, in standard deviations of each channel, so the mean field has error 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from maskstream.pipelines.modalities.mesh.batch import MeshBatch, MeshView, mesh_batch
from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.pipelines.modalities.mesh.read import MeshReader
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.manifest import SplitLocation
from maskstream.train.core.losses import squared

from .model import MeshNetwork

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectories:
    """Simulations of a split from their first step on. start: their joint graph at step 0. fields: their normalised
    fields at every step, float32 (T, N, D), where T is the length of the shortest.
    """

    start: MeshBatch
    fields: Tensor

    @classmethod
    def open(
        cls, data: SplitLocation, count: int | None = None, steps: int | None = None, component: str | None = None
    ) -> Trajectories:
        """Reads the first `count` simulations (default: all) of the split in the folder `data`, each with the first
        step and `steps` more; component: as in `reader_of`. ValueError if the split has no simulation of that length.
        """
        split, config = Split.open(data, "mesh", shuffle=False, device="cpu"), MeshData(component=component)
        reader, sampler = config.reader(split), config.sampler(split)
        indexes = range(len(split.manifest))[:count]
        longest = min((reader.n_steps(index) for index in indexes), default=0)
        if longest < 2:
            raise ValueError(
                f"{data} has no trajectory of two steps or more; a rollout needs simulations, not surfaces"
            )
        length = longest if steps is None else steps + 1
        if not 2 <= length <= longest:
            raise ValueError(
                f"steps={steps}: the trajectories of {data} have {longest} steps; a rollout can have 1 to {longest - 1}"
            )
        requests = [sampler.request(Wanted(index=index, epoch=0)) for index in indexes]
        draft = sampler.allocate(requests)
        for row, request in enumerate(requests):
            sampler.fill(request, draft, row, Stats())
        fields = [reader.statistics.normalised(reader.fields(index, 0, length)) for index in indexes]
        views = [_at_start(one.plan.made[0], values[0]) for one, values in zip(requests, fields, strict=True)]
        keys, change = [one.key for one in requests], reader.statistics.relative_change
        start = mesh_batch(views, label=draft.labels.tolist(), key=keys, change=change)
        return cls(start=start, fields=torch.from_numpy(np.concatenate(fields, axis=1)))


def _at_start(view: MeshView, fields: Float32s) -> MeshView:
    """The view at step 0, with `fields` (N, D) as its state."""
    return MeshView(
        positions=view.positions,
        kinds=view.kinds,
        graph=view.graph,
        state=fields,
        next_state=None,
        counts=view.counts,
        mask=None,
        step=0,
    )


def reader_of(data: SplitLocation, component: str | None = None) -> MeshReader:
    """A reader of the meshes of a split.

    component: the mesh that is read if a sample has several; by default the only one.
    """
    return MeshData(component=component).reader(Split.open(data, "mesh", shuffle=False, device="cpu"))


def next_model(model: nn.Module) -> MeshNetwork:
    """Returns the model if it predicts the next step, else raises ValueError."""
    if not isinstance(model, MeshNetwork) or model.config.task != "next":
        raise ValueError(
            f"a rollout needs a mesh model with task='next', got {type(model).__name__}; "
            "train one with a recipe such as meshmask-tiny-next"
        )
    return model


@torch.inference_mode()
def rollout(model: MeshNetwork, trajectories: Trajectories) -> Tensor:
    """The fields that the model predicts from step 0 on, float32 (T, N, D), normalised; step 0 is the true one."""
    start, truth = trajectories.start, trajectories.fields
    free = (start.counts > 0)[:, None]
    made = [truth[0]]
    for true in truth[1:]:
        change = model.predict_change(made[-1], start.kinds, start.edges, start.edge_features) * start.change
        made.append(torch.where(free, made[-1] + change, true))
    return torch.stack(made)


def rollout_error(made: Tensor, trajectories: Trajectories) -> Float32s:
    """The root mean square error of each step after the first over free nodes and channels, float32 (T - 1,)."""
    square = (made - trajectories.fields)[1:].square().mean(dim=2)
    free = trajectories.start.counts > 0
    errors: Float32s = square[:, free].mean(dim=1).sqrt().numpy()
    return errors


def persist(trajectories: Trajectories) -> Tensor:
    """The rollout of a baseline that predicts no change, float32 (T, N, D)."""
    free = (trajectories.start.counts > 0)[:, None]
    return torch.where(free, trajectories.fields[0], trajectories.fields)


@torch.inference_mode()
def measure_steps(model: MeshNetwork, trajectories: Trajectories, every: int = 10) -> tuple[float, float]:
    """The losses of the model and of persistence over one step, from every `every`-th true step."""
    start, fields = trajectories.start, trajectories.fields
    losses = []
    for step in range(0, len(fields) - 1, every):
        change = (fields[step + 1] - fields[step]) / start.change
        made = model.predict_change(fields[step], start.kinds, start.edges, start.edge_features)
        losses.append(tuple(squared(guess, change, start.counts).mean() for guess in (made, torch.zeros_like(change))))
    own, unchanged = torch.tensor(losses).mean(dim=0).tolist()
    return own, unchanged
