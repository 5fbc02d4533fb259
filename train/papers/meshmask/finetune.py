"""What a pre-trained mesh network is fine-tuned for: the next step of simulations, or the classes of surfaces.

Pre-training on masked nodes serves the prediction of the next step (MeshMask, Garnier et al., 2025): the same rounds of
message passing run on the whole graph, and a new head predicts the change of the fields.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.mesh_members import FIELDS
from maskstream.train.core.model import Model
from maskstream.train.core.recipe import Recipe
from maskstream.train.evaluate.classifier import Tested, Tuning

from .evaluate import evaluate_rollouts, next_model
from .model import MeshNetworkConfig
from .recipe import next_step


def tune_meshes(base: Recipe[Any], train: Manifest, points: str) -> Tuning | None:
    """The next step, as many steps as the run's recipe takes; None for surfaces, whose classes are learnt.

    ValueError for a run that predicts the next step already.
    """
    if points or not isinstance(base.model, MeshNetworkConfig):
        return None
    if base.model.task == "next":
        raise ValueError(
            f"{base.name} predicts the next step already; give a run of masked meshes, such as meshmask-tiny"
        )
    if not any(name.endswith(FIELDS) for name in train.components):
        return None
    return Tuning(recipe=next_step(base), initial=_whole, measure=measure_rollouts)


def _whole(model: Model[Any]) -> Mapping[str, Tensor]:
    return model.state_dict()


def measure_rollouts(
    model: Model[Any], recipe: Recipe[Any], train: Manifest, test: Manifest, device: torch.device
) -> Tested:
    """The error of one step and of rollouts of all trajectories of a test, beside that nothing changes."""
    return Tested(scores=evaluate_rollouts(next_model(model).cpu(), test, 0).scores)


TUNINGS = {MeshNetworkConfig: tune_meshes}
