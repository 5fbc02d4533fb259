"""What a report shows of a model's work, of any modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """What a report shows of a model's work: a template of `train/templates`, what it needs, and lines for the table
    of facts. learns: how the model does, a sentence or more. loss: what the run's loss is, and guess: what has a loss
    of `guess_loss`, as the page says it.
    """

    template: str
    context: Mapping[str, Any]
    facts: Mapping[str, str]
    learns: str = "A masked autoencoder learns by reconstructing the parts of a sample that it was not shown."
    loss: str = "The mean squared error over the target tokens' normalised pixels"
    guess: str = "predicting every patch's mean"
    guess_loss: float = 1.0
