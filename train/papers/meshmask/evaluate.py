"""Evaluates the reconstruction of the fields at hidden nodes of meshes, and rollouts.

In a rollout a next-step model predicts a trajectory from its first step, with its own predictions as input. Nodes with
prescribed fields (walls, inflow) have the true values at every step, as in MeshGraphNets (Pfaff et al., 2021). Errors
are measured at the other nodes, in standard deviations of each channel, so the mean field has error 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from maskstream.pipelines.modalities.mesh.batch import MeshBatch, MeshView, build_mesh_batch
from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.pipelines.modalities.mesh.read import MeshReader
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float32s
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.model import need_mask, squared
from maskstream.train.evaluate.evaluation import Compared, Evaluation, Example, Score, TrainingLoss, read_batches

from .model import MeshNetwork, MeshNetworkConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectories:
    """Simulations of a split from their first step on.

    Attributes:
        start: Their joint graph at step 0.
        fields: Normalised fields at every step, float32 (T, N, D), where T is the length of the shortest.
    """

    start: MeshBatch
    fields: Tensor

    @classmethod
    def open(
        cls, data: Manifest, count: int | None = None, steps: int | None = None, component: str | None = None
    ) -> Trajectories:
        """Read simulations of a split from their first step on.

        Args:
            data: The split.
            count: Number of simulations; None for all.
            steps: Number of steps after the first; None for all.
            component: See `open_reader`.

        Raises:
            ValueError: The split has no simulation of that length.
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
        request = sampler.request(Wanted.of(indexes))
        draft = sampler.allocate([request])
        sampler.fill(request, draft, range(len(indexes)), Stats())
        fields = [reader.statistics.normalised(reader.fields(index, 0, length)) for index in indexes]
        views = [_set_start(plan.made[0], values[0]) for plan, values in zip(request.plans, fields, strict=True)]
        change = reader.statistics.relative_change
        start = build_mesh_batch(views, label=request.items.labels.tolist(), key=request.items.keys, change=change)
        return cls(start=start, fields=torch.from_numpy(np.concatenate(fields, axis=1)))


def _set_start(view: MeshView, fields: Float32s) -> MeshView:
    """Return the view at step 0, with `fields` (N, D) as its state."""
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


def open_reader(data: Manifest, component: str | None = None) -> MeshReader:
    """Open the meshes of a split.

    Args:
        data: The split.
        component: Mesh to read if samples have several; defaults to the only one.
    """
    return MeshData(component=component).reader(Split.open(data, "mesh", shuffle=False, device="cpu"))


def next_model(model: nn.Module) -> MeshNetwork:
    """Return the model if it predicts the next step, else raise ValueError."""
    if not isinstance(model, MeshNetwork) or model.config.task != "next":
        raise ValueError(
            f"a rollout needs a mesh model with task='next', got {type(model).__name__}; "
            "train one with a recipe such as meshmask-tiny-next"
        )
    return model


@torch.inference_mode()
def rollout(model: MeshNetwork, trajectories: Trajectories) -> Tensor:
    """Predict the fields from step 0 on.

    Args:
        model: The model, in eval mode.
        trajectories: The simulations.

    Returns:
        Normalised fields float32 (T, N, D); step 0 is the true one.
    """
    start, truth = trajectories.start, trajectories.fields
    free = (start.counts > 0)[:, None]
    made = [truth[0]]
    for true in truth[1:]:
        change = model.predict_change(made[-1], start.kinds, start.edges, start.edge_features) * start.change
        made.append(torch.where(free, made[-1] + change, true))
    return torch.stack(made)


def measure_rollout_error(made: Tensor, trajectories: Trajectories) -> Float32s:
    """Return the root mean square error of each step after the first over free nodes and channels, float32 (T - 1,).

    Args:
        made: Predicted fields float32 (T, N, D).
        trajectories: The simulations.
    """
    square = (made - trajectories.fields)[1:].square().mean(dim=2)
    free = trajectories.start.counts > 0
    errors: Float32s = square[:, free].mean(dim=1).sqrt().numpy()
    return errors


def persist(trajectories: Trajectories) -> Tensor:
    """Return the rollout of a baseline that predicts no change, float32 (T, N, D)."""
    free = (trajectories.start.counts > 0)[:, None]
    return torch.where(free, trajectories.fields[0], trajectories.fields)


@torch.inference_mode()
def measure_steps(model: MeshNetwork, trajectories: Trajectories, every: int = 10) -> tuple[float, float]:
    """Return the losses of the model and of persistence over one step.

    Args:
        model: The model, in eval mode.
        trajectories: The simulations.
        every: Distance between the true steps to start from.
    """
    start, fields = trajectories.start, trajectories.fields
    losses = []
    for step in range(0, len(fields) - 1, every):
        change = (fields[step + 1] - fields[step]) / start.change
        made = model.predict_change(fields[step], start.kinds, start.edges, start.edge_features)
        losses.append(tuple(squared(guess, change, start.counts).mean() for guess in (made, torch.zeros_like(change))))
    own, unchanged = torch.tensor(losses).mean(dim=0).tolist()
    return own, unchanged


