"""Evaluates models of two views: the loss on the hidden patches of the second, compared with two baselines."""

from __future__ import annotations

from pathlib import Path

import torch

from ...pipelines.modalities.data import DataConfig
from ...pipelines.stream.sampler import BatchT
from ...shards.format.manifest import Manifest
from ..core.losses import squared
from ..core.select import gather_tokens
from ..models.cross_autoencoder import CrossAutoencoder
from .held_out import HeldOut, Score, batches, margin

MEASURED = 256
"""The largest number of samples that are measured."""
LEAST = 24
"""As many samples are measured at least: of a small split, other views of its samples."""
_AT_ONCE = 16


@torch.inference_mode()
def held_out(config: DataConfig[BatchT], model: CrossAutoencoder[BatchT], data: str | Path) -> HeldOut:
    """The loss on shuffled samples of the split with the recipe's own random views, the same at each call."""
    n = min(len(Manifest.load(data)), MEASURED)
    size = min(n, _AT_ONCE)
    samples, rounds = n // size * size, -(-LEAST // n)
    sums = torch.zeros(3)
    count = 0.0
    for batch in batches(config, data, size=size, samples=samples, shuffle=True, rounds=rounds):
        pair = model.pair(batch)
        true = model.tokens.targets(gather_tokens(model.tokens.split(pair.second), pair.target))
        copied = model.tokens.targets(gather_tokens(model.tokens.split(pair.first), pair.target))
        for i, made in enumerate((model.predict(pair), torch.zeros_like(true), copied)):
            sums[i] += squared(made, true, pair.weight).total
        count += float(pair.weight.sum())
    own, mean, first = (sums / count).tolist()
    return HeldOut(
        facts={
            f"loss on {samples * rounds} of these samples": f"{own:.3f}, "
            + margin(own, min(mean, first), "the better of the next two"),
            "loss of a copy of the same place in the first view": f"{first:.3f}",
            "loss of every patch's mean": f"{mean:.3f}",
        },
        score=Score(
            name="squared error of a normalised patch",
            value=own,
            baselines={"every patch's mean": mean, "a copy of the same place in the first view": first},
        ),
    )
