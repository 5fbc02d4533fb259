"""A report's pictures of a diffusion model of clouds: noise that it took away, and clouds that it made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ...pipelines.batch import PointsBatch
from ...pipelines.points.augment import PointAugment
from ...pipelines.points.voxels import point_tokens, voxel_places
from ...pipelines.preview.cloud_picture import FADED, MADE, SEEN, cloud_picture, marked
from ...pipelines.preview.pictures import UInt8, data_uri
from ...shards.manifest import Manifest
from ..models.point_distances import SetDistances, chamfer_table, compare_sets
from ..models.voxel_diffusion import VoxelDiffusion
from ..models.voxel_sampling import sample_clouds
from ..recipes.recipe import Pictures
from .clouds import CloudFigure, CloudSection, margin

if TYPE_CHECKING:
    from ..recipes.points import VoxelRecipe

MEASURED = 256
"""As many clouds at most go into the held-out loss."""
COMPARED = 27
"""As many clouds are made, of the categories in turn, and compared with as many real ones."""
COMPARED_POINTS = 512
STEPS = 25


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
"""What torch's counter does not know."""

REMOVAL = (
    "A held-out cloud with the noise of one time. The encoder saw only the tokens whose boxes are drawn, and so the "
    "points in them; the others are pale. To the right is what is left when the noise that the model predicts is taken "
    "away."
)
MAKING = (
    f"Clouds that the model made of noise in {STEPS} steps for a category that it was told, with the real cloud of the "
    "split that is nearest to each beside it. None of them is chosen."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Mean losses on the split: the model's with the recipe's masks and with every token visible, and that of who knows
    only the points' mean and variance.
    """

    masked: float
    all_visible: float
    known: float


def report_pictures(recipe: VoxelRecipe, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """The held-out loss beside those of trivial predictors, `shown` clouds and as many made ones, always the same."""
    if not isinstance(model, VoxelDiffusion):
        raise ValueError(f"clouds are made by a VoxelDiffusion, got {type(model).__name__}")
    batches = _batches(recipe, data)
    losses = held_out(recipe, model, batches)
    names = tuple(map(str, Manifest.load(data).info.get("label_names", ())))
    made, real, label, distances = compared(model, batches)
    facts = {
        "loss on these clouds": f"{losses.masked:.4f}, {margin(losses.masked, losses.known)} the next",
        "loss of who knows mean and variance only": f"{losses.known:.4f}",
        "loss of who says that there is no noise": "1",
        "loss with every token visible": f"{losses.all_visible:.4f}",
        "tokens": _tokens(recipe, model, batches[0]),
        "arithmetic of a step": _flops(recipe, model, batches[0]),
        "made clouds beside real ones": f"coverage {distances.coverage:.2f}, 1-NNA {distances.accuracy:.2f} (0.5 is "
        f"best), matching {distances.matching:.3f}",
        "mask": repr(recipe.mask),
    }
    sections = (
        CloudSection(
            title="Noise, masks, and what the model takes away",
            words=REMOVAL,
            figures=_removals(recipe, model, batches[0], shown),
        ),
        CloudSection(title="Clouds that the model made", words=MAKING, figures=_makings(made, real, label, names)),
    )
    return Pictures(
        template="points.html.j2",
        context={"sections": sections},
        facts=facts,
        loss="The mean squared error of the predicted noise",
        guess="saying that there is no noise",
    )


def _batches(recipe: VoxelRecipe, data: str | Path) -> list[PointsBatch]:
    """Mixed clouds of the split as the recipe shows them, the same each time; at most MEASURED."""
    n = min(len(Manifest.load(data)), MEASURED)
    loader = replace(
        recipe, batch_size=min(n, 32), views=1, augment=PointAugment(normalise=recipe.augment.normalise)
    ).build_loader(data, seed=0, device="cpu")
    loader.steps = 1
    return [batch for batch, _ in zip(loader, range(max(n // 32, 1)), strict=False)]


@torch.inference_mode()
def held_out(recipe: VoxelRecipe, model: VoxelDiffusion, batches: list[PointsBatch]) -> HeldOut:
    """The losses on some batches with noise and masks."""
    rows: list[tuple[float, float, float]] = []
    for batch in batches:
        points, noise, time, label, visible, weight = recipe.inputs(batch)
        everything = torch.arange(model.side**3).expand(len(batch), -1)
        masked, whole = (float(model(points, noise, time, label, seen, weight)) for seen in (visible, everything))
        x = model.noise.noised(points[..., :3], noise, time)
        guess = (1 - model.known_loss(time)).sqrt()[:, None, None] * x
        rows.append((masked, whole, float((guess - noise).square().mean())))
    masked, whole, known = np.mean(rows, axis=0).tolist()
    return HeldOut(masked=masked, all_visible=whole, known=known)


def compared(model: VoxelDiffusion, batches: list[PointsBatch]) -> tuple[Tensor, Tensor, Tensor, SetDistances]:
    """Clouds made for the categories of real ones, the real ones, the categories, and how the two sets compare."""
    real = torch.cat([batch.points for batch in batches])[:COMPARED, :COMPARED_POINTS, :3]
    label = torch.cat([batch.label for batch in batches])[:COMPARED]
    if len(real) < 2:
        raise ValueError("a report compares made clouds with real ones; the split needs 2 or more")
    made = sample_clouds(model, label, torch.Generator().manual_seed(0), points=batches[0].points.shape[1], steps=STEPS)
    return made, real, label, compare_sets(made[:, :COMPARED_POINTS], real)


@torch.inference_mode()
def _removals(recipe: VoxelRecipe, model: VoxelDiffusion, batch: PointsBatch, shown: int) -> tuple[CloudFigure, ...]:
    points, noise, time, label, visible, _ = recipe.inputs(batch)
    clean = points[..., :3]
    noised = model.noise.noised(clean, noise, time)
    kept = model.noise.kept()[time].float()[:, None, None]
    guess = (noised - (1 - kept).sqrt() * model.predict(noised, time, label, visible)) / kept.sqrt()
    figures = []
    for i in range(min(shown, len(batch))):
        with_boxes, seen = _seen(model, noised[i], visible[i])
        images = (
            (data_uri(cloud_picture(clean[i].numpy())), "original"),
            (data_uri(with_boxes), "noised, and what was seen"),
            (data_uri(cloud_picture(guess[i].clamp(-4, 4).numpy(), MADE)), "noise taken away"),
        )
        words = f"time {int(time[i])} of {model.config.times}; {seen} of {len(clean[i])} points were seen"
        figures.append(CloudFigure(key=batch.key[i], words=words, images=images))
    return tuple(figures)


def _seen(model: VoxelDiffusion, noised: Tensor, visible: Tensor) -> tuple[UInt8, int]:
    """A picture of noised points (N, 3) with the boxes of visible tokens (V,), and how many points lie in them."""
    c = model.config
    places = voxel_places(noised[None], c.resolution)
    seen = torch.isin(point_tokens(places, c.resolution, c.patch)[0], visible).numpy()
    middle = (c.resolution - 1) / 2
    low = torch.stack(torch.unravel_index(visible, (model.side,) * 3), dim=1) * c.patch - 0.5 - middle
    cube = (places[0] - middle).numpy()
    colours = marked(cube, seen, SEEN, FADED)
    boxes, side = low.float().numpy(), float(c.patch)
    return cloud_picture(cube, colours, boxes=boxes, box_side=side, reach=c.resolution / 2), int(seen.sum())


def _makings(made: Tensor, real: Tensor, label: Tensor, names: tuple[str, ...]) -> tuple[CloudFigure, ...]:
    nearest = chamfer_table(made[:, : real.shape[1]], real).argmin(dim=1)
    figures = []
    for number in torch.argsort(label, stable=True).tolist():
        of, beside = int(label[number]), int(label[nearest[number]])
        images = (
            (data_uri(cloud_picture(made[number].clamp(-4, 4).numpy(), MADE)), "made"),
            (data_uri(cloud_picture(real[nearest[number]].numpy())), "nearest real one"),
        )
        words = f"nearest is one of {_name(beside, names)}"
        figures.append(CloudFigure(key=_name(of, names), words=words, images=images))
    return tuple(figures)


def _name(label: int, names: tuple[str, ...]) -> str:
    return names[label] if 0 <= label < len(names) else "no category"


def _tokens(recipe: VoxelRecipe, model: VoxelDiffusion, batch: PointsBatch) -> str:
    visible = recipe.inputs(batch)[4]
    return f"{model.side**3}, of which the encoder sees {visible.shape[1]}"


def _flops(recipe: VoxelRecipe, model: VoxelDiffusion, batch: PointsBatch) -> str:
    """The floating point operations of a training step of one cloud, with masks and without."""
    points, noise, time, label, visible, weight = (part[:1] for part in recipe.inputs(batch))
    masked, whole = (
        step_flops(model, (points, noise, time, label, seen, weight))
        for seen in (visible, torch.arange(model.side**3)[None])
    )
    return f"{masked / 1e9:.2f} GFLOP a cloud, {masked / whole:.1%} of {whole / 1e9:.2f} without a mask"


def step_flops(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Floating point operations of a forward and a backward pass, as torch counts them, with attention on the CPU."""
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        model(*inputs).backward()
    model.zero_grad()
    return int(counter.get_total_flops())
