"""Evaluates how well a masked autoencoder predicts hidden patches, compared with two baselines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.train.core.losses import LossPart, squared
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder
from maskstream.train.nn.select import gather_tokens

from .evaluation import Score


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchLosses:
    """Mean losses on `samples` samples: the model's; that of predicting each patch's mean; and that of copying the
    normalised values of the nearest visible patch.
    """

    model: float
    mean: float
    nearest: float
    samples: int

    def score(self, of: str, patch: str = "patch") -> Score:
        """The model's loss, to be compared with the two others. of: what the samples are."""
        guesses = {f"every {patch}'s mean": self.mean, f"a copy of the nearest visible {patch}": self.nearest}
        name = f"squared error of a normalised {patch}"
        return Score(name=name, value=self.model, of=of, count=self.samples, baselines=guesses)


@torch.inference_mode()
def patch_losses(model: MaskedAutoencoder[BatchT], batches: Iterable[BatchT]) -> PatchLosses:
    """The losses on batches with masks; each target counts by its weight. Raises ValueError if there is no batch."""
    parts: list[tuple[LossPart, LossPart, LossPart]] = []
    samples = 0
    for batch in batches:
        data, mask = model.tokens.of(batch)
        tokens = model.tokens.split(data)
        true = model.tokens.targets(gather_tokens(tokens, mask.target))
        copied = model.tokens.targets(gather_tokens(tokens, nearest_visible(mask)))
        (own,) = model(batch).parts.values()
        parts.append((own, squared(torch.zeros_like(true), true, mask.weight), squared(copied, true, mask.weight)))
        samples += int((mask.weight.sum(dim=1) > 0).sum())
    if not parts:
        raise ValueError("losses need at least one batch, got none; take a split with a sample in it")
    own, mean, nearest = (
        float(sum(float(one.total) for one in column) / sum(float(one.weight) for one in column))
        for column in zip(*parts, strict=True)
    )
    return PatchLosses(model=own, mean=mean, nearest=nearest, samples=samples)


def nearest_visible(mask: MaskBatch) -> Tensor:
    """For each target, the number of the nearest visible token on the grid, int64 (B, M); ties go to the lowest."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in mask.grid.shape), indexing="ij")
    places = torch.stack([axis.flatten() for axis in axes], dim=1)
    near = []
    for target, visible, real in zip(mask.target, mask.visible, seen_tokens(mask), strict=True):
        apart = (places[target][:, None] - places[visible]).square_().sum(dim=2)
        near.append(visible[apart.masked_fill_(~real, torch.inf).argmin(dim=1)])
    return torch.stack(near)


def seen_tokens(mask: MaskBatch) -> Tensor:
    """Which entries of `mask.visible` show the encoder their content: bool (B, V)."""
    seen = mask.visible_valid
    return seen if mask.mask_token is None else seen & ~mask.mask_token.gather(1, mask.visible)
