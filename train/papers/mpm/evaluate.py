"""Evaluates models of poses: lifted 2-D poses, and completed 3-D poses, compared with training-free predictions.

MPJPE is the mean distance of predicted and true joints; positions are relative to a root joint, as is usual for
Human3.6M (Ionescu et al., 2014, section 5.2), which calls this protocol 1. P-MPJPE (protocol 2) first aligns each
predicted pose with the true one by a rotation, a translation and a scale (Procrustes).

The baselines of lifting are fitted to the measured clips themselves: the mean of their 3-D poses, and the linear map
from 2-D poses to 3-D poses with the least squared error. So a linear map fitted to other clips cannot be better, and a
model that beats them does not benefit from a lack of data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.modalities.pose.batch import PoseBatch
from maskstream.pipelines.modalities.pose.data import PoseData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import Compared, Evaluation, Mixture, Score, TrainingLoss, read_batches

from .model import PoseModel, PoseModelConfig, distance

ROUNDS = 8
"""Clips per pose sequence, each seen by a different camera."""
MEASURED = 1024
"""Approximate maximum number of clips that are measured."""
IN_TIME = "interpolation in time"
_MM = 1000.0
COMPLETED = (
    "Held-out pose sequences. The encoder saw the joints in strong colours, of the 2-D or the 3-D pose; the model "
    "predicted all joints of all frames. Six frames of a clip are drawn."
)
LIFTED = (
    "Held-out pose sequences as a camera sees them, from which the model predicted the joints in space. In the side "
    "view, depth, which the camera does not see, is to the right."
)


def compute_mpjpe(made: Tensor, true: Tensor, *, root: int | None = 0, valid: Tensor | None = None) -> float:
    """Return the mean distance of joints, in the unit of the positions.

    Args:
        made: Predicted joints (..., J, 3).
        true: True joints (..., J, 3).
        root: Joint that is moved to the origin in both; None compares positions unchanged.
        valid: Joints that are measured, bool (..., J).

    Raises:
        ValueError: Shapes differ, or no joint is valid.
    """
    _check(made, true)
    if root is not None:
        made, true = (x - x[..., root : root + 1, :] for x in (made, true))
    return _measure_mean_distance(made, true, valid)


def compute_p_mpjpe(made: Tensor, true: Tensor, *, valid: Tensor | None = None) -> float:
    """Return the mean distance after each pose is aligned with the true one.

    All joints are used for the alignment; reflections are not allowed.

    Args:
        made: Predicted joints (..., J, 3).
        true: True joints (..., J, 3).
        valid: Joints that are measured, bool (..., J).
    """
    _check(made, true)
    return _measure_mean_distance(align(made, true), true, valid)


def align(made: Tensor, true: Tensor) -> Tensor:
    """Rotate, translate and scale poses for the smallest squared distance to the true ones; float64 (..., J, 3).

    A pose whose joints are all at one point becomes the mean of the true joints.

    Args:
        made: Predicted joints (..., J, 3).
        true: True joints (..., J, 3).
    """
    made, true = made.double(), true.double()
    centre, wanted = made.mean(dim=-2, keepdim=True), true.mean(dim=-2, keepdim=True)
    a, b = made - centre, true - wanted
    u, s, vh = torch.linalg.svd(a.mT @ b)
    sign = torch.ones_like(s)
    sign[..., -1] = torch.linalg.det(u @ vh).sign()
    rotation = (u * sign[..., None, :]) @ vh
    size = a.square().sum(dim=(-2, -1))
    scale = (s * sign).sum(dim=-1) / torch.where(size > 0, size, 1.0)
    moved: Tensor = scale[..., None, None] * (a @ rotation) + wanted
    return moved


def _check(made: Tensor, true: Tensor) -> None:
    if made.shape != true.shape or made.ndim < 2 or made.shape[-1] != 3:
        raise ValueError(f"poses must be two tensors (..., J, 3), got {tuple(made.shape)} and {tuple(true.shape)}")


def _measure_mean_distance(made: Tensor, true: Tensor, valid: Tensor | None) -> float:
    distance = torch.linalg.vector_norm(made.double() - true.double(), dim=-1)
    counted = distance if valid is None else distance[valid]
    if not counted.numel():
        raise ValueError("no joint is valid; an error needs at least one pose with a valid joint")
    return float(counted.mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifted:
    """Errors of lifted poses in mm.

    Attributes:
        model: MPJPE of the model.
        aligned: P-MPJPE of the model.
        mean: MPJPE of the mean pose.
        linear: MPJPE of the linear map.
    """

    model: float
    aligned: float
    mean: float
    linear: float


def evaluate(model: PoseModel, config: PoseData, data: Manifest, shown: int) -> Evaluation:
    """Measure errors on all pose sequences of a split, compared with baselines.

    A model of masked poses is judged by completed joints, a model that only lifts by lifted poses.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    clips = collect_held_out_clips(config, data)
    found, trivial, completes = (
        measure_lifting(model, clips),
        measure_mean_pose(model, clips),
        model.decoder_2d is not None,
    )
    first, count = clips[0], sum(len(_drop_padding_rows(batch, batch.pose_3d)) for batch in clips)
    rows, whole = range(min(shown, len(first))), replace(first, mask_2d=None, mask_3d=None)
    linear, mean = "the linear map that fits these clips best", "their mean pose"
    notes: Mapping[str, float] = {}
    scores = [
        Score(
            name="MPJPE of lifted poses",
            value=found.model,
            unit="mm",
            of="clips",
            count=count,
            baselines={linear: found.linear, mean: found.mean},
        ),
        Score(name="P-MPJPE of lifted poses, after alignment", value=found.aligned, unit="mm", of="clips", count=count),
    ]
    with torch.inference_mode():
        lifted = replace(whole, pose_3d=model.lifted(whole).float())
        examples = [Compared(title="Lifted poses", reading=LIFTED, batch=whole, made=lifted, rows=rows)]
        if completes:
            made = model.reconstructed(first)
            examples.append(Compared(title="Completed poses", reading=COMPLETED, batch=first, made=made, rows=rows))
    if completes:
        own, between, mixture = measure_hidden(model, clips)
        notes = mixture.notes(IN_TIME)
        hidden = Score(
            name="distance of hidden joints",
            value=own,
            unit="mm",
            of="clips",
            count=count,
            baselines={IN_TIME: between},
        )
        scores.insert(0, hidden)
    return Evaluation(
        scores=tuple(scores),
        notes=notes,
        examples=tuple(examples),
        loss=TrainingLoss(
            name="The mean distance of joints, in metres and in half widths of the image, weighted over the tasks",
            baseline="predicting the mean poses",
            value=trivial,
        ),
        learns=(
            "A model of poses learns by completing poses in 2-D and in 3-D and by lifting 2-D poses."
            if completes
            else "A model of poses learns to lift 2-D poses."
        ),
    )


