"""Evaluates a classifier of texts on held-out ones, compared with class frequencies and with counts of ids by class."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.shards.arrays import Bools, Float64s, Int32s
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import (
    Evaluation,
    Score,
    ShownSamples,
    TrainingLoss,
    read_first,
    read_shuffled,
    trained_on,
)

from .model import TextClassifier, TextClassifierConfig

MEASURED = 4096
"""Maximum number of texts that are measured."""
COUNTED = 1 << 15
"""Maximum number of texts whose ids are counted."""
_AT_ONCE = 64
READING = "Held-out texts, with the model's class under each."


@dataclass(frozen=True, kw_only=True, slots=True)
class IdsByClass:
    """How often each id occurs in the texts of each class, float64 (classes, vocabulary); texts: number of texts per
    class.
    """

    counts: Float64s
    texts: Float64s

    @classmethod
    def of(cls, known: Iterable[TextBatch], classes: int, vocabulary: int) -> Self:
        """Count the ids of labelled texts by class.

        Args:
            known: Batches of texts.
            classes: Number of classes.
            vocabulary: Number of possible ids.
        """
        counts, texts = np.zeros((classes, vocabulary)), np.zeros(classes)
        for batch in known:
            for ids, real, label in _rows(batch):
                np.add.at(counts[label], ids[real], 1)
                texts[label] += 1
        return cls(counts=counts, texts=texts)

    def guesses(self, batch: TextBatch) -> list[int]:
        """Return the class of each labelled text by naive Bayes with add-one smoothing (McCallum and Nigam, 1998)."""
        share = np.log((self.counts + 1) / (self.counts + 1).sum(axis=1, keepdims=True))
        prior = np.log((self.texts + 1) / (self.texts + 1).sum())
        return [int((prior + share[:, ids[real]].sum(axis=1)).argmax()) for ids, real, _ in _rows(batch)]


def evaluate(model: TextClassifier, config: TextData, data: Manifest, shown: int) -> Evaluation:
    """Measure the right classes on a held-out split; ids are counted in its training split.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.

    Raises:
        ValueError: No text has a label.
    """
    plain = replace(config, mask=None, scores=None, fields=())
    classes = model.settings.most_labels or 0
    counts = IdsByClass.of(
        read_shuffled(plain, trained_on(data), most=COUNTED, size=_AT_ONCE), classes, model.vocabulary
    )
    labels: list[int] = []
    found: list[int] = []
    counted: list[int] = []
    loss = 0.0
    with torch.inference_mode():
        for batch in read_shuffled(plain, data, most=MEASURED, size=_AT_ONCE):
            real = batch.label >= 0
            scores = model.scores(batch)[real]
            loss += float(F.cross_entropy(scores, batch.label[real], reduction="sum"))
            found += scores.argmax(dim=1).tolist()
            labels += batch.label[real].tolist()
            counted += counts.guesses(batch)
    if not labels:
        raise ValueError(f"{data} has no labelled texts, but a classifier is evaluated on texts with one label each")
    frequency = (counts.texts + 1) / (counts.texts + 1).sum()
    prior = float(-np.log(frequency)[labels].mean())
    guesses = {
        "the most frequent class": _measure_right([int(counts.texts.argmax())] * len(labels), labels),
        "naive Bayes over ids": _measure_right(counted, labels),
    }
    batch = read_first(config, data, shown)
    with torch.inference_mode():
        said = model.scores(batch).argmax(dim=1).tolist()
    return Evaluation(
        scores=(
            Score.share("right classes", _measure_right(found, labels), "texts", len(labels), guesses),
            Score(
                name="cross-entropy",
                value=loss / len(labels),
                unit="nats",
                of="texts",
                count=len(labels),
                baselines={"the frequencies of classes": prior},
            ),
        ),
        examples=(ShownSamples(title="Classes", reading=READING, batch=batch, rows=range(len(said)), answers=said),),
        loss=TrainingLoss(
            name="The mean cross-entropy of the classes in nats", baseline="the frequencies of classes", value=prior
        ),
        learns="A classifier learns the classes of texts.",
    )


def _measure_right(guesses: list[int], labels: list[int]) -> float:
    """Return the fraction of right classes."""
    return sum(a == b for a, b in zip(guesses, labels, strict=True)) / len(labels)


def _rows(batch: TextBatch) -> Iterable[tuple[Int32s, Bools, int]]:
    """Yield the ids of each labelled text, which of them are words, and the label."""
    tokens, words = batch.tokens.numpy(), batch.words.numpy()
    for row, label in enumerate(batch.label.tolist()):
        if label >= 0:
            yield tokens[row], words[row] >= 0, label


EVALUATIONS = {TextClassifierConfig: evaluate}
