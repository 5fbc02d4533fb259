"""The noise prediction error of a diffusion model on held-out clouds, and its bounds, by noise level.

The upper bound is the error of a predictor that only uses the points' mean 0 and variance 1. The lower bound is the
error of a predictor with access to the clean cloud: it computes the posterior mean of the clean point, the mean of the
cloud's points weighted by their likelihood (Tweedie's formula). At late times the two bounds nearly meet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.read import PointAugment, PointSelection
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import Score

from .model import VoxelDiffusion, need_noise

MEASURED = 256
"""Maximum number of clouds that are measured, each with VIEWS times, noises and masks."""
VIEWS = 4
BANDS = ((0.9, 1.0), (0.5, 0.9), (0.1, 0.5), (0.0, 0.1))
"""Bands of the remaining fraction of the clouds' variance: (from, to)."""
DENSE, BOUND_POINTS = 8192, 128
"""Number of points that represent a cloud in the lower bound, and number of them that are denoised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedErrors:
    """Mean squared errors of the predicted noise.

    Attributes:
        model: Error without a mask.
        masked: Error with the recipe's masks.
        known: Upper bound, from mean and variance only.
        least: Lower bound, from the cloud itself.
    """

    model: float
    masked: float
    known: float
    least: float

    def scores(self, where: str, count: int) -> Iterator[Score]:
        """Yield the errors without and with masks, with the two bounds.

        Args:
            where: Noise level, to append to the names.
            count: Number of clouds.
        """
        for name, value in (("", self.model), (" with the recipe's masks", self.masked)):
            yield Score(
                name=f"squared error of the noise{name}{where}",
                value=value,
                of="clouds",
                count=count,
                baselines={"a predictor from mean and variance alone": self.known},
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseErrors:
    """The errors over all times, and over the times in each band that occurred: (from, to, errors)."""

    whole: MaskedErrors
    bands: tuple[tuple[float, float, MaskedErrors], ...]


def collect_held_out_batches(config: PointsData, data: Manifest) -> list[PointsBatch]:
    """Return batches of shuffled clouds with the recipe's masks at the start of a run; repeated calls return the same
    batches.

    Args:
        config: Data config of the run.
        data: The split.
    """
    n = min(len(data), MEASURED)
    plain = replace(config, views=VIEWS, augment=_plain(config))
    loader = plain.loader(data, batch_size=min(n, 32), seed=0, device="cpu", rank=0, world_size=1, steps=1_000_000)
    return [batch for batch, _ in zip(loader, range(max(n // 32, 1)), strict=False)]


@torch.inference_mode()
def measure_noise(config: PointsData, model: VoxelDiffusion, batches: list[PointsBatch], data: Manifest) -> NoiseErrors:
    """Measure the model's errors and their bounds.

    Args:
        config: Data config of the run.
        model: The model.
        batches: Batches with masks and noise.
        data: Their split.
    """
    dense = _read_dense_clouds(config, data, {key for batch in batches for key in batch.key})
    generator = torch.Generator().manual_seed(0)
    rows, kept = [], []
    for batch in batches:
        (noise, time, visible), label = need_noise(batch), batch.label
        noised = model.noise.noised(batch.points[..., :3], noise, time)
        share = model.noise.kept()[time]
        known = (1 - share).sqrt().float()[:, None, None] * noised
        guesses = (model.predict(noised, time, label), model.predict(noised, time, label, visible), known)
        errors = [(guess - noise).square().mean(dim=(1, 2)) for guess in guesses]
        least = [compute_bound_error(dense[key], float(a), generator) for key, a in zip(batch.key, share, strict=True)]
        rows.append(torch.stack((*errors, torch.tensor(least)), dim=1).double())
        kept.append(share)
    table, shares = torch.cat(rows), torch.cat(kept)
    chosen = [(low, high, table[(shares >= low) & (shares < high)]) for low, high in BANDS]
    return NoiseErrors(
        whole=_compute_mean(table),
        bands=tuple((low, high, _compute_mean(band)) for low, high, band in chosen if len(band)),
    )


def compute_bound_error(cloud: Tensor, kept: float, generator: torch.Generator) -> float:
    """Compute the lower bound of the error at one time, for a predictor with access to all points of the cloud except
    the noised one.

    If the noise is smaller than the distance between points, this predictor is worse than the one from mean and
    variance; the smaller of both errors is returned.

    Args:
        cloud: Points (N, 3).
        kept: Remaining fraction of variance.
        generator: Random generator.
    """
    points = cloud[torch.randperm(len(cloud), generator=generator)[:BOUND_POINTS]]
    noise = torch.randn(points.shape, generator=generator)
    noised = kept**0.5 * points + (1 - kept) ** 0.5 * noise
    far = torch.cdist(noised, kept**0.5 * cloud).square() / (2 * (1 - kept))
    itself = (points[:, None] == cloud).all(dim=2)
    clean = torch.softmax(-far.masked_fill(itself, float("inf")), dim=1) @ cloud
    errors = [
        ((noised - kept**0.5 * clean) / (1 - kept) ** 0.5 - noise).square().mean(),
        ((1 - kept) ** 0.5 * noised - noise).square().mean(),
    ]
    return float(torch.stack(errors).min())


def _read_dense_clouds(config: PointsData, data: Manifest, keys: set[str]) -> dict[str, Tensor]:
    """Return the clouds of the split with these keys, with DENSE points each, scaled as in the recipe."""
    dense = PointsData(select=PointSelection(points=DENSE), augment=_plain(config))
    loader = dense.loader(data, batch_size=1, shuffle=False, device="cpu", rank=0, world_size=1)
    return {batch.key[0]: batch.points[0, :, :3] for batch in loader if batch.key[0] in keys}


def _plain(config: PointsData) -> PointAugment:
    return PointAugment(normalise=config.augment.normalise)


def _compute_mean(rows: Tensor) -> MaskedErrors:
    model, masked, known, least = rows.mean(dim=0).tolist()
    return MaskedErrors(model=model, masked=masked, known=known, least=least)
