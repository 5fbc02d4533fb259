"""Evaluates a diffusion model of point clouds: noise errors on held-out clouds, and generated compared with real
clouds.

    measure     definition                                           source
    chamfer     the mean squared distance to the nearest point of    Fan et al., 2017
                the other cloud, summed over both directions
    coverage    the fraction of real clouds that are nearest to      Achlioptas et al., 2018
                some generated cloud; higher is better
    matching    the mean distance (MMD) from a real cloud to the     Achlioptas et al., 2018
                nearest generated one; lower is better
    accuracy    1-NNA: how often a cloud's nearest neighbour is      Lopez-Paz and Oquab, 2017;
                in the same set; 0.5 if both sets cannot be          for clouds Yang et al., 2019
                distinguished, 1 if they can

Clouds are generated from noise by the reverse diffusion, in all of its steps or fewer. With eta = 1 and all steps this
is the ancestral sampling of DDPM (Ho et al., 2020). With eta = 0 it is DDIM (Song et al., 2020), which is deterministic
and needs few steps.

Shapes: B clouds, N and M points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.read import PointAugment
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.model import need_mask
from maskstream.train.core.step import count_flops
from maskstream.train.evaluate.evaluation import Evaluation, Example, Score, TrainingLoss
from maskstream.train.nn.objectives import chamfer

from .model import VoxelDiffusion, VoxelDiffusionConfig, need_noise
from .noise_errors import VIEWS, collect_held_out_batches, measure_noise

_AT_ONCE = 1 << 24  # the most point distances held in memory at a time
COMPARED = 54
"""Maximum number of generated clouds, equal for all categories; they are compared with the same number of real ones."""
COMPARED_POINTS = 512
STEPS = 30
SHOWN_AT = (0.9, 0.7, 0.5, 0.3)
"""Remaining fractions of variance in the displayed noised clouds; the nearest measured ones are chosen."""
REMOVAL = (
    "Held-out clouds, clean and with the noise of one time step. With the mask, the encoder saw only the "
    "outlined tokens, which contain the orange points. On the right, the predicted noise was removed in a single "
    "step. This gives the mean of all possible clouds, so the more noise there was, the more blurred it is."
)
MAKING = (
    f"Clouds that the model generated from noise in {STEPS} steps for each category, and held-out real clouds of "
    "that category. They are the first ones, not a selection."
)


def compute_chamfer_table(a: Tensor, b: Tensor) -> Tensor:
    """Return the Chamfer distance between each cloud of two sets.

    Args:
        a: Clouds (A, N, 3).
        b: Clouds (B, M, 3).

    Returns:
        float (A, B).

    Raises:
        ValueError: A set is empty.
    """
    if not a.numel() or not b.numel():
        raise ValueError(f"both sets need at least one cloud, got the shapes {tuple(a.shape)} and {tuple(b.shape)}")
    step = max(1, _AT_ONCE // (a.shape[1] * b.shape[1]))
    parts = [b[i : i + step] for i in range(0, len(b), step)]
    rows = [torch.cat([chamfer(cloud.expand(len(part), -1, -1), part) for part in parts]) for cloud in a]
    return torch.stack(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudDistances:
    """The measures of generated clouds against real ones, by Chamfer distance; see the head of this file."""

    coverage: float
    matching: float
    accuracy: float


def compare_sets(made: Tensor, real: Tensor) -> CloudDistances:
    """Compare generated with real clouds on the same scale.

    Args:
        made: Generated clouds (A, N, 3).
        real: Real clouds (B, M, 3).

    Raises:
        ValueError: A set has fewer than 2 clouds.
    """
    if len(made) < 2 or len(real) < 2:
        raise ValueError(f"a comparison needs 2 or more clouds in each set, got {len(made)} and {len(real)}")
    across = compute_chamfer_table(made, real)
    whole = torch.cat(
        (
            torch.cat((compute_chamfer_table(made, made), across), dim=1),
            torch.cat((across.T, compute_chamfer_table(real, real)), dim=1),
        )
    )
    whole.fill_diagonal_(float("inf"))
    is_made = torch.arange(len(whole)) < len(made)
    nearest = whole.argmin(dim=1).cpu()
    return CloudDistances(
        coverage=len(set(across.argmin(dim=1).tolist())) / len(real),
        matching=float(across.amin(dim=0).mean()),
        accuracy=float((is_made[nearest] == is_made).float().mean()),
    )


@torch.inference_mode()
def sample_clouds(
    model: VoxelDiffusion,
    label: Tensor,
    generator: torch.Generator,
    *,
    points: int = 2048,
    steps: int = 50,
    eta: float = 0.0,
) -> Tensor:
    """Generate clouds.

    Args:
        model: The model, in eval mode.
        label: Label of each cloud, int64 (B,).
        generator: Random generator on the CPU, which determines the clouds.
        points: Points of a cloud.
        steps: Number of diffusion times, evenly spaced.
        eta: Fraction of DDPM's noise that is added in each step, in [0, 1].

    Returns:
        float32 (B, points, 3), on the model's device.

    Raises:
        ValueError: A setting is out of range.
    """
    times = model.noise.times
    if not 1 <= steps <= times or not 0 <= eta <= 1 or points < 1:
        raise ValueError(
            f"1 <= steps <= {times}, 0 <= eta <= 1 and points >= 1 must hold, got {steps=}, {eta=}, {points=}"
        )
    device = model.mask_token.device
    kept = torch.cat((model.noise.kept(), torch.ones(1, dtype=torch.float64)))
    at = torch.linspace(times - 1, 0, steps).round().long()
    label = label.to(device)
    x = _draw_normal(len(label), points, generator, device)
    for now, after in zip(at.tolist(), [*at[1:].tolist(), -1], strict=True):
        noise = model.predict(x, torch.full_like(label, now), label).float()
        a, b = float(kept[now]), float(kept[after])
        clean = (x - (1 - a) ** 0.5 * noise) / a**0.5
        spread = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        x = b**0.5 * clean + max(1 - b - spread**2, 0.0) ** 0.5 * noise
        if spread > 0:
            x = x + spread * _draw_normal(len(label), points, generator, device)
    return x


def _draw_normal(batch: int, points: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(batch, points, 3, generator=generator).to(device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated(Example):
    """Generated and real clouds float32 (B, N, 3) of the categories `label` int64 (B,)."""

    made: Tensor
    real: Tensor
    label: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoisedClouds(Example):
    """Clouds float32 (B, N, 3): clean, noised, and denoised by the model in one step, with the mask and without one.

    Attributes:
        keys: Keys of the clouds.
        clean: Clean clouds.
        noised: Noised clouds.
        masked: Clouds denoised with the mask.
        whole: Clouds denoised without a mask.
        kept: Remaining fraction of variance (B,).
        visible: Visible tokens of the mask (B, V).
        resolution: Voxels along an edge of the cube.
        patch: Voxels along an edge of a token.
    """

    keys: Sequence[str]
    clean: Tensor
    noised: Tensor
    masked: Tensor
    whole: Tensor
    kept: Tensor
    visible: Tensor
    resolution: int
    patch: int


def evaluate(model: VoxelDiffusion, config: PointsData, data: Manifest, shown: int) -> Evaluation:
    """Measure the held-out errors with their bounds, and compare generated with real clouds; repeated calls return the
    same results.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples.
    """
    batches = collect_held_out_batches(config, data)
    errors = measure_noise(config, model, batches, data)
    made, real, label = generate_beside_real(config, model, data)
    sets = compare_sets(made[:, :COMPARED_POINTS], real[:, :COMPARED_POINTS])
    first, whole, count = batches[0], errors.whole, sum(map(len, batches))
    sees = need_noise(first)[2].shape[1]
    masked, every = count_step_gflops(model, first)
    generated = (
        ("coverage of real clouds", sets.coverage, "%", False),
        ("matching distance to real clouds", sets.matching, "", True),
        ("nearest to a real cloud of their category", count_own_category(made, real, label) / len(made), "%", False),
    )
    return Evaluation(
        scores=(
            *whole.scores("", count),
            *(
                score
                for low, high, band in errors.bands
                for score in band.scores(f", {high:.0%} to {low:.0%} of the variance left", 0)
            ),
            *(
                Score(name=name, value=value, unit=unit, of="generated clouds", count=len(made), lower_is_better=lower)
                for name, value, unit, lower in generated
            ),
        ),
        notes={
            "squared error of the noise, lower bound": whole.least,
            **{f"the same, {high:.0%} to {low:.0%} of the variance left": one.least for low, high, one in errors.bands},
            "1-NNA of generated clouds (0.5 is best)": sets.accuracy,
            "tokens": model.side**3,
            "tokens that the encoder sees with masks": sees,
            "tokens that the encoder sees without": int(model.config.shown * model.side**3),
            "GFLOP of a step and cloud with masks": masked,
            "GFLOP of a step and cloud with every token visible": every,
        },
        examples=(
            Generated(title="Generated clouds", reading=MAKING, made=made, real=real, label=label),
            _denoise_clouds(model, first, shown),
        ),
        loss=TrainingLoss(
            name="The mean squared error of the predicted noise",
            baseline="a predictor from mean and variance alone",
            value=whole.known,
        ),
        learns="A masked diffusion model learns to predict the noise in clouds from a part of their tokens.",
    )


@torch.inference_mode()
def _denoise_clouds(model: VoxelDiffusion, batch: PointsBatch, shown: int) -> DenoisedClouds:
    (noise, time, visible), points, label = need_noise(batch), batch.points, batch.label
    kept = model.noise.kept()[time].float()
    first = torch.arange(0, len(batch), VIEWS)[:shown]
    wanted = torch.tensor([SHOWN_AT[i % len(SHOWN_AT)] for i in range(len(first))])
    views = first[:, None] + torch.arange(VIEWS)
    at = views.gather(1, (kept[views] - wanted[:, None]).abs().argmin(dim=1, keepdim=True))[:, 0]
    clean, share = points[at, :, :3], kept[at, None, None]
    noised = model.noise.noised(clean, noise[at], time[at])
    masked, whole = (
        (noised - (1 - share).sqrt() * model.predict(noised, time[at], label[at], seen)) / share.sqrt()
        for seen in (visible[at], None)
    )
    return DenoisedClouds(
        title="Denoised clouds",
        reading=REMOVAL,
        keys=[batch.key[number] for number in at.tolist()],
        clean=clean,
        noised=noised,
        masked=masked,
        whole=whole,
        kept=kept[at],
        visible=visible[at],
        resolution=model.resolution,
        patch=model.patch,
    )


def generate_beside_real(config: PointsData, model: VoxelDiffusion, data: Manifest) -> tuple[Tensor, Tensor, Tensor]:
    """Generate as many clouds as are read from a split.

    All categories have the same number of clouds if the split has enough of each; at most COMPARED in all.

    Args:
        config: Data config of the run.
        model: The model.
        data: The split.

    Returns:
        Generated and real clouds, float32 (B, N, 3) each, and their categories in ascending order, int64 (B,).

    Raises:
        ValueError: The split has fewer than 2 clouds.
    """
    plain = PointsData(select=config.select, augment=PointAugment(normalise=config.augment.normalise))
    loader = plain.loader(data, batch_size=1, device="cpu", rank=0, world_size=1)
    if len(loader) < 2:
        raise ValueError("a report compares generated clouds with real ones; use a split of 2 or more clouds")
    found: dict[int, list[Tensor]] = {}
    for batch in loader:
        found.setdefault(int(batch.label[0]), []).append(batch.points[0, :, :3])
    each = max(COMPARED // len(found), 1)
    chosen = [(label, points) for label in sorted(found) for points in found[label][:each]][:COMPARED]
    label = torch.tensor([label for label, _ in chosen])
    real = torch.stack([points for _, points in chosen])
    return sample_clouds(model, label, torch.Generator().manual_seed(0), points=real.shape[1], steps=STEPS), real, label


def count_own_category(made: Tensor, real: Tensor, label: Tensor) -> int:
    """Count the generated clouds whose nearest real cloud, by Chamfer distance, has the same label.

    Args:
        made: Generated clouds.
        real: Real clouds.
        label: Label of each pair.
    """
    nearest = compute_chamfer_table(made[:, :COMPARED_POINTS], real[:, :COMPARED_POINTS]).argmin(dim=1)
    return int((label[nearest] == label).sum())


def count_step_gflops(model: VoxelDiffusion, batch: PointsBatch) -> tuple[float, float]:
    """Return the billions of floating-point operations of a training step per cloud: with masks, and with all tokens
    visible.

    Args:
        model: The model.
        batch: A batch with masks and noise; only the first cloud is used.
    """
    noise, time, _ = need_noise(batch)
    mask = need_mask(batch.mask).rows(slice(1))
    one = PointsBatch(
        points=batch.points[:1], noise=noise[:1], time=time[:1], mask=mask, label=batch.label[:1], key=batch.key[:1]
    )
    every = replace(mask, visible=torch.arange(model.side**3)[None])
    masked = count_flops(model, lambda: model(one).loss())
    whole = count_flops(model, lambda: model(replace(one, mask=every)).loss())
    return masked / 1e9, whole / 1e9


EVALUATIONS = {VoxelDiffusionConfig: evaluate}
