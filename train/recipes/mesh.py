"""Recipes of simulations on meshes: MeshMask's pre-training, and the prediction of the next step that follows it.

maskstream train meshmask-tiny      --data .../train --out runs/masked
maskstream train meshmask-tiny-next --data .../train --out runs/next --initial runs/masked/model.safetensors
maskstream rollout runs/next        --data .../val
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...pipelines.masks import MeshNodes
from ...pipelines.modalities.mesh.batch import MeshBatch
from ...pipelines.modalities.mesh.data import MeshData
from ...pipelines.modalities.mesh.noise import MeshNoise
from ..core.optimiser import OptimiserConfig
from ..core.recipe import Recipe
from ..core.schedule import ScheduleConfig
from ..models.mesh_network import MeshNetworkConfig

TINY_MASKED_STEPS, TINY_NEXT_STEPS = 600, 1000


def meshmask_small() -> Recipe[MeshBatch]:
    """MeshMask (Garnier et al., 2025): 40 % of the nodes hidden, 15 rounds of messages at width 128.

    How its rounds are shared by encoder and decoder is not published; here 10 and 5. Learning rates are 1e-4 to 1e-6.
    """
    return Recipe(
        name="meshmask-small",
        batch_size=2,
        data=MeshData(mask=MeshNodes(ratio=0.4)),
        model=MeshNetworkConfig(),
        schedule=ScheduleConfig(base_lr=1.28e-2, min_lr=1.28e-4, steps=100_000),
        optimiser=OptimiserConfig(weight_decay=1e-4, max_grad_norm=1.0),
    )


def meshmask_small_next() -> Recipe[MeshBatch]:
    """The next step, with noise of 0.02 m/s on a velocity whose deviation is about 0.5 m/s (MeshGraphNets, A.2.2)."""
    return next_step(meshmask_small())


def meshmask_tiny() -> Recipe[MeshBatch]:
    """MeshMask's pre-training in half a minute on two CPU cores: what `make demo MODALITY=mesh` trains first.

    A mesh a step: the arrays of one stay in a core's cache, and two cost 2.4 times as much as one.
    """
    return replace(
        meshmask_small(),
        name="meshmask-tiny",
        batch_size=1,
        model=MeshNetworkConfig(width=64, hidden=64, encoder_rounds=4, decoder_rounds=2),
        schedule=ScheduleConfig(base_lr=0.512, min_lr=5.12e-3, steps=TINY_MASKED_STEPS),
    )


def meshmask_tiny_next() -> Recipe[MeshBatch]:
    """The next step in a minute, after `meshmask_tiny` or without it."""
    tiny = next_step(meshmask_tiny())
    return replace(tiny, schedule=replace(tiny.schedule, steps=TINY_NEXT_STEPS))


def next_step(masked: Recipe[MeshBatch]) -> Recipe[MeshBatch]:
    """The training that follows a pre-training, with the same network."""
    if not isinstance(masked.model, MeshNetworkConfig):
        raise ValueError(f"the next step is predicted by a MeshNetwork, got {masked.model}")
    return replace(
        masked,
        name=f"{masked.name}-next",
        data=MeshData(noise=MeshNoise(deviation=0.04)),
        model=replace(masked.model, task="next"),
    )


RECIPES: dict[str, Callable[[], Recipe[MeshBatch]]] = {
    "meshmask-small": meshmask_small,
    "meshmask-small-next": meshmask_small_next,
    "meshmask-tiny": meshmask_tiny,
    "meshmask-tiny-next": meshmask_tiny_next,
}
