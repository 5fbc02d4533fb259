"""Evaluates a diffusion model of point clouds: noise errors on held-out clouds, and generated against real clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ....pipelines import points_loader
from ....pipelines.modalities.points.augment import PointAugment
from ....pipelines.modalities.points.batch import PointsBatch
from ....pipelines.modalities.points.data import PointsData
from ....pipelines.stream.sampler import BatchT
from ...core.model import Model
from ...evaluate.held_out import HeldOut, Score, margin
from .distances import chamfer_table, compare_sets
from .model import VoxelDiffusion, noise_of
from .noise_errors import held_out_batches, in_words, noise_errors
from .sampling import sample_clouds

COMPARED = 54
"""The largest number of generated clouds, equal for all categories; they are compared with as many real ones."""
COMPARED_POINTS = 512
STEPS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelsHeldOut:
    """The results. bands: the margins by noise level, in words; batches: the measured ones; made, real: generated and
    real clouds float32 (B, N, 3) of the categories `label` int64 (B,).
    """

    found: HeldOut
    bands: tuple[tuple[str, str], ...]
    batches: list[PointsBatch]
    made: Tensor
    real: Tensor
    label: Tensor


def held_out(config: PointsData, model: VoxelDiffusion, data: str | Path) -> VoxelsHeldOut:
    """The held-out errors with their bounds, and clouds that the model generated; the same at each call."""
    batches = held_out_batches(config, data)
    errors = noise_errors(config, model, batches, data)
    made, real, label = made_and_real(config, model, data)
    sets = compare_sets(made[:, :COMPARED_POINTS], real[:, :COMPARED_POINTS])
    own, whole, bound = own_category(made, real, label), errors.whole, "the upper bound"
    facts = {
        "noise error, held-out clouds": f"{whole.model:.4f}, {margin(whole.model, whole.known, bound)}",
        "upper bound, from mean and variance only": f"{whole.known:.4f}",
        "lower bound, from the cloud itself": f"{whole.least:.4f}, {margin(whole.least, whole.known, bound)}",
        "noise error with the recipe's masks": f"{whole.masked:.4f}, {margin(whole.masked, whole.known, bound)}",
        f"{len(made)} generated clouds against real ones": f"coverage {sets.coverage:.2f}, 1-NNA {sets.accuracy:.2f} "
        f"(0.5 is best), matching {sets.matching:.3f}",
        "generated clouds nearest to a real one of their category": f"{own} of {len(made)}",
        "tokens": _tokens(model, batches[0]),
        "arithmetic of a step": _flops(model, batches[0]),
        "mask": repr(config.mask),
    }
    return VoxelsHeldOut(
        found=HeldOut(
            facts=facts,
            learns="A masked diffusion model learns to predict the noise in clouds of which its encoder sees a part.",
            loss="The mean squared error of the predicted noise",
            baseline="a predictor that knows mean and variance only",
            baseline_loss=whole.known,
            score=Score(
                name="squared error of the noise",
                value=whole.model,
                baselines={"a predictor that knows mean and variance": whole.known},
            ),
        ),
        bands=tuple(
            (f"{high:.0%} to {low:.0%} of the variance left", in_words(band)) for low, high, band in errors.bands
        ),
        batches=batches,
        made=made,
        real=real,
        label=label,
    )


def made_and_real(config: PointsData, model: VoxelDiffusion, data: str | Path) -> tuple[Tensor, Tensor, Tensor]:
    """Generated clouds and as many real ones, float32 (B, N, 3) each, and their categories, int64 (B,), ascending.

    All categories have the same number of clouds if the split has enough of each; at most COMPARED in all.
    """
    loader = points_loader(
        data, select=config.select, augment=PointAugment(normalise=config.augment.normalise), batch_size=1, device="cpu"
    )
    if len(loader) < 2:
        raise ValueError("a report compares generated clouds with real ones; give it a split of 2 or more clouds")
    found: dict[int, list[Tensor]] = {}
    for batch in loader:
        found.setdefault(int(batch.label[0]), []).append(batch.points[0, :, :3])
    each = max(COMPARED // len(found), 1)
    chosen = [(label, points) for label in sorted(found) for points in found[label][:each]][:COMPARED]
    label = torch.tensor([label for label, _ in chosen])
    real = torch.stack([points for _, points in chosen])
    return sample_clouds(model, label, torch.Generator().manual_seed(0), points=real.shape[1], steps=STEPS), real, label


def own_category(made: Tensor, real: Tensor, label: Tensor) -> int:
    """How many generated clouds have, by Chamfer distance, a nearest real cloud of their own label."""
    nearest = chamfer_table(made[:, :COMPARED_POINTS], real[:, :COMPARED_POINTS]).argmin(dim=1)
    return int((label[nearest] == label).sum())


def _tokens(model: VoxelDiffusion, batch: PointsBatch) -> str:
    visible, without = noise_of(batch)[2].shape[1], int(model.config.shown * model.side**3)
    return f"{model.side**3}, of which the encoder sees {visible} with masks and {without} without"


def _flops(model: VoxelDiffusion, batch: PointsBatch) -> str:
    """The floating point operations of one training step per cloud, with masks and with every token visible."""
    noise, time, _ = noise_of(batch)
    if batch.mask is None:
        raise ValueError("the batch has no masks; give the loader mask=")
    mask = batch.mask.rows(slice(1))
    one = PointsBatch(
        points=batch.points[:1], noise=noise[:1], time=time[:1], mask=mask, label=batch.label[:1], key=batch.key[:1]
    )
    every = replace(mask, visible=torch.arange(model.side**3)[None])
    masked, whole = (step_flops(model, replace(one, mask=mask)) for mask in (mask, every))
    return f"{masked / 1e9:.2f} GFLOP a cloud, {masked / whole:.0%} of {whole / 1e9:.2f} with every token visible"


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward(
    grad: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))  # type: ignore[no-untyped-call]


_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""The operations that torch's counter does not know."""


def step_flops(model: Model[BatchT], batch: BatchT) -> int:
    """Floating point operations of a forward and a backward pass, as torch counts them, with attention on the CPU."""
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        model(batch).loss().backward()
    model.zero_grad()
    return int(counter.get_total_flops())
