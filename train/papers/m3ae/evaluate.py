"""Evaluates M3AE on images with texts that it was not trained on: patches, words, matching, answers to questions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import log

import numpy as np
import torch
import torch.nn.functional as F

from maskstream.pipelines.modalities.fields import Field
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.model import LossPart, squared
from maskstream.train.evaluate.evaluation import (
    KIND,
    NORMALISED,
    Compared,
    Evaluation,
    Score,
    ShownSamples,
    TrainingLoss,
    centred,
    read_batches,
    read_first,
    read_shuffled,
    trained_on,
)
from maskstream.train.evaluate.hidden_ids import NGrams, score_ids
from maskstream.train.evaluate.patches import PatchLosses, find_nearest_visible
from maskstream.train.nn.grid import gather_tokens

from .model import ImageTextAutoencoder, ImageTextAutoencoderConfig, ImageTextClassifier, ImageTextClassifierConfig

ASKED = 2048
"""Maximum number of questions that are measured."""
KNOWN = 1 << 13
"""Maximum number of questions whose answers are counted for the priors."""
_ASKED_AT_ONCE = 64
ANSWERS_READING = "Held-out questions, with the model's answer under each."
Shares = dict[str, float]
COUNTS = "counts of ids"
MEASURED = 512
"""The largest number of samples that are measured."""
COUNTED = 1 << 14
"""Maximum number of texts whose ids are counted."""
_AT_ONCE = 32
READING = (
    "A held-out image and its text, the part of the image that the encoder saw, and both with the model's predictions "
    "of hidden parts. Patches are predicted from the visible ones and the whole text, words from the visible ones and "
    "the whole image. "
) + NORMALISED


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """Accuracies by kind of question, "all" first.

    Attributes:
        model: Accuracy of the model.
        frequent: Accuracy of the most frequent answer.
        unseen: Accuracy of the most frequent answer to the same words, without the image.
        questions: Number of questions.
        prior_loss: Loss of the answers' frequencies, in nats.
    """

    model: Shares
    frequent: Shares
    unseen: Shares
    questions: Mapping[str, int]
    prior_loss: float

    def scores(self) -> Iterator[Score]:
        """Yield the accuracies by kind."""
        for kind, count in self.questions.items():
            name = "right answers" if kind == "all" else f"right answers, {kind}"
            guesses = {"the most frequent answer": self.frequent[kind], "that to the same words": self.unseen[kind]}
            yield Score.share(name, self.model[kind], "questions", count, guesses)


@dataclass(frozen=True, kw_only=True, slots=True)
class Priors:
    """The frequencies of labels in a split, and the most frequent label of each row of tokens in it."""

    counts: Mapping[int, int]
    of_words: Mapping[tuple[int, ...], int]

    @classmethod
    def of(cls, known: Iterable[ImageTextBatch]) -> Priors:
        """Count the answers of labelled batches."""
        every: Counter[int] = Counter()
        by_words: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for batch in known:
            for tokens, label in zip(batch.text.tokens.tolist(), batch.label.tolist(), strict=True):
                if label >= 0:
                    every[label] += 1
                    by_words[tuple(tokens)][label] += 1
        most = {words: counts.most_common(1)[0][0] for words, counts in by_words.items()}
        return cls(counts=every, of_words=most)

    @property
    def label(self) -> int:
        """Most frequent label."""
        return max(self.counts, key=lambda label: (self.counts[label], -label))

    def loss(self, label: int) -> float:
        """Return -log of the frequency of a label, in nats; a label that never occurred counts as if it had occurred
        once.
        """
        return -log(max(self.counts.get(label, 0), 1) / sum(self.counts.values()))


@torch.inference_mode()
def measure_answers(model: ImageTextClassifier, measured: Iterable[ImageTextBatch], priors: Priors) -> Answers:
    """Measure accuracy; questions without a label count as wrong.

    Args:
        model: The model, in eval mode.
        measured: Batches of questions.
        priors: Counts for the baselines.

    Raises:
        ValueError: `measured` is empty.
    """
    right: dict[str, list[tuple[bool, bool, bool]]] = {"all": []}
    losses: list[float] = []
    for batch in measured:
        kinds = batch.fields.get(KIND, [""] * len(batch))
        found = model.scores(batch).argmax(dim=1).tolist()
        for i, label in enumerate(batch.label.tolist()):
            if batch.weight is not None and not batch.weight[i]:
                continue
            words = priors.of_words.get(tuple(batch.text.tokens[i].tolist()), priors.label)
            losses += [priors.loss(label)] if label >= 0 else []
            row = (found[i] == label, priors.label == label, words == label)
            for kind in ("all", str(kinds[i])):
                right.setdefault(kind, []).append(row)
    right.pop("", None)
    if not right["all"]:
        raise ValueError("answers need at least one batch, got none; use a split with at least one question")
    kinds_found = ["all", *sorted(kind for kind in right if kind != "all")]
    shares = [{kind: sum(row[i] for row in right[kind]) / len(right[kind]) for kind in kinds_found} for i in range(3)]
    return Answers(
        model=shares[0],
        frequent=shares[1],
        unseen=shares[2],
        questions={kind: len(right[kind]) for kind in kinds_found},
        prior_loss=sum(losses) / max(len(losses), 1),
    )


def measure_held_out(
    config: ImageTextData, model: ImageTextClassifier, data: Manifest, train: Manifest | None = None
) -> Answers:
    """Measure the answers to shuffled questions of a split.

    Args:
        config: Data config of the run.
        model: The model.
        data: The split.
        train: Split of the baselines; defaults to `trained_on(data)`.
    """
    known = replace(config, image_mask=None, text_mask=None, fields=())
    before = train or trained_on(data)
    counted = min(len(before), KNOWN)
    priors = Priors.of(read_batches(known, before, size=min(counted, _ASKED_AT_ONCE), samples=counted, shuffle=True))
    asked = replace(known, fields=(Field(name=KIND, default=""),))
    return measure_answers(model, read_shuffled(asked, data, most=ASKED, size=_ASKED_AT_ONCE), priors)


def evaluate_answers(model: ImageTextClassifier, config: ImageTextData, data: Manifest, shown: int) -> Evaluation:
    """Measure the right answers on a held-out split, compared with answers that ignore the image.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    found, batch = measure_held_out(config, model, data), read_first(config, data, shown)
    with torch.inference_mode():
        said = model.scores(batch).argmax(dim=1).tolist()
    return Evaluation(
        scores=tuple(found.scores()),
        examples=(
            ShownSamples(title="Answers", reading=ANSWERS_READING, batch=batch, rows=range(len(said)), answers=said),
        ),
        loss=TrainingLoss(
            name="The mean cross-entropy of the answers in nats",
            baseline="the frequencies of answers",
            value=found.prior_loss,
        ),
        learns="A classifier learns the answers to questions about images.",
    )


