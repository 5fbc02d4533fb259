"""Recipes of simulations on meshes: MeshMask's pre-training, and the prediction of the next step that follows it.

maskstream train meshmask-tiny      --data .../train --out runs/masked
maskstream train meshmask-tiny-next --data .../train --out runs/next --initial runs/masked/model.safetensors
maskstream rollout runs/next        --data .../val
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Unpack

from ...pipelines import mesh_loader
from ...pipelines.masks import Mask, MeshNodes
from ...pipelines.modalities.mesh.batch import MeshBatch
from ...pipelines.modalities.mesh.noise import MeshNoise
from ...pipelines.stream.loader import Loader
from ..core.model import Grids
from ..core.optimiser import OptimiserConfig
from ..core.schedule import ScheduleConfig
from ..models.mesh_network import MeshNetworkConfig
from .recipe import LoaderSettings, Recipe

TINY_MASKED_STEPS, TINY_NEXT_STEPS = 600, 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshRecipe(Recipe):
    """A network on meshes, of the task that `model` says: with a mask it reconstructs fields, without one it predicts
    the next step. noise: on what it sees. views: steps of each trajectory in a batch.
    """

    modality: ClassVar[str] = "mesh"

    mask: Mask | None = None
    noise: MeshNoise | None = None
    views: int = 1
    model: MeshNetworkConfig = field(default_factory=MeshNetworkConfig)

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)
        if self.views < 1:
            raise ValueError(f"views is at least 1, got {self.views}")
        if (self.mask is not None) != (self.model.task == "masked"):
            raise ValueError(
                f"the task 'masked' needs a mask and 'next' has none, got {self.model.task!r}, {self.mask}"
            )

    @property
    def grids(self) -> Grids:
        """None: the tokens of a mesh are its nodes."""
        return {}

    def build_loader(self, data: str | Path, **settings: Unpack[LoaderSettings]) -> Loader[MeshBatch]:
        """The recipe's batches from a split's folder; rank and world size are torch.distributed's."""
        return mesh_loader(
            data, mask=self.mask, noise=self.noise, views=self.views, batch_size=self.batch_size, **settings
        )


def meshmask_small() -> MeshRecipe:
    """MeshMask (Garnier et al., 2025): 40 % of the nodes hidden, 15 rounds of messages at width 128.

    How its rounds are shared by encoder and decoder is not published; here 10 and 5. Learning rates are 1e-4 to 1e-6.
    """
    return MeshRecipe(
        name="meshmask-small",
        mask=MeshNodes(ratio=0.4),
        batch_size=2,
        schedule=ScheduleConfig(base_lr=1.28e-2, min_lr=1.28e-4, steps=100_000),
        optimiser=OptimiserConfig(weight_decay=1e-4, max_grad_norm=1.0),
    )


def meshmask_small_next() -> MeshRecipe:
    """The next step, with noise of 0.02 m/s on a velocity whose deviation is about 0.5 m/s (MeshGraphNets, A.2.2)."""
    return next_step(meshmask_small())


def meshmask_tiny() -> MeshRecipe:
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


def meshmask_tiny_next() -> MeshRecipe:
    """The next step in a minute, after `meshmask_tiny` or without it."""
    tiny = next_step(meshmask_tiny())
    return replace(tiny, schedule=replace(tiny.schedule, steps=TINY_NEXT_STEPS))


def next_step(masked: MeshRecipe) -> MeshRecipe:
    """The training that follows a pre-training, with the same network."""
    return replace(
        masked,
        name=f"{masked.name}-next",
        mask=None,
        noise=MeshNoise(deviation=0.04),
        model=replace(masked.model, task="next"),
    )
