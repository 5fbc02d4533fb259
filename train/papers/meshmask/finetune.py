"""Fine-tunes a pre-trained mesh network on the next step of simulations, or on the classes of surfaces.

Pre-training on masked nodes helps to predict the next step (MeshMask, Garnier et al., 2025): the same rounds of message
passing run on the whole graph, and a new head predicts the change of the fields.
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
    """Return the fine-tuning on the next step, with as many steps as the run's recipe; None for surfaces, whose classes
    are learnt.

    Args:
        base: Recipe of the run.
        train: Training split.
        points: Column of point labels, or "".

    Raises:
        ValueError: The run already predicts the next step.
    """
    if points or not isinstance(base.model, MeshNetworkConfig):
        return None
    if base.model.task == "next":
        raise ValueError(
            f"{base.name} already predicts the next step; pass a run of masked meshes, such as meshmask-tiny"
        )
    if not any(name.endswith(FIELDS) for name in train.components):
        return None
    return Tuning(recipe=next_step(base), initial=_whole, measure=measure_rollouts)


def _whole(model: Model[Any]) -> Mapping[str, Tensor]:
    return model.state_dict()


def measure_rollouts(
    model: Model[Any], recipe: Recipe[Any], train: Manifest, test: Manifest, device: torch.device
) -> Tested:
    """Measure one-step and rollout errors on a test split, compared with predicting no change.

    Args:
        model: The model.
        recipe: Recipe of the fine-tuning.
        train: Training split.
        test: Test split.
        device: Device of the model.
    """
    return Tested(scores=evaluate_rollouts(next_model(model).cpu(), test, 0).scores)


TUNINGS = {MeshNetworkConfig: tune_meshes}
