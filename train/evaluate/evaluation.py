"""What an evaluation of a model gives: numbers, and examples of which pages make pictures. No number is a sentence.

The held-out samples for it are the same at each call. How good predictions are is measured by accuracy, F1 and mAP of
classes, and by VQA accuracy, exact match and ROUGE-L of texts.
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
    "The model predicts a token normalised, without its mean and contrast; to draw it, each prediction got the mean "
    "and the standard deviation of the true token: judge the pattern inside it. A model that learned nothing draws "
    "flat squares."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One figure of a model on held-out samples.

    name: what it is. unit: such as "nats"; "%" for a share of 1, "" for none. of, count: what was measured, and how
    many of them. baselines: the same figure of predictors that did not train, by name.
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
        """A share of 1, of which more is better."""
        guesses = {} if baselines is None else baselines
        return cls(name=name, value=value, unit="%", of=of, count=count, baselines=guesses, lower_is_better=False)

    @property
    def best(self) -> str:
        """The name of the best baseline."""
        return (min if self.lower_is_better else max)(self.baselines, key=lambda name: self.baselines[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """Something to look at. reading: how to read it."""

    title: str
    reading: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared(Example):
    """Rows of a batch, and the same as the model completes it. guess: the same as a guess completes it. errors: numbers
    of each row, by name. wide: whether the cards of rows need the whole page.
    """

    batch: Any
    made: Any
    rows: Sequence[int]
    guess: Any = None
    errors: Sequence[Mapping[str, float]] = ()
    wide: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownSamples(Example):
    """Rows of a batch as they are. answers: the label that the model gives each; none if there are no rows of it."""

    batch: Any
    rows: Sequence[int]
    answers: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures(Example):
    """Sets of pictures by name, uint8 (n, H, W, 3)."""

    sets: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clips(Example):
    """The same clips in several forms by name, uint8 (B, T, H, W, 3), and the times of their frames (B, T)."""

    keys: Sequence[str]
    times_s: Tensor
    sets: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Similarities(Example):
    """How alike rows and columns are, float32 (n, n) by name; what belongs together lies on the diagonal."""

    of: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion(Example):
    """Of how many samples of a class (row) a model says each class (column): int64 (C, C)."""

    of: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingLoss:
    """What a training loss is, and that of a trivial predictor: the line beside its curve."""

    name: str = "The mean squared error over the target tokens' normalised pixels"
    baseline: str = "predicting every patch's mean"
    value: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The results of one model on held-out samples. scores: by the first of them models are compared. notes: other
    numbers, by name. learns: one or more sentences on the method.
    """

    scores: tuple[Score, ...]
    notes: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    loss: TrainingLoss = field(default_factory=TrainingLoss)
    learns: str = "A masked autoencoder learns by reconstructing the parts of a sample that it was not shown."

    def to_dict(self) -> Json:
        """The numbers as JSON."""
        return {"scores": [asdict(score) for score in self.scores], "notes": dict(self.notes)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """The mixture share * model + (1 - share) * guess with the least error. What a model knows beyond a guess shows
    here: one that only repeats the guess has its error.
    """

    error: float
    share: float

    @classmethod
    def combine_squares(cls, model: float, guess: float, apart: float) -> Self:
        """That of mean squared errors: of both, and between both (`apart`). The share is in [0, 1]."""
        gain = guess + apart - model
        share = min(max(gain / max(2 * apart, 1e-12), 0.0), 1.0)
        return cls(error=guess - share * gain + share**2 * apart, share=share)

    def notes(self, guess: str) -> Mapping[str, float]:
        """Its numbers by name. guess: what the model is mixed with."""
        return {
            f"best mixture of the model and {guess}": self.error,
            "share of the model in the best mixture": self.share,
        }


class Evaluate(Protocol):
    """Evaluates a trained model, on the CPU in eval mode, with `shown` examples of the split at `data`.

    The samples are the same at each call. config: the recipe's data config.
    """

    def __call__(self, model: Any, config: Any, data: Manifest, shown: int) -> Evaluation: ...


class Drawn(Protocol):
    """Gives an example of `count` things that a trained model, on the CPU in eval mode, generates.

    rounds: of iterative decoding. temperature: None for the model's own. seed: decides all draws. data: a split of real
    samples, which stand beside them.
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
    """The config with one view and a centre crop, without changes of colours and pixels."""
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
    """Batches of `size` samples, up to `samples` in all, of the split at `data`: on the CPU, the same at each call.

    rounds: how often the split is gone through, each time with other draws of clips, crops and masks.
    """
    loader = config.whole().loader(
        data, batch_size=size, shuffle=shuffle, seed=0, device="cpu", rank=0, world_size=1, steps=steps
    )
    for _ in range(rounds):
        yield from islice(loader, -(-samples // size))
    loader.close()


def read_shuffled(config: DataConfig[BatchT], data: Manifest, *, most: int, size: int) -> Iterator[BatchT]:
    """Whole batches of up to `most` shuffled samples of a split, of `size` samples or of all that it has."""
    n = min(len(data), most)
    size = min(n, size)
    return read_batches(config, data, size=size, samples=n // size * size, shuffle=True)


def read_first(config: DataConfig[BatchT], data: Manifest, shown: int) -> BatchT:
    """One batch of up to `shown` shuffled samples."""
    return next(read_shuffled(config, data, most=shown, size=shown))


def trained_on(data: Manifest) -> Manifest:
    """The split of which baselines may know what a model was trained on: `train` beside `data`, with its labels.

    Where there is none, or it has other classes, it is `data` itself, whose own counts and means are harder to beat.
    """
    if (train := store_beside(data.store, "train")) is not None:
        with suppress(ValueError):
            return Manifest.open(train).with_labels(data.label_names)
    return data


KIND = "kind"
"""The field that says of which kind a question is; answers are scored by kind."""
ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def accuracy(scores: Tensor, label: Tensor) -> float:
    """The share of samples whose highest score (n, C) is that of their label int64 (n,); of equal ones the first."""
    return float((scores.argmax(dim=1) == label).double().mean())


def count_confusions(scores: Tensor, label: Tensor) -> Tensor:
    """How many samples of each label int64 (n,) have each class as the highest of their scores (n, C): int64 (C, C)."""
    classes = scores.shape[1]
    counts = torch.bincount(label * classes + scores.argmax(dim=1), minlength=classes**2)
    return counts.view(classes, classes)


def compute_macro_f1(predicted: Tensor, label: Tensor) -> float:
    """The mean of the F1 scores of the classes that occur in either, both int64 (n,)."""
    scores = []
    for c in torch.unique(torch.cat((predicted, label))):
        own, true = predicted == c, label == c
        scores.append(2 * float((own & true).sum()) / float(own.sum() + true.sum()))
    return sum(scores) / len(scores)


def compute_mean_average_precision(scores: Tensor, has: Tensor) -> float:
    """The mean over classes of the average precision; scores (n, C), has: which classes a sample has, 0 or 1 (n, C).

    Samples with equal scores count as one rank, as in scikit-learn. Classes that no sample has do not count. ValueError
    if no class counts.
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
    """Accuracy if `labels` is int64 (n,), mAP if it is float32 (n, C)."""
    return accuracy(scores, labels) if labels.ndim == 1 else compute_mean_average_precision(scores, labels)


def majority(train: Tensor, test: Tensor, classes: int) -> float:
    """The score on `test` of a guess that knows only how often each class is in `train`."""
    frequency = torch.bincount(train, minlength=classes).float() if train.ndim == 1 else train.mean(dim=0)
    return score(frequency.expand(len(test), -1), test)


def normalise(answer: str) -> str:
    """An answer in lower case, without punctuation and articles, and with digits for the numbers zero to ten.

    Source: the VQA evaluation (Antol et al., 2015), without its list of contractions.
    """
    words = re.sub(r"[^\w\s]", " ", answer.lower().replace("'", "")).split()
    kept = [str(NUMBERS.index(word)) if word in NUMBERS else word for word in words if word not in ARTICLES]
    return " ".join(kept)


def score_vqa(answer: str, answers: Sequence[str]) -> float:
    """The accuracy of VQA in [0, 1]: the mean over all subsets without one person of min(1, matches / 3).

    answers: those of several people, as a rule ten. A single answer, or aliases of one, count by `score_exact_match`.
    """
    said, given = normalise(answer), [normalise(one) for one in answers]
    matches = given.count(said)
    others = (matches - (one == said) for one in given)
    return sum(min(1.0, other / 3) for other in others) / len(given)


def score_exact_match(answer: str, answers: Sequence[str]) -> float:
    """1 if the answer is one of the given, normalised, else 0."""
    return float(normalise(answer) in {normalise(one) for one in answers})


def rouge_l(text: str, references: Sequence[str]) -> float:
    """The best F1 of the longest common subsequence of words with a reference (Lin, 2004), in [0, 1]."""
    words = normalise(text).split()
    return max((_measure_overlap(words, normalise(one).split()) for one in references), default=0.0)


def _measure_overlap(one: Sequence[str], other: Sequence[str]) -> float:
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for i, same in enumerate(other, 1):
            before, row[i] = row[i], before + 1 if word == same else max(row[i], row[i - 1])
    return 2 * row[-1] / max(len(one) + len(other), 1)
