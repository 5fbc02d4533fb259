"""A report's pictures of a diffusion model of clouds: noise that it took away, and clouds that it made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ....pipelines import points_loader
from ....pipelines.modalities.points.augment import PointAugment
from ....pipelines.modalities.points.batch import PointsBatch
from ....pipelines.modalities.points.data import PointsData
from ....pipelines.modalities.points.voxels import point_tokens, voxel_places
from ....pipelines.stream.sampler import BatchT
from ....shards.format.manifest import Manifest
from ....train.core.model import Model
from ....train.evaluate.point_distances import chamfer_table, compare_sets
from ....train.models.voxel_diffusion import VoxelDiffusion, noise_of
from ....train.models.voxel_sampling import sample_clouds
from ...figures.cloud_picture import FADED, INK, MADE, SEEN, cloud_picture, marked
from ...figures.pictures import UInt8, data_uri
from .clouds import CloudFigure, CloudRow, CloudSection, margin
from .pictures import Pictures
from .voxel_errors import VIEWS, held_out_batches, in_words, noise_errors

COMPARED = 54
"""As many clouds at most are made, of all categories alike, and compared with as many real ones."""
COMPARED_POINTS = 512
BESIDE = 4
"""As many made and real ones are shown of each category."""
STEPS = 30
SHOWN_AT = (0.9, 0.7, 0.5, 0.3)
"""What share of their variance the noised clouds that are shown have left, as near as there is one."""
REACH = 2.4
"""How far a picture reaches from a cloud's middle, in deviations of its coordinates."""


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

ERRORS = (
    "How much lower the squared error of the predicted noise is on held-out clouds than that of who knows only that "
    "points have mean 0 and variance 1, by how much of a cloud is left in the noise. The greatest margin possible is "
    "that of who knows the very cloud: where a point went cannot be known, and in deep noise even a shape says little."
)
REMOVAL = (
    "A held-out cloud, and with the noise of one time. With the mask the encoder saw only the tokens whose boxes are "
    "drawn, and so the points in orange. To the right is what is left when the noise that the model predicts is taken "
    "away in a single step: the mean of all that the cloud may have been, the more blurred the more noise there was."
)
MAKING = (
    f"What the model made of noise in {STEPS} steps for each category, and real clouds of it that it has not seen. "
    "None of them is chosen: they are the first ones."
)


