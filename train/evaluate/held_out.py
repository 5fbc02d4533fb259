"""What a trained model does on samples that it was not trained on, beside what needs no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...pipelines.modalities.data import DataConfig
from ...pipelines.stream.sampler import BatchT


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """facts: numbers with their names. learns: how the model learns, a sentence or more. loss: what a run's loss is,
    and guess: the trivial predictor whose loss is `guess_loss`.
    """

    facts: Mapping[str, str]
    learns: str = "A masked autoencoder learns by reconstructing the parts of a sample that it was not shown."
    loss: str = "The mean squared error over the target tokens' normalised pixels"
    guess: str = "predicting every patch's mean"
    guess_loss: float = 1.0


def batches(
    config: DataConfig[BatchT], data: str | Path, *, size: int, samples: int, shuffle: bool = False, steps: int = 1
) -> Iterator[BatchT]:
    """Batches of `size` of up to so many samples of the split at `data`, on the CPU, the same at each call."""
    loader = config.loader(
        data, batch_size=size, shuffle=shuffle, seed=0, device="cpu", rank=0, world_size=1, steps=steps
    )
    yield from islice(loader, -(-samples // size))
    loader.close()


def margin(loss: float, trivial: float) -> str:
    """A loss beside that of a trivial predictor, in words."""
    if loss < trivial:
        return f"{1 - loss / trivial:.0%} below"
    return f"{loss / trivial - 1:.0%} above: nothing was learned that carries over"


def carried(loss: float, trivial: float) -> str:
    """A warning where a loss is not below that of a trivial predictor."""
    return "" if loss < trivial else ": what was learned does not carry over to them"
