"""A report's pictures of meshes: fields, the nodes that were hidden, and what the model makes of them; or rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ....pipelines.modalities.mesh.batch import MeshBatch
from ....pipelines.modalities.mesh.data import MeshData
from ....pipelines.modalities.mesh.loader import mesh_loader, mesh_sampler
from ....pipelines.modalities.mesh.sample import MeshSampler, StoredMesh
from ....pipelines.modalities.split import Split
from ....pipelines.stream.produce import batch_of
from ....pipelines.stream.sampler import Wanted
from ....train.core.losses import squared
from ....train.evaluate.rollout import Trajectories, next_model, next_step_errors, rollout, rollout_error, sampler_of
from ....train.models.mesh_network import MeshNetwork
from ...figures.mesh_field import ShownField
from ...figures.mesh_picture import mesh_picture
from ...figures.pictures import Bool, UInt8, data_uri
from .pictures import Pictures

MEASURED = 512
"""As many samples at most go into the held-out loss."""
VIEWS = 4
SHOWN_STEPS = (1 / 15, 1 / 3, 2 / 3, 1)
"""Steps of a rollout that are drawn, as parts of its length."""
_SWEEPS = 200

Float32s = npt.NDArray[np.float32]
Scale = tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshFigure:
    """One mesh: its key, what is said of it, and rows of pictures side by side: a title, and `data:` addresses, each
    with what it shows.
    """

    key: str
    words: str
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def report_pictures(config: MeshData, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """The held-out loss beside those of trivial predictors, and `shown` samples, the same each time."""
    if config.mask is None:
        return rollout_pictures(next_model(model), data, shown)
    if not isinstance(model, MeshNetwork):
        raise ValueError(f"hidden fields are completed by a MeshNetwork, got {type(model).__name__}")
    return masked_pictures(config, model, data, shown)


def masked_pictures(config: MeshData, model: MeshNetwork, data: str | Path, shown: int) -> Pictures:
    """Fields, what the encoder saw of them, and what the model completes."""
    losses = masked_losses(config, model, data)
    sampler = mesh_sampler(Split.open(data, "mesh", shuffle=False, device="cpu"), mask=config.mask)
    chosen = np.unique(np.linspace(0, len(sampler.manifest) - 1, shown).round().astype(int)).tolist()
    context = {
        "kind": "masked",
        "meshes": [_masked_figure(config, model, sampler, index) for index in chosen],
    }
    facts = {
        "loss on these meshes": f"{losses['model']:.4f}",
        "loss of the mean field": f"{losses['mean field']:.4f}",
        "loss of spreading what is visible": f"{losses['spread']:.4f}",
        "mask": repr(config.mask),
    }
    return Pictures(
        template="mesh.html.j2",
        context=context,
        facts=facts,
        loss="The mean squared error over the fields of hidden nodes, in deviations of the fields",
        guess="the mean field",
    )


@torch.inference_mode()
def masked_losses(config: MeshData, model: MeshNetwork, data: str | Path) -> dict[str, float]:
    """The loss on `VIEWS` steps of every mesh (up to MEASURED meshes) of the model, of the mean field, and of values
    that spread from the visible nodes along the edges until they are the means of their neighbours.
    """
    loader = mesh_loader(
        data, mask=config.mask, views=VIEWS, batch_size=1, shuffle=False, device="cpu", rank=0, world_size=1
    )
    sums: dict[str, float] = {"model": 0.0, "mean field": 0.0, "spread": 0.0}
    total = 0.0
    for _, batch in zip(range(MEASURED), loader, strict=False):
        mask = batch.mask
        if mask is None:
            raise ValueError("the loader gives no masks; build it with mask=")
        target, weight = mask.target[0], mask.weight[0]
        made = {
            "model": completed(model, batch)[target],
            "mean field": torch.zeros_like(batch.state[target]),
            "spread": spread(batch.state, mask.masked[0], batch.edges)[target],
        }
        for name, values in made.items():
            sums[name] += float(squared(values, batch.state[target], weight).total)
        total += float(weight.sum())
    return {name: value / max(total, 1e-12) for name, value in sums.items()}


def completed(model: MeshNetwork, batch: MeshBatch) -> Tensor:
    """The batch's fields (N, D) with the model's in place of the hidden ones."""
    return model.reconstructed(batch).state


def spread(fields: Tensor, masked: Tensor, edges: Tensor) -> Tensor:
    """Fields (N, D) whose hidden nodes (masked bool (N,)) have, as nearly as 200 sweeps bring it, the mean of their
    neighbours; the best guess of one who knows the mesh and no physics.
    """
    degree = torch.zeros(len(fields)).index_add(0, edges[1], torch.ones(edges.shape[1])).clamp(min=1)[:, None]
    values = torch.where(masked[:, None], 0, fields)
    for _ in range(_SWEEPS):
        means = torch.zeros_like(values).index_add(0, edges[1], values[edges[0]]) / degree
        values = torch.where(masked[:, None], means, fields)
    return values


def _masked_figure(config: MeshData, model: MeshNetwork, sampler: MeshSampler, index: int) -> MeshFigure:
    batch = batch_of(sampler, [Wanted(index=index, epoch=0)])
    mask = batch.mask
    if mask is None:
        raise ValueError("the loader gives no masks; build it with mask=")
    with torch.inference_mode():
        made = completed(model, batch)
    mesh, shown = sampler.mesh(index), ShownField.of(sampler, index)
    truth, hidden = batch.state.numpy(), mask.masked[0].numpy()
    scale = shown.scale(truth)
    pictures = {
        "Original": picture_of(mesh, shown, truth, scale),
        "The encoder saw": picture_of(mesh, shown, truth, scale, hidden),
        "Reconstruction": picture_of(mesh, shown, made.numpy(), scale),
    }
    free = (batch.counts > 0) & mask.masked[0]
    error = float((made - batch.state)[free].square().mean().sqrt()) if free.any() else 0.0
    words = (
        f"{shown.name}, step {int(batch.step[0])}; error {error:.3f} of a deviation at {int(free.sum()):,} free nodes"
    )
    return MeshFigure(
        key=batch.key[0],
        words=words,
        rows=tuple(("", ((data_uri(picture), name),)) for name, picture in pictures.items()),
    )


def rollout_pictures(model: MeshNetwork, data: str | Path, shown: int) -> Pictures:
    """Rollouts of the first `shown` trajectories beside the truth."""
    trajectories = Trajectories.open(data, shown)
    made = rollout(model, trajectories)
    error = rollout_error(made, trajectories)
    own, guessed = next_step_errors(model, trajectories)
    sampler = sampler_of(data)
    facts = {
        "loss of one step on these trajectories": f"{own:.4f}",
        "loss of persistence": f"{guessed:.4f}",
        f"rollout error, mean of {len(error)} steps": f"{float(error.mean()):.3f} of a deviation",
        "rollout error, last step": f"{float(error[-1]):.3f} of a deviation",
    }
    figures = list(rollout_figures(sampler, trajectories, {"Rollout": made}))
    return Pictures(
        template="mesh.html.j2",
        context={"kind": "rollout", "meshes": figures},
        facts=facts,
        learns="A network learns the next step of a simulation from the one before, with noise on it.",
        loss="The mean squared error of one step, in deviations of a step's change",
        guess="saying that nothing changes",
    )


def rollout_figures(
    sampler: MeshSampler, trajectories: Trajectories, rollouts: dict[str, Tensor]
) -> Iterator[MeshFigure]:
    """The truth and the rollouts float32 (T, N, D) of each trajectory at a few steps, drawn on one scale."""
    last = len(trajectories.fields) - 1
    steps = sorted({max(round(part * last), 1) for part in SHOWN_STEPS})
    for i, (nodes, key) in enumerate(zip(nodes_of(trajectories.start), trajectories.start.key, strict=True)):
        mesh, shown = sampler.mesh(i), ShownField.of(sampler, i)
        fields = {"Truth": trajectories.fields, **rollouts}
        drawn = {name: values[:, nodes].numpy() for name, values in fields.items()}
        scale = shown.scale(drawn["Truth"])
        rows = tuple(
            (f"After {step} step{'s'[: step > 1]}", _side_by_side(mesh, shown, drawn, step, scale)) for step in steps
        )
        words = shown.name if scale is None else f"{shown.name}, {scale[0]:.2f} (dark) to {scale[1]:.2f} (bright)"
        yield MeshFigure(key=key, words=words, rows=rows)


def nodes_of(batch: MeshBatch) -> list[slice]:
    """The nodes of each mesh of a batch."""
    offset = batch.node_offset.tolist()
    return [slice(begin, end) for begin, end in pairwise(offset)]


def picture_of(
    mesh: StoredMesh, shown: ShownField, fields: Float32s, scale: Scale, hidden: Bool | None = None
) -> UInt8:
    """The mesh in the colours of its fields (V, D), uint8 (H, W, 3)."""
    return mesh_picture(mesh.positions, mesh.cells, shown.colours(fields, scale), hidden=hidden)


def _side_by_side(
    mesh: StoredMesh, shown: ShownField, fields: dict[str, Float32s], step: int, scale: Scale
) -> tuple[tuple[str, str], ...]:
    return tuple((data_uri(picture_of(mesh, shown, values[step], scale)), name) for name, values in fields.items())
