"""Evaluates M3AE on images with texts that it was not trained on: hidden patches, hidden words, and matching."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.losses import LossPart, squared
from maskstream.train.evaluate.evaluation import NORMALISED, Compared, Evaluation, Score, TrainingLoss
from maskstream.train.evaluate.held_out import batches, trained_on
from maskstream.train.evaluate.ngrams import NGrams
from maskstream.train.evaluate.patches import PatchLosses, nearest_visible
from maskstream.train.nn.select import gather_tokens

from .answers import evaluate_answers
from .classifier import ImageTextClassifierConfig
from .model import ImageTextAutoencoder, ImageTextAutoencoderConfig

MEASURED = 512
"""The largest number of samples that are measured."""
COUNTED = 1 << 14
"""The largest number of texts whose ids are counted."""
_AT_ONCE = 32
READING = (
    "A held-out image and its text, what the encoder saw of the image, and both with the model's predictions in the "
    "places that were hidden. Patches are predicted from the visible ones and the whole text, words from the visible "
    "ones and the whole image. "
) + NORMALISED


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextLosses:
    """patches: the losses of hidden patches. words: the mean cross-entropy of `tokens` hidden tokens in nats; alone:
    that of the frequencies of ids; right: the share that is predicted. matched: the share of `pairs` pairs that are
    judged right.
    """

    patches: PatchLosses
    words: float
    alone: float
    right: float
    tokens: int
    matched: float
    pairs: int

    def scores(self) -> tuple[Score, ...]:
        """The figures; models are compared by that of patches."""
        return (
            self.patches.score("images"),
            Score(
                name="cross-entropy",
                value=self.words,
                unit="nats",
                of="hidden tokens",
                count=self.tokens,
                baselines={"counts of ids": self.alone},
            ),
            Score(
                name="predicted right",
                value=self.right,
                unit="%",
                of="hidden tokens",
                count=self.tokens,
                lower_is_better=False,
            ),
            Score(
                name="judged right",
                value=self.matched,
                unit="%",
                of="pairs",
                count=self.pairs,
                baselines={"a coin": 0.5},
                lower_is_better=False,
            ),
        )


@torch.inference_mode()
def image_text_losses(
    model: ImageTextAutoencoder, measured: Iterable[ImageTextBatch], counts: NGrams
) -> ImageTextLosses:
    """The losses on batches with masks and pairs. ValueError for no batch."""
    parts: list[tuple[LossPart, LossPart, LossPart]] = []
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
        pairs=samples,
    )


def held_out_samples(config: ImageTextData, data: str | Path) -> list[ImageTextBatch]:
    """Shuffled samples of the split with the recipe's masks and pairs, centre crops; the same each time."""
    n = min(len(Manifest.load(data)), MEASURED)
    size = min(n, _AT_ONCE)
    plain = replace(config, views=1, augment=CenterCrop(), colour=None)
    return list(batches(plain, data, size=size, samples=n // size * size, shuffle=True))


def evaluate(model: ImageTextAutoencoder, config: ImageTextData, data: str | Path, shown: int) -> Evaluation:
    """The losses on a held-out split with the recipe's masks; ids are counted in the split beside it."""
    plain = replace(config, image_mask=None, text_mask=None, pairs=False)
    known = batches(plain, trained_on(data), size=_AT_ONCE, samples=COUNTED)
    counts = NGrams.of((batch.texts for batch in known), model.config.vocabulary)
    measured = held_out_samples(config, data)
    found, first = image_text_losses(model, measured, counts), measured[0]
    with torch.inference_mode():
        made = model.reconstructed(first)
    rows = range(min(shown, len(first)))
    return Evaluation(
        scores=found.scores(),
        examples=(Compared(title="Predictions", reading=READING, batch=first, made=made, rows=rows),),
        loss=TrainingLoss(
            name="The sum of the errors of normalised patches, of the cross-entropy of hidden tokens and of the "
            "matching",
            baseline="every patch's mean, counts of ids, and a coin",
            value=found.patches.mean + found.alone + float(np.log(2)),
        ),
        learns="A masked autoencoder of images with texts learns to predict the parts of both that it was not shown.",
    )


EVALUATIONS = {ImageTextAutoencoderConfig: evaluate, ImageTextClassifierConfig: evaluate_answers}