def report_pictures(config: PointsData, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """The held-out loss beside those of trivial predictors, `shown` clouds and as many made ones, always the same."""
    if not isinstance(model, VoxelDiffusion):
        raise ValueError(f"clouds are made by a VoxelDiffusion, got {type(model).__name__}")
    batches = held_out_batches(config, data)
    errors = noise_errors(config, model, batches, data)
    names = tuple(map(str, Manifest.load(data).info.get("label_names", ())))
    made, real, label = made_and_real(config, model, data)
    sets = compare_sets(made[:, :COMPARED_POINTS], real[:, :COMPARED_POINTS])
    own, whole = own_category(made, real, label), errors.whole
    facts = {
        "noise error, held-out clouds": f"{whole.model:.4f}, {margin(whole.model, whole.known)} the next",
        "knowing mean and variance only": f"{whole.known:.4f}",
        "knowing the very cloud": f"{whole.least:.4f}, {margin(whole.least, whole.known)}: the least possible",
        "with the recipe's masks": f"{whole.masked:.4f}, {margin(whole.masked, whole.known)}",
        f"{len(made)} made clouds beside real ones": f"coverage {sets.coverage:.2f}, 1-NNA {sets.accuracy:.2f} "
        f"(0.5 is best), matching {sets.matching:.3f}",
        "made clouds nearest to a real one of their category": f"{own} of {len(made)}",
        "tokens": _tokens(model, batches[0]),
        "arithmetic of a step": _flops(model, batches[0]),
        "mask": repr(config.mask),
    }
    numbers = tuple((f"{high:.0%} to {low:.0%} left", in_words(band)) for low, high, band in errors.bands)
    sections = (
        CloudSection(title="Clouds that the model made", words=MAKING, figures=_makings(made, real, label, names)),
        CloudSection(title="What was learned, by the amount of noise", words=ERRORS, numbers=numbers),
        CloudSection(
            title="Noise that the model took away",
            words=REMOVAL,
            figures=_removals(model, batches[0], shown),
        ),
    )
    return Pictures(
        template="points.html.j2",
        context={"sections": sections},
        facts=facts,
        learns="A masked diffusion model learns to tell the noise in clouds of which its encoder sees a part.",
        loss="The mean squared error of the predicted noise",
        guess="knowing mean and variance only",
        guess_loss=whole.known,
    )


def made_and_real(config: PointsData, model: VoxelDiffusion, data: str | Path) -> tuple[Tensor, Tensor, Tensor]:
    """Clouds that the model makes, as many real ones of the same categories, float32 (B, N, 3) each, and those, int64
    (B,), rising: of every category the same number where there are enough, at most COMPARED in all.
    """
    loader = points_loader(
        data, select=config.select, augment=PointAugment(normalise=config.augment.normalise), batch_size=1, device="cpu"
    )
    if len(loader) < 2:
        raise ValueError("a report compares made clouds with real ones; the split needs 2 or more")
    found: dict[int, list[Tensor]] = {}
    for batch in loader:
        found.setdefault(int(batch.label[0]), []).append(batch.points[0, :, :3])
    each = max(COMPARED // len(found), 1)
    chosen = [(label, points) for label in sorted(found) for points in found[label][:each]][:COMPARED]
    label = torch.tensor([label for label, _ in chosen])
    real = torch.stack([points for _, points in chosen])
    return sample_clouds(model, label, torch.Generator().manual_seed(0), points=real.shape[1], steps=STEPS), real, label


def own_category(made: Tensor, real: Tensor, label: Tensor) -> int:
    """How many of the made clouds are nearest, by Chamfer distance, to a real one of their own label."""
    nearest = chamfer_table(made[:, :COMPARED_POINTS], real[:, :COMPARED_POINTS]).argmin(dim=1)
    return int((label[nearest] == label).sum())


@torch.inference_mode()
def _removals(model: VoxelDiffusion, batch: PointsBatch, shown: int) -> tuple[CloudFigure, ...]:
    (noise, time, visible), points, label = noise_of(batch), batch.points, batch.label
    kept = model.noise.kept()[time].float()
    first = torch.arange(0, len(batch), VIEWS)[:shown]
    wanted = torch.tensor([SHOWN_AT[i % len(SHOWN_AT)] for i in range(len(first))])
    views = first[:, None] + torch.arange(VIEWS)
    at = views.gather(1, (kept[views] - wanted[:, None]).abs().argmin(dim=1, keepdim=True))[:, 0]
    clean, share = points[at, :, :3], kept[at, None, None]
    noised = model.noise.noised(clean, noise[at], time[at])
    guesses = [
        (noised - (1 - share).sqrt() * model.predict(noised, time[at], label[at], seen)) / share.sqrt()
        for seen in (visible[at], None)
    ]
    figures = []
    for i, number in enumerate(at.tolist()):
        with_boxes, seen_points = _seen(model, noised[i], visible[number])
        images = (
            (_picture(clean[i]), "original"),
            (data_uri(with_boxes), "noised, with what a mask shows"),
            (_picture(guesses[0][i], MADE), "denoised with the mask"),
            (_picture(guesses[1][i], MADE), "without a mask"),
        )
        words = f"{share[i].item():.0%} of its variance is left; the mask shows {seen_points} of {len(clean[i])} points"
        figures.append(CloudFigure(key=batch.key[number], words=words, rows=(CloudRow(images=images),)))
    return tuple(figures)


def _picture(points: Tensor, colour: tuple[int, int, int] = INK) -> str:
    return data_uri(cloud_picture(points.clamp(-REACH, REACH).numpy(), colour, reach=REACH))


def _seen(model: VoxelDiffusion, noised: Tensor, visible: Tensor) -> tuple[UInt8, int]:
    """A picture of noised points (N, 3) with the boxes of visible tokens (V,), and how many points lie in them."""
    resolution, patch = model.resolution, model.patch
    places = voxel_places(noised[None], resolution)
    seen = torch.isin(point_tokens(places, resolution, patch)[0], visible).numpy()
    middle = (resolution - 1) / 2
    low = torch.stack(torch.unravel_index(visible, (model.side,) * 3), dim=1) * patch - 0.5 - middle
    cube = (places[0] - middle).numpy()
    colours = marked(cube, seen, SEEN, FADED)
    boxes, side = low.float().numpy(), float(patch)
    return cloud_picture(cube, colours, boxes=boxes, box_side=side, reach=resolution / 2), int(seen.sum())


def _makings(made: Tensor, real: Tensor, label: Tensor, names: tuple[str, ...]) -> tuple[CloudFigure, ...]:
    figures = []
    for of in sorted(set(label.tolist())):
        chosen = (label == of).nonzero()[:BESIDE, 0].tolist()
        rows = (
            CloudRow(name="made", images=tuple((_picture(made[i], MADE), "") for i in chosen)),
            CloudRow(name="real", images=tuple((_picture(real[i]), "") for i in chosen)),
        )
        figures.append(CloudFigure(key=_name(of, names), words="", rows=rows))
    return tuple(figures)


def _name(label: int, names: tuple[str, ...]) -> str:
    return names[label] if 0 <= label < len(names) else "no category"


def _tokens(model: VoxelDiffusion, batch: PointsBatch) -> str:
    visible, without = noise_of(batch)[2].shape[1], int(model.config.shown * model.side**3)
    return f"{model.side**3}, of which the encoder sees {visible} with masks and {without} without"


def _flops(model: VoxelDiffusion, batch: PointsBatch) -> str:
    """The floating point operations of a training step of one cloud, with masks and with every token visible."""
    noise, time, _ = noise_of(batch)
    if batch.mask is None:
        raise ValueError("the loader gives no masks; build it with mask=")
    mask = batch.mask.rows(slice(1))
    one = PointsBatch(
        points=batch.points[:1], noise=noise[:1], time=time[:1], mask=mask, label=batch.label[:1], key=batch.key[:1]
    )
    every = replace(mask, visible=torch.arange(model.side**3)[None])
    masked, whole = (step_flops(model, replace(one, mask=mask)) for mask in (mask, every))
    return f"{masked / 1e9:.2f} GFLOP a cloud, {masked / whole:.0%} of {whole / 1e9:.2f} with every token visible"


def step_flops(model: Model[BatchT], batch: BatchT) -> int:
    """Floating point operations of a forward and a backward pass, as torch counts them, with attention on the CPU."""
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        model(batch).loss().backward()
    model.zero_grad()
    return int(counter.get_total_flops())
