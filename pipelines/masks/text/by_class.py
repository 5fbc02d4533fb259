"""Word masks by class or score: classes with a high loss more often, or highest-scoring tokens first."""

from dataclasses import dataclass, field
from math import sqrt
from typing import Annotated

import numpy as np

from maskstream.pipelines.masks.core import (
    TEXT,
    Draw,
    Mask,
    Ratio,
    Rounding,
    Scheme,
    Shot,
    TokenGrid,
    as_schedule,
    sized,
)
from maskstream.pipelines.masks.patterns.padded import Padded
from maskstream.shards.arrays import Bools, Float64s
from maskstream.shards.config import NOT_SAVED
from maskstream.shards.limits import FILLED

from .feedback import Feedback
from .replace import TextMaps
from .words import PADDING, TextWords, build_word_cue


@dataclass(frozen=True, kw_only=True, slots=True)
class ByClass(Mask):
    """Hide whole words in random order, accepting each with the weight of its class, until round(ratio * length)
    tokens.

    The weight of a class is sigmoid(2 (score - mean) / standard deviation) over the scores of all classes. A word has
    the class of its first token; a word without a class has weight 0.5. Words that would exceed the count are skipped,
    and rejected words are not tried again, so fewer tokens than the count may be hidden, and counts differ between
    texts (see `Padded`). The count is defined as for `WholeWords`. With feedback, `TextMaskBatch.version` is the
    version of the scores; a sample and a version determine the mask.

    The grid's axes are (token,); the mask inputs are `words` and `classes`. Source: Yang et al. 2023, Learning Better
    Masking for Better Language Model Pre-training (POS-tagging weighted masking), with 17 universal tags.

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule.
        feedback: Channel with the trainer's scores (see feedback.py).
        scores: Fixed scores, used without feedback.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
    """

    ratio: Ratio = 0.15
    feedback: Feedback | None = field(default=None, metadata=NOT_SAVED)
    scores: Annotated[tuple[float, ...], FILLED] = (0.0,) * 17
    rounding: Rounding = "nearest_masked"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words", "classes"})

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.maps(grid, draw).hidden

    def maps(self, grid: TokenGrid, draw: Draw) -> TextMaps:
        words = TextWords.of(grid, draw, by="ByClass")
        published = None if self.feedback is None else self.feedback.read()
        weights = class_weights(np.array(self.scores) if published is None else published.scores)
        classes = sized(draw.cues.need("classes", by="ByClass"), grid.size, "classes", "ByClass")[words.first]
        if len(classes) and classes.max() >= len(weights):
            raise ValueError(f"there are scores only for classes 0 to {len(weights) - 1}, got class {classes.max()}")
        chances = np.where(classes < 0, 0.5, weights[classes])
        count = words.hidden_count(as_schedule(self.ratio), draw, self.rounding)
        accepted = np.flatnonzero(draw.rng.random(len(chances)) < chances)
        hidden = words.spread(words.taken(1, count, draw.rng, accepted)[0])
        return TextMaps(hidden=hidden, version=None if published is None else published.version)


def class_weights(scores: Float64s) -> Float64s:
    """Return sigmoid(2 (score - mean) / std) for each class, (C,); 0.5 if all scores are equal. std is unbiased."""
    above = scores - scores.sum() / len(scores)
    variance = float(above @ above) / max(len(scores) - 1, 1)
    return 1 / (1 + np.exp(above * (-2 / sqrt(variance)))) if variance > 0 else np.full(len(scores), 0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredFirst(Mask):
    """Hide tokens with a score above 0 first, in order of score with random ties, then random others.

    In a text of L tokens without padding, floor(ratio * (L - 1) + 0.5) are hidden, at least 1 (none at ratio 0) and at
    most all that are not special. (The published code may also hide the closing special token.) The grid's axes are
    (token,); the mask inputs are `words` and `scores`. Source: OneRef (Xiao et al. 2024), the text part of
    referring-aware dynamic masking, where the subject's first token has the highest score and the object's the next.

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule.
    """

    ratio: Ratio = 0.4

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words", "scores"})

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        words = build_word_cue(grid, draw, by="ScoredFirst")
        scores = sized(draw.cues.need("scores", by="ScoredFirst"), grid.size, "scores", "ScoredFirst")
        places = np.flatnonzero(words >= 0)
        after_first = len(words) - int((words == PADDING).sum()) - 1
        count = as_schedule(self.ratio).count(max(after_first, 1), draw, "half_up_masked")
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
        note=(
            "Words of classes with a high loss are hidden more often; the trainer reports losses through "
            "`masks.Feedback`."
        ),
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
        note="Important words, such as subject and object, are hidden first, then random ones.",
        scene="phrase",
    ),
)
