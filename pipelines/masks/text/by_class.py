"""Words by what is known of them: classes with a high loss more often, or those with the highest scores first."""

from dataclasses import dataclass, field
from math import sqrt

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core import (
    TEXT,
    Draw,
    Mask,
    Ratio,
    Rounding,
    Scheme,
    Shot,
    TokenGrid,
    as_law,
    check_rounding,
    sized,
)
from maskstream.pipelines.masks.patterns.padded import Padded
from maskstream.shards.config import NOT_SAVED

from .feedback import Feedback
from .replace import TextMaps
from .words import PADDING, TextWords, build_word_cue


@dataclass(frozen=True, kw_only=True, slots=True)
class ByClass(Mask):
    """Whole words in a random order, each accepted with the weight of its class, until round(ratio * length) tokens.

    A class's weight is sigmoid(2 (score - mean) / standard deviation) over the scores of all classes; a word's class is
    that of its first token, and a word without a class has the weight 0.5. A word that would exceed the count is
    skipped, and a word that is not accepted is not tried again. So fewer tokens than the count may be hidden, and
    counts differ from text to text (see `Padded`). The count itself is that of `WholeWords`. With feedback
    `TextMaskBatch.version` is the version of the scores; a sample and a version give one mask.

    feedback: the trainer's scores (see feedback.py). scores: fixed scores, used without feedback.

    The grid's axes are (token,); the cues are `words` and `classes`. Source: POS-tagging weighted masking of Yang et
    al. 2023, Learning Better Masking for Better Language Model Pre-training, with 17 universal tags.
    """

    ratio: Ratio = 0.15
    feedback: Feedback | None = field(default=None, metadata=NOT_SAVED)
    scores: tuple[float, ...] = (0.0,) * 17
    rounding: Rounding = "nearest_masked"

    def __post_init__(self) -> None:
        as_law(self.ratio)
        check_rounding(self.rounding)
        if not self.scores:
            raise ValueError("scores are one number a class, of at least one class, got none")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words", "classes"})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        return self.maps(grid, draw).hidden

    def maps(self, grid: TokenGrid, draw: Draw) -> TextMaps:
        words = TextWords.of(grid, draw, by="ByClass")
        published = None if self.feedback is None else self.feedback.read()
        weights = class_weights(np.array(self.scores) if published is None else published.scores)
        classes = sized(draw.cues.need("classes", by="ByClass"), grid.size, "classes", "ByClass")[words.first]
        if len(classes) and classes.max() >= len(weights):
            raise ValueError(f"there are scores for the classes 0 to {len(weights) - 1}, got class {classes.max()}")
        chances = np.where(classes < 0, 0.5, weights[classes])
        count = words.hidden_count(as_law(self.ratio), draw, self.rounding)
        accepted = np.flatnonzero(draw.rng.random(len(chances)) < chances)
        hidden = words.spread(words.taken(1, count, draw.rng, accepted)[0])
        return TextMaps(hidden=hidden, version=None if published is None else published.version)


def class_weights(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """sigmoid(2 (score - mean) / std) of each class, (C,); 0.5 for all where the scores are equal. std is unbiased."""
    above = scores - scores.sum() / len(scores)
    variance = float(above @ above) / max(len(scores) - 1, 1)
    return 1 / (1 + np.exp(above * (-2 / sqrt(variance)))) if variance > 0 else np.full(len(scores), 0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredFirst(Mask):
    """Tokens with a score above 0 are hidden first, by score, equal ones in random order; then random others.

    Of a text of L tokens, padding not counted, floor(ratio * (L - 1) + 0.5) are hidden, at least 1 (none at ratio 0)
    and at most those that are not special. The published code may also hide the closing special token, here none is.
    The grid's axes are (token,); the cues are `words` and `scores`. Source: OneRef (Xiao et al. 2024), the text part of
    referring-aware dynamic masking, where the subject's first token has the highest score and the object's the next.
    """

    ratio: Ratio = 0.4

    def __post_init__(self) -> None:
        as_law(self.ratio)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words", "scores"})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        words = build_word_cue(grid, draw, by="ScoredFirst")
        scores = sized(draw.cues.need("scores", by="ScoredFirst"), grid.size, "scores", "ScoredFirst")
        places = np.flatnonzero(words >= 0)
        after_first = len(words) - int((words == PADDING).sum()) - 1
        count = as_law(self.ratio).count(max(after_first, 1), draw, "half_up_masked")
        places = draw.rng.permutation(places)
        order = np.argsort(-np.maximum(scores[places], 0), kind="stable")
        hidden = np.zeros(len(words), dtype=np.bool_)
        hidden[places[order[:count]]] = True
        return hidden


SCHEMES = (
    Scheme(
        name="ptw",
        paper="Learning Better Masking",
        section="weighted by part of speech",
        mask=Padded(mask=ByClass()),
        grid=TEXT,
        title="Weighted by class",
        note="Words of a class with a high loss are hidden more often: the trainer's losses come by `masks.Feedback`.",
        shots=(
            Shot(
                caption="30 %, content words with the higher loss",
                mask=Padded(mask=ByClass(ratio=0.3, scores=(1.0, 4.0))),
            ),
        ),
    ),
    Scheme(
        name="oneref-text",
        paper="OneRef",
        section="referring-aware masking of texts",
        mask=Padded(mask=ScoredFirst(ratio=0.4)),
        grid=TEXT,
        title="Subject and object first",
        note="Words that matter, such as the subject and the object, are hidden first, then others at random.",
        scene="phrase",
    ),
)