def collect_held_out_clips(config: PoseData, data: Manifest) -> list[PoseBatch]:
    """Return clips of all pose sequences of a split, without flips, with the recipe's cameras and masks; repeated calls
    return the same clips.

    Args:
        config: Data config of the run.
        data: The split.
    """
    n = len(data)
    rounds = max(min(ROUNDS, MEASURED // n), 1)
    return list(read_batches(replace(config, views=1, flip=0.0), data, size=min(n, 64), samples=n, rounds=rounds))


@torch.inference_mode()
def measure_lifting(model: PoseModel, clips: list[PoseBatch]) -> Lifted:
    """Measure the errors of the model and of the baselines on clips; rows that only pad a batch are ignored.

    Args:
        model: The model.
        clips: Batches of clips.
    """
    flat, true, made = (
        torch.cat([_drop_padding_rows(batch, of(batch)).flatten(0, 1).double() for batch in clips])
        for of in (_predict_pose_2d, _predict_pose_3d, model.lifted)
    )
    inputs = torch.cat((flat.flatten(1), torch.ones(len(flat), 1, dtype=flat.dtype)), dim=1)
    linear = (inputs @ torch.linalg.lstsq(inputs, true.flatten(1), driver="gelsd").solution).view_as(true)
    return Lifted(
        model=_MM * compute_mpjpe(made, true),
        aligned=_MM * compute_p_mpjpe(made, true),
        mean=_MM * compute_mpjpe(true.mean(dim=0).expand_as(true), true),
        linear=_MM * compute_mpjpe(linear, true),
    )


@torch.inference_mode()
def measure_hidden(model: PoseModel, clips: list[PoseBatch]) -> tuple[float, float, Mixture]:
    """Return the mean distances in mm of hidden 3-D joints: of the model, of linear interpolation in time, and of their
    best mixture.

    The mixture's weight is a multiple of 0.01. For interpolation, a joint that is hidden in all frames is at the
    pelvis.

    Args:
        model: The model.
        clips: Batches of clips.
    """
    of_model, of_line = [], []  # distance of each hidden joint, (n, 3)
    for batch in clips:
        assert batch.mask_3d is not None
        hidden = _drop_padding_rows(batch, batch.mask_3d.masked.view(batch.pose_3d.shape[:3]))
        true, made = _drop_padding_rows(batch, batch.pose_3d), _drop_padding_rows(batch, model.completed(batch)[1])
        of_model.append((made - true)[hidden])
        of_line.append((interpolate(true, hidden) - true)[hidden])
    own, line = torch.cat(of_model), torch.cat(of_line)
    errors = [_MM * float(line.lerp(own, share / 100).norm(dim=-1).mean()) for share in range(101)]
    best = min(range(101), key=lambda share: errors[share])
    return errors[-1], errors[0], Mixture(error=errors[best], share=best / 100)


def interpolate(poses: Tensor, hidden: Tensor) -> Tensor:
    """Interpolate hidden joints linearly in time between visible ones.

    Args:
        poses: Poses (B, T, J, dims).
        hidden: Hidden joints, bool (B, T, J).
    """
    made, gone = poses.numpy().copy(), hidden.numpy()
    time = np.arange(made.shape[1])
    for b, j in np.ndindex(made.shape[0], made.shape[2]):
        at = gone[b, :, j]
        for dim in range(made.shape[3]):
            seen = made[b, ~at, j, dim]
            made[b, at, j, dim] = np.interp(time[at], time[~at], seen) if len(seen) else 0.0
    return torch.from_numpy(made)


@torch.inference_mode()
def measure_mean_pose(model: PoseModel, clips: list[PoseBatch]) -> float:
    """Return the training loss of predicting the clips' mean poses.

    Args:
        model: The model.
        clips: Batches of clips.
    """
    flat, true = (
        torch.cat([_drop_padding_rows(batch, of(batch)) for batch in clips])
        for of in (_predict_pose_2d, _predict_pose_3d)
    )
    weight = torch.ones(len(flat))
    errors = [float(distance(x.mean(dim=(0, 1)).expand_as(x), x, weight).mean()) for x in (flat, true, true)]
    if model.decoder_2d is None:
        return errors[1]
    return sum(share * error for share, error in zip(model.config.shares, errors, strict=True))


def _drop_padding_rows(batch: PoseBatch, of: Tensor) -> Tensor:
    """Return the rows of a tensor that do not only pad the batch."""
    return of if batch.weight is None else of[batch.weight > 0]


def _predict_pose_2d(batch: PoseBatch) -> Tensor:
    return batch.pose_2d


def _predict_pose_3d(batch: PoseBatch) -> Tensor:
    return batch.pose_3d


EVALUATIONS = {PoseModelConfig: evaluate}
