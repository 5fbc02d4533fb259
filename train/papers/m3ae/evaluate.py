"""Evaluates M3AE on images with texts that it was not trained on: hidden patches, hidden words, and matching."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ....pipelines.augment import CenterCrop
from ....pipelines.modalities.image_text.batch import ImageTextBatch
from ....pipelines.modalities.image_text.data import ImageTextData
from ....shards.format.manifest import Manifest
from ...core.losses import Part, squared
from ...evaluate.held_out import HeldOut, batches, margin, trained_on
from ...evaluate.ngrams import NGrams
from ...evaluate.patches import PatchLosses, nearest_visible
from ...nn.select import gather_tokens
from .model import ImageTextAutoencoder

MEASURED = 512
"""The largest number of samples that are measured."""
COUNTED = 1 << 14
"""The largest number of texts whose ids are counted."""
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextLosses:
    """patches: the losses of hidden patches. words: the mean cross-entropy of `tokens` hidden tokens in nats; alone:
    that of the frequencies of ids; right: the share that is predicted. matched: the share of pairs that are judged
    right.
    """

    patches: PatchLosses
    words: float
    alone: float
    right: float
    tokens: int
    matched: float

    def facts(self) -> dict[str, str]:
        """The figures by name."""
        return {
            **self.patches.facts(f"loss on {self.patches.samples} of these images"),
            f"loss on {self.tokens} hidden tokens": f"{self.words:.3f}, "
            f"{margin(self.words, self.alone, 'counts of ids')}",
            "tokens predicted right": f"{self.right:.1%}",
            "loss by counts of ids": f"{self.alone:.3f}",
            "pairs judged right": f"{self.matched:.1%} (half of them match)",
        }


@torch.inference_mode()
def image_text_losses(
    model: ImageTextAutoencoder, measured: Iterable[ImageTextBatch], counts: NGrams
) -> ImageTextLosses:
    """The losses on batches with masks and pairs. ValueError for no batch."""
    parts: list[tuple[Part, Part, Part]] = []
    losses, right, ids, matched = [], [], [], []
    for batch in measured:
        of = model.read(batch)
        true = model.tokens.targets(gather_tokens(of.patches, of.image.target))
        copied = model.tokens.targets(gather_tokens(of.patches, nearest_visible(of.image)))
        guesses = (model.predicted_patches(batch), torch.zeros_like(true), copied)
        own, mean, nearest = (squared(guess, true, of.image.weight) for guess in guesses)
        parts.append((own, mean, nearest))
        words, judged = model.judged(batch)
        real = of.text.weight > 0
        label = gather_tokens(batch.text.tokens, of.text.target)[real].long()
        losses.append(F.cross_entropy(words[real].float(), label, reduction="none"))
        right.append(words[real].argmax(dim=-1) == label)
        ids.append(label.numpy())
        matched.append(judged.argmax(dim=-1) == of.match.long())
    if not parts:
        raise ValueError("losses need at least one batch, got none; take a split with a sample in it")
    own_loss, mean_loss, nearest_loss = (
        float(sum(float(one.total) for one in column) / sum(float(one.weight) for one in column))
        for column in zip(*parts, strict=True)
    )
    samples = sum(map(len, matched))
    return ImageTextLosses(
        patches=PatchLosses(model=own_loss, mean=mean_loss, nearest=nearest_loss, samples=samples),
        words=float(torch.cat(losses).mean()),
        alone=float(counts.alone(np.concatenate(ids)).mean()),
        right=float(torch.cat(right).float().mean()),
        tokens=sum(map(len, ids)),
        matched=float(torch.cat(matched).float().mean()),
    )


def held_out_samples(config: ImageTextData, data: str | Path) -> list[ImageTextBatch]:
    """Shuffled samples of the split with the recipe's masks and pairs, centre crops; the same each time."""
    n = min(len(Manifest.load(data)), MEASURED)
    size = min(n, _AT_ONCE)
    plain = replace(config, views=1, augment=CenterCrop(), colour=None)
    return list(batches(plain, data, size=size, samples=n // size * size, shuffle=True))


def held_out(config: ImageTextData, model: ImageTextAutoencoder, data: str | Path) -> HeldOut:
    """The losses on a held-out split with the recipe's masks; ids are counted in the split beside it."""
    plain = replace(config, image_mask=None, text_mask=None, pairs=False)
    known = batches(plain, trained_on(data), size=_AT_ONCE, samples=COUNTED)
    counts = NGrams.of((batch.texts for batch in known), model.config.vocabulary)
    found = image_text_losses(model, held_out_samples(config, data), counts)
    return HeldOut(
        facts={
            "image": f"{config.size} px, patches of {config.patch} px",
            **found.facts(),
            "mask of images": repr(config.image_mask),
            "mask of texts": repr(config.text_mask),
        },
        learns="A masked autoencoder of images with texts learns to predict the parts of both that it was not shown.",
        loss="The sum of the errors of normalised patches, of the cross-entropy of hidden tokens and of the matching",
        baseline="every patch's mean, counts of ids, and a coin",
        baseline_loss=found.patches.mean + found.alone + float(np.log(2)),
        score=found.patches.score(),
    )
