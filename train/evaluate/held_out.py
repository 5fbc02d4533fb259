"""The results of a trained model on held-out samples, compared with trivial baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ...pipelines.modalities.data import DataConfig
from ...pipelines.stream.sampler import BatchT


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The one figure by which a model is judged on held-out samples. name: what it is, with its unit. baselines: the
    same figure of predictors that did not train, by name.
    """

    name: str
    value: float
    baselines: Mapping[str, float]
    lower_is_better: bool = True

    @property
    def best(self) -> str:
        """The name of the best baseline."""
        return (min if self.lower_is_better else max)(self.baselines, key=lambda name: self.baselines[name])

    def beside(self, others: Mapping[str, float]) -> Score:
        """The same with other baselines after its own."""
        return replace(self, baselines={**self.baselines, **others})


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """The results of one model. facts: measured values by name. learns: one or more sentences on the method. loss: the
    definition of the training loss. baseline: a trivial predictor, whose loss is `baseline_loss`. score: what `make
    recipes` compares; None for a model that has none.
    """

    facts: Mapping[str, str]
    learns: str = "A masked autoencoder learns by reconstructing the parts of a sample that it was not shown."
    loss: str = "The mean squared error over the target tokens' normalised pixels"
    baseline: str = "predicting every patch's mean"
    baseline_loss: float = 1.0
    score: Score | None = None


def batches(
    config: DataConfig[BatchT],
    data: str | Path,
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
    loader = config.loader(
        data, batch_size=size, shuffle=shuffle, seed=0, device="cpu", rank=0, world_size=1, steps=steps
    )
    for _ in range(rounds):
        yield from islice(loader, -(-samples // size))
    loader.close()


def trained_on(data: str | Path) -> str | Path:
    """The split of which baselines may know what a model was trained on: `train` beside `data`.

    Where there is none it is `data` itself, whose own counts and means are harder to beat.
    """
    beside = Path(data).parent / "train"
    return beside if (beside / "dataset.json").is_file() else data


def margin(loss: float, trivial: float, what: str) -> str:
    """How far a loss lies below or above `trivial`, that of a predictor named `what`, in words."""
    if loss < trivial:
        return f"{1 - loss / trivial:.0%} below {what}"
    return f"{loss / trivial - 1:.0%} above {what}: the model does not generalise"