MEASURED = 512
"""The largest number of samples that are measured."""
VIEWS = 4
_SWEEPS = 200
HIDDEN = (
    "A triangle has the mean colour of its corners, and is grey where a corner was hidden; these nodes and all "
    "of their edges were removed from the graph that the encoder saw. In the last image, their fields are the "
    "model's predictions. Errors are in standard deviations of the fields over the dataset; the loss is their "
    "mean square, which is near 1 for the mean field. Interpolation gives every hidden node the mean of its "
    "neighbours."
)
ROLLOUTS = (
    "A rollout starts with the true first step and continues from predicted steps; only the fields at walls and inflow "
    "come from the data. A row is one step of the trajectory; all images of a trajectory share one colour scale."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollouts(Example):
    """The first `shown` trajectories, and the rollouts of all trajectories by model, float32 (T, N, D)."""

    trajectories: Trajectories
    made: Mapping[str, Tensor]
    shown: int


def evaluate(model: MeshNetwork, config: MeshData, data: Manifest, shown: int) -> Evaluation:
    """Measure the loss at hidden nodes and complete meshes or, for a next-step model, measure rollouts.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    return (
        evaluate_rollouts(next_model(model), data, shown)
        if config.mask is None
        else _evaluate_fields(model, config, data, shown)
    )


def _evaluate_fields(model: MeshNetwork, config: MeshData, data: Manifest, shown: int) -> Evaluation:
    losses, count = measure_masked(config, model, data)
    n = len(data)
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


def evaluate_rollouts(model: MeshNetwork, data: Manifest, shown: int) -> Evaluation:
    """Measure one-step and rollout errors on a whole split.

    Args:
        model: The model, in eval mode.
        data: The split.
        shown: Number of rollouts to show.
    """
    trajectories = Trajectories.open(data)
    made = rollout(model, trajectories)
    error, still = (measure_rollout_error(one, trajectories) for one in (made, persist(trajectories)))
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
                    unit="standard deviations of the fields",
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
                title="Rollouts and ground truth",
                reading=ROLLOUTS,
                trajectories=trajectories,
                made={"Rollout": made},
                shown=shown,
            ),
        ),
        loss=TrainingLoss(
            name="The mean squared error of one step, in standard deviations of a one-step change",
            baseline="predicting no change",
        ),
        learns="A network learns to predict the next step of a simulation from the current one with noise added.",
    )


@torch.inference_mode()
def measure_masked(config: MeshData, model: MeshNetwork, data: Manifest) -> tuple[dict[str, float], int]:
    """Measure the losses of the model, the mean field and `fill_hidden_nodes`, on VIEWS steps of up to MEASURED meshes.

    Args:
        config: Data config of the run.
        model: The model.
        data: The split.

    Returns:
        The losses by name, and the number of meshes.
    """
    sums: dict[str, float] = {"model": 0.0, "mean field": 0.0, "spread": 0.0}
    total, meshes = 0.0, 0
    shown = replace(config, noise=None, views=VIEWS, fields=())
    for batch in read_batches(shown, data, size=1, samples=MEASURED):
        mask = need_mask(batch.mask)
        target, weight = mask.target[0], mask.weight[0]
        made = {
            "model": model.reconstructed(batch).state[target],
            "mean field": torch.zeros_like(batch.state[target]),
            "spread": fill_hidden_nodes(batch.state, mask.masked[0], batch.edges)[target],
        }
        for name, values in made.items():
            sums[name] += float(squared(values, batch.state[target], weight).total)
        total += float(weight.sum())
        meshes += 1
    return {name: value / max(total, 1e-12) for name, value in sums.items()}, meshes


def fill_hidden_nodes(fields: Tensor, masked: Tensor, edges: Tensor) -> Tensor:
    """Replace the fields of hidden nodes by the mean of their neighbours.

    This is harmonic interpolation, by 200 Jacobi iterations: the best prediction from the mesh without any physics.

    Args:
        fields: Fields (N, D).
        masked: Hidden nodes, bool (N,).
        edges: Senders and receivers, int64 (2, E).
    """
    degree = torch.zeros(len(fields)).index_add(0, edges[1], torch.ones(edges.shape[1])).clamp(min=1)[:, None]
    values = torch.where(masked[:, None], 0, fields)
    for _ in range(_SWEEPS):
        means = torch.zeros_like(values).index_add(0, edges[1], values[edges[0]]) / degree
        values = torch.where(masked[:, None], means, fields)
    return values


EVALUATIONS = {MeshNetworkConfig: evaluate}
