"""Evaluates answers to questions about images, by the kind of the question, compared with answers without looking."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import log
from pathlib import Path

import torch

from maskstream.pipelines.modalities.fields import Field
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import Evaluation, Score, ShownSamples, TrainingLoss
from maskstream.train.evaluate.held_out import batches, first_batch, trained_on
from maskstream.train.evaluate.scores import KIND

from .classifier import ImageTextClassifier

MEASURED = 2048
"""The largest number of questions that are measured."""
KNOWN = 1 << 13
"""The largest number of questions whose answers are counted for the priors."""
_AT_ONCE = 64
READING = "Held-out questions, with the model's answer under each."
Shares = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """The share of right answers by kind of question, "all" first.

    model: the model's. frequent: of always giving the most frequent answer. unseen: of giving the most frequent answer
    to the same words, without the image. questions: how many there are. prior_loss: the loss of the answers'
    frequencies in nats.
    """

    model: Shares
    frequent: Shares
    unseen: Shares
    questions: Mapping[str, int]
    prior_loss: float

    def scores(self) -> Iterator[Score]:
        """The figures by kind."""
        for kind, count in self.questions.items():
            yield Score(
                name="right answers" if kind == "all" else f"right answers, {kind}",
                value=self.model[kind],
                unit="%",
                of="questions",
                count=count,
                baselines={
                    "the most frequent answer": self.frequent[kind],
                    "that to the same words": self.unseen[kind],
                },
                lower_is_better=False,
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Priors:
    """The frequencies of labels in a split, and the most frequent label of each row of tokens in it."""

    counts: Mapping[int, int]
    of_words: Mapping[tuple[int, ...], int]

    @classmethod
    def of(cls, known: Iterable[ImageTextBatch]) -> Priors:
        """Those of labelled batches."""
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
        """The most frequent label."""
        return max(self.counts, key=lambda label: (self.counts[label], -label))

    def loss(self, label: int) -> float:
        """-log of the frequency of a label, in nats; a label that never occurred counts as one that did once."""
        return -log(max(self.counts.get(label, 0), 1) / sum(self.counts.values()))


@torch.inference_mode()
def answers(model: ImageTextClassifier, measured: Iterable[ImageTextBatch], priors: Priors) -> Answers:
    """The right answers on batches, in which questions without a label count as wrong. ValueError for no batch."""
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
        raise ValueError("answers need at least one batch, got none; take a split with a question in it")
    kinds_found = ["all", *sorted(kind for kind in right if kind != "all")]
    shares = [{kind: sum(row[i] for row in right[kind]) / len(right[kind]) for kind in kinds_found} for i in range(3)]
    return Answers(
        model=shares[0],
        frequent=shares[1],
        unseen=shares[2],
        questions={kind: len(right[kind]) for kind in kinds_found},
        prior_loss=sum(losses) / max(len(losses), 1),
    )


def measured_answers(
    config: ImageTextData, model: ImageTextClassifier, data: str | Path, train: str | Path | None = None
) -> Answers:
    """The answers to shuffled questions of a split; train: what the priors are of, by default `trained_on(data)`."""
    known = replace(config, image_mask=None, text_mask=None, fields=())
    n = min(len(Manifest.load(data)), MEASURED)
    size, before = min(n, _AT_ONCE), train or trained_on(data)
    counted = min(len(Manifest.load(before)), KNOWN)
    priors = Priors.of(batches(known, before, size=min(counted, _AT_ONCE), samples=counted, shuffle=True))
    asked = replace(known, fields=(Field(name=KIND, default=""),))
    return answers(model, batches(asked, data, size=size, samples=n // size * size, shuffle=True), priors)


def evaluate_answers(model: ImageTextClassifier, config: ImageTextData, data: str | Path, shown: int) -> Evaluation:
    """The right answers on a held-out split, compared with answers without looking."""
    found, batch = measured_answers(config, model, data), first_batch(config, data, shown)
    with torch.inference_mode():
        said = model.scores(batch).argmax(dim=1).tolist()
    return Evaluation(
        scores=tuple(found.scores()),
        examples=(ShownSamples(title="Answers", reading=READING, batch=batch, rows=range(len(said)), answers=said),),
        loss=TrainingLoss(
            name="The mean cross-entropy of the answers in nats",
            baseline="the frequencies of answers",
            value=found.prior_loss,
        ),
        learns="A classifier learns the answers to questions about images.",
    )
