"""The results of an evaluation: scores, and examples from which pages make figures. Scores contain no prose.

Held-out samples are the same at each call. Classification is scored by accuracy, F1 and mAP, and text by VQA accuracy,
exact match and ROUGE-L.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.config.base import Json
from maskstream.shards.format.dataset import store_beside
from maskstream.shards.format.manifest import Manifest

DataT = TypeVar("DataT", bound=DataConfig[Any])
NORMALISED = (
    "The model predicts normalised tokens, without their mean and contrast. To draw them, each prediction was "
    "given the mean and the standard deviation of the true token, so judge only the pattern inside it. A model "
    "that learned nothing draws flat squares."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One score of a model on held-out samples.

    Attributes:
        name: Name of the score.
        value: Its value.
        unit: Unit, such as "nats"; "%" for a fraction of 1, "" for none.
        of: Kind of the measured items, such as "samples".
        count: Number of measured items.
        baselines: Values of untrained predictors by name.
        lower_is_better: Whether lower values are better.
    """

    name: str
    value: float
    unit: str = ""
    of: str = "samples"
    count: int = 0
    baselines: Mapping[str, float] = field(default_factory=dict)
    lower_is_better: bool = True

    @classmethod
    def share(
        cls, name: str, value: float, of: str, count: int = 0, baselines: Mapping[str, float] | None = None
    ) -> Self:
        """Return a score that is a fraction of 1, where higher is better.

        Args:
            name: Name of the score.
            value: Its value, in [0, 1].
            of: Kind of the measured items.
            count: Number of measured items.
            baselines: Values of untrained predictors by name.
        """
        guesses = {} if baselines is None else baselines
        return cls(name=name, value=value, unit="%", of=of, count=count, baselines=guesses, lower_is_better=False)

    @property
    def best(self) -> str:
        """The name of the best baseline."""
        return (min if self.lower_is_better else max)(self.baselines, key=lambda name: self.baselines[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """An example for a page; `reading` explains it."""

    title: str
    reading: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared(Example):
    """Rows of a batch next to the model's reconstructions.

    Attributes:
        batch: The original batch.
        made: The batch as completed by the model.
        rows: Rows to show.
        guess: The batch as completed by a baseline.
        errors: Errors of each row, by name.
        wide: Whether a row needs the full page width.
    """

    batch: Any
    made: Any
    rows: Sequence[int]
    guess: Any = None
    errors: Sequence[Mapping[str, float]] = ()
    wide: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownSamples(Example):
    """Rows of a batch as they are; `answers` are the model's labels, empty if there are none."""

    batch: Any
    rows: Sequence[int]
    answers: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures(Example):
    """Sets of images by name, uint8 (n, H, W, 3)."""

    sets: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clips(Example):
    """The same clips in several forms by name, uint8 (B, T, H, W, 3), and the times of their frames (B, T)."""

    keys: Sequence[str]
    times_s: Tensor
    sets: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Similarities(Example):
    """Similarities of rows and columns, float32 (n, n) by name; matching pairs are on the diagonal."""

    of: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion(Example):
    """Number of samples of each class (row) by predicted class (column): int64 (C, C)."""

    of: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingLoss:
    """Name of a training loss, and its value for a trivial predictor, drawn as a line in the loss plot."""

    name: str = "The mean squared error over the target tokens' normalised pixels"
    baseline: str = "predicting every patch's mean"
    value: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The results of one model on held-out samples.

    Attributes:
        scores: Scores; models are compared by the first.
        notes: Further figures by name.
        examples: Examples for pages.
        loss: Description of the training loss.
        learns: A description of the method in one or more sentences.
    """

    scores: tuple[Score, ...]
    notes: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    loss: TrainingLoss = field(default_factory=TrainingLoss)
    learns: str = "A masked autoencoder learns by reconstructing the parts of a sample that it was not shown."

    def to_dict(self) -> Json:
        """Return the scores and notes as JSON."""
        return {"scores": [asdict(score) for score in self.scores], "notes": dict(self.notes)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """The mixture share * model + (1 - share) * baseline with the lowest error.

    It shows whether a model contributes anything beyond the baseline: a model that only repeats the baseline has the
    same error.
    """

    error: float
    share: float

    @classmethod
    def combine_squares(cls, model: float, guess: float, apart: float) -> Self:
        """Return the best mixture by mean squared error; the share is in [0, 1].

        Args:
            model: Mean squared error of the model.
            guess: Mean squared error of the baseline.
            apart: Mean squared difference between both.
        """
        gain = guess + apart - model
        share = min(max(gain / max(2 * apart, 1e-12), 0.0), 1.0)
        return cls(error=guess - share * gain + share**2 * apart, share=share)

    def notes(self, guess: str) -> Mapping[str, float]:
        """Return the error and the share by name; `guess` is the name of the baseline."""
        return {
            f"best mixture of the model and {guess}": self.error,
            "share of the model in the best mixture": self.share,
        }


class Evaluate(Protocol):
    """Evaluates a trained model, on the CPU in eval mode, with `shown` examples of the split at `data`.

    The samples are the same at each call. `config` is the recipe's data config.
    """

    def __call__(self, model: Any, config: Any, data: Manifest, shown: int) -> Evaluation: ...


class Drawn(Protocol):
    """Generates `count` items with a trained model, on the CPU in eval mode, as examples for a page.

    `rounds` is the number of decoding rounds, `temperature` overrides the model's default unless it is None, and `seed`
    determines all random draws. Real samples of the split `data` appear next to the generated ones.
    """

    def __call__(
        self,
        model: Any,
        config: Any,
        data: Manifest,
        *,
        count: int,
        rounds: int,
        temperature: float | None,
        seed: int,
    ) -> Example: ...


def centred(config: DataT) -> DataT:
    """Return the config with one view and a centre crop, without colour changes and transforms."""
    changes: dict[str, Any] = {"views": 1, "augment": CenterCrop(), "colour": None, "transform": None}
    return replace(config, **changes)


def read_batches(
    config: DataConfig[BatchT],
    data: Manifest,
    *,
    size: int,
    samples: int,
    shuffle: bool = False,
    steps: int = 1,
    rounds: int = 1,
) -> Iterator[BatchT]:
    """Yield the same batches of a split at each call, on the CPU.

    Args:
        config: Data config.
        data: The split.
        size: Samples per batch.
        samples: Largest number of samples per round.
        shuffle: Whether to shuffle.
        steps: Length of the run for settings that change over it.
        rounds: Number of passes, each with other random clips, crops and masks.
    """
    loader = config.whole().loader(
        data, batch_size=size, shuffle=shuffle, seed=0, device="cpu", rank=0, world_size=1, steps=steps
    )
    for _ in range(rounds):
        yield from islice(loader, -(-samples // size))
    loader.close()


def read_shuffled(config: DataConfig[BatchT], data: Manifest, *, most: int, size: int) -> Iterator[BatchT]:
    """Return full batches of shuffled samples of a split.

    Args:
        config: Data config.
        data: The split.
        most: Largest number of samples.
        size: Samples per batch, or fewer if the split is smaller.
    """
    n = min(len(data), most)
    size = min(n, size)
    return read_batches(config, data, size=size, samples=n // size * size, shuffle=True)


def read_first(config: DataConfig[BatchT], data: Manifest, shown: int) -> BatchT:
    """Return one batch of up to `shown` shuffled samples.

    Args:
        config: Settings of the data.
        data: The split.
        shown: Largest number of samples.
    """
    return next(read_shuffled(config, data, most=shown, size=shown))


def trained_on(data: Manifest) -> Manifest:
    """Return the split that baselines may use: `train` next to `data`, with its labels.

    If it is missing or has other classes, `data` itself is returned; its statistics make stronger baselines.
    """
    if (train := store_beside(data.store, "train")) is not None:
        with suppress(ValueError):
            return Manifest.open(train).with_labels(data.label_names)
    return data


KIND = "kind"
"""Field with the kind of a question; answers are scored by kind."""
ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def accuracy(scores: Tensor, label: Tensor) -> float:
    """Return the fraction of samples whose highest score is at their label; among equal scores, the first counts.

    Args:
        scores: Scores (n, C).
        label: Labels int64 (n,).
    """
    return float((scores.argmax(dim=1) == label).double().mean())


def count_confusions(scores: Tensor, label: Tensor) -> Tensor:
    """Count samples by label and by the class with the highest score.

    Args:
        scores: Scores (n, C).
        label: Labels int64 (n,).

    Returns:
        Counts int64 (C, C), labels as rows.
    """
    classes = scores.shape[1]
    counts = torch.bincount(label * classes + scores.argmax(dim=1), minlength=classes**2)
    return counts.view(classes, classes)


def compute_macro_f1(predicted: Tensor, label: Tensor) -> float:
    """Return the mean F1 score of the classes that occur in the predictions or labels, both int64 (n,).

    Args:
        predicted: Predicted classes.
        label: True classes.
    """
    scores = []
    for c in torch.unique(torch.cat((predicted, label))):
        own, true = predicted == c, label == c
        scores.append(2 * float((own & true).sum()) / float(own.sum() + true.sum()))
    return sum(scores) / len(scores)


def compute_mean_average_precision(scores: Tensor, has: Tensor) -> float:
    """Return the mean over classes of the average precision.

    Samples with equal scores share one rank, as in scikit-learn. Classes without samples are ignored.

    Args:
        scores: Scores (n, C).
        has: 1 for each class that a sample has, else 0 (n, C).

    Raises:
        ValueError: No sample has a class.
    """
    precisions = [
        _compute_average_precision(scores[:, c], has[:, c] > 0) for c in range(scores.shape[1]) if has[:, c].any()
    ]
    if not precisions:
        raise ValueError("no sample has a class; mAP needs labels")
    return sum(precisions) / len(precisions)


def _compute_average_precision(score: Tensor, has: Tensor) -> float:
    order = score.argsort(descending=True)
    score, hits = score[order], has[order].double().cumsum(dim=0)
    last = torch.ones_like(has)
    last[:-1] = score[1:] != score[:-1]
    hits, rank = hits[last], (torch.arange(len(score), device=score.device) + 1)[last]
    gained = torch.diff(hits, prepend=hits.new_zeros(1))
    return float((gained * hits / rank).sum() / hits[-1])


def score(scores: Tensor, labels: Tensor) -> float:
    """Return the accuracy if `labels` is int64 (n,), or the mAP if it is float32 (n, C).

    Args:
        scores: Scores of classes (n, C).
        labels: True classes, or 1 for each class that is present.
    """
    return accuracy(scores, labels) if labels.ndim == 1 else compute_mean_average_precision(scores, labels)


def majority(train: Tensor, test: Tensor, classes: int) -> float:
    """Return the score on `test` of a predictor that uses only class frequencies in `train`.

    Args:
        train: Training labels, int64 (n,) or float32 (n, C).
        test: Test labels.
        classes: Number of classes.
    """
    frequency = torch.bincount(train, minlength=classes).float() if train.ndim == 1 else train.mean(dim=0)
    return score(frequency.expand(len(test), -1), test)


def normalise(answer: str) -> str:
    """Return an answer in lower case, without punctuation and articles, and with digits for the numbers zero to ten.

    Source: the VQA evaluation (Antol et al., 2015), without its list of contractions.
    """
    words = re.sub(r"[^\w\s]", " ", answer.lower().replace("'", "")).split()
    kept = [str(NUMBERS.index(word)) if word in NUMBERS else word for word in words if word not in ARTICLES]
    return " ".join(kept)


def score_vqa(answer: str, answers: Sequence[str]) -> float:
    """Return the VQA accuracy of an answer, in [0, 1].

    It is the mean of min(1, matches / 3) over all subsets of people that leave one out.

    Args:
        answer: Answer to score.
        answers: Answers of several people, usually ten. For a single answer, or aliases of one, use
            `score_exact_match`.
    """
    said, given = normalise(answer), [normalise(one) for one in answers]
    matches = given.count(said)
    others = (matches - (one == said) for one in given)
    return sum(min(1.0, other / 3) for other in others) / len(given)


def score_exact_match(answer: str, answers: Sequence[str]) -> float:
    """Return 1 if the normalised answer equals one of `answers`, else 0.

    Args:
        answer: The answer.
        answers: Accepted answers.
    """
    return float(normalise(answer) in {normalise(one) for one in answers})


def rouge_l(text: str, references: Sequence[str]) -> float:
    """Return the best F1, over references, of the longest common subsequence of words (Lin, 2004), in [0, 1].

    Args:
        text: The text.
        references: Reference texts; if empty, the score is 0.
    """
    words = normalise(text).split()
    return max((_measure_overlap(words, normalise(one).split()) for one in references), default=0.0)


def _measure_overlap(one: Sequence[str], other: Sequence[str]) -> float:
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for i, same in enumerate(other, 1):
            before, row[i] = row[i], before + 1 if word == same else max(row[i], row[i - 1])
    return 2 * row[-1] / max(len(one) + len(other), 1)