@torch.inference_mode()
def measure_losses(
    model: ImageTextAutoencoder, measured: Iterable[ImageTextBatch], counts: NGrams
) -> tuple[PatchLosses, tuple[Score, ...]]:
    """Measure predictions of hidden patches, hidden tokens and pairs.

    Args:
        model: The model, in eval mode.
        measured: Batches with masks and pairs.
        counts: Counts of ids for the baseline.

    Returns:
        Losses of hidden patches, and the scores: of patches, by which models are compared, of hidden tokens, and of
        pairs.

    Raises:
        ValueError: `measured` is empty.
    """
    parts: list[tuple[LossPart, LossPart, LossPart]] = []
    losses, right, ids, matched = [], [], [], []
    for batch in measured:
        of = model.read(batch)
        true = model.tokens.targets(gather_tokens(of.patches, of.image.target))
        copied = model.tokens.targets(gather_tokens(of.patches, find_nearest_visible(of.image)))
        guesses = (model.predict_patches(batch), torch.zeros_like(true), copied)
        own, mean, nearest = (squared(guess, true, of.image.weight) for guess in guesses)
        parts.append((own, mean, nearest))
        words, judged = model.judged(batch)
        real = of.text.weight > 0
        label = gather_tokens(batch.text.tokens, of.text.target)[real].long()
        losses.append(F.cross_entropy(words[real].float(), label, reduction="none"))
        right.append(words[real].argmax(dim=-1) == label)
        ids.append(label.numpy())
        matched.append(judged.argmax(dim=-1) == of.match.long())
    samples = sum(map(len, matched))
    patches = PatchLosses.of(parts, samples)
    of_words = score_ids(
        "hidden tokens",
        sum(map(len, ids)),
        loss=float(torch.cat(losses).mean()),
        losses={COUNTS: float(counts.alone(np.concatenate(ids)).mean())},
        right=float(torch.cat(right).float().mean()),
    )
    judged_right = float(torch.cat(matched).float().mean())
    pairs = Score.share("judged right", judged_right, "pairs", samples, {"a coin": 0.5})
    return patches, (patches.score("images"), *of_words, pairs)


def held_out_samples(config: ImageTextData, data: Manifest) -> list[ImageTextBatch]:
    """Return shuffled samples of a split with the recipe's masks and pairs and centre crops; repeated calls return the
    same samples.

    Args:
        config: Settings of the data.
        data: The split.
    """
    return list(read_shuffled(centred(config), data, most=MEASURED, size=_AT_ONCE))


def evaluate(model: ImageTextAutoencoder, config: ImageTextData, data: Manifest, shown: int) -> Evaluation:
    """Measure the losses on a held-out split with the recipe's masks; ids are counted in its training split.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    plain = replace(config, image_mask=None, text_mask=None, pairs=False)
    known = read_batches(plain, trained_on(data), size=_AT_ONCE, samples=COUNTED)
    counts = NGrams.of((batch.texts for batch in known), model.config.vocabulary)
    measured = held_out_samples(config, data)
    (patches, scores), first = measure_losses(model, measured, counts), measured[0]
    with torch.inference_mode():
        made = model.reconstructed(first)
    rows = range(min(shown, len(first)))
    return Evaluation(
        scores=scores,
        examples=(Compared(title="Predictions", reading=READING, batch=first, made=made, rows=rows),),
        loss=TrainingLoss(
            name="The sum of the errors of normalised patches, of the cross-entropy of hidden tokens and of the "
            "matching",
            baseline="every patch's mean, counts of ids, and a coin",
            value=patches.mean + scores[1].baselines[COUNTS] + float(np.log(2)),
        ),
        learns="A masked autoencoder of images with texts learns to predict the parts of both that it was not shown.",
    )


EVALUATIONS = {ImageTextAutoencoderConfig: evaluate, ImageTextClassifierConfig: evaluate_answers}
