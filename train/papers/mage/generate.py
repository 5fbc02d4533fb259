"""Evaluates generated pictures: how far they are, as a set, from held-out ones, by the mean colours of their cells.

A distance of learnt features (FID) needs weights of others; colours of cells need none, and say nothing of details.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.train.evaluate.evaluation import Pictures, Score
from maskstream.train.evaluate.id_counts import IdCounts
from maskstream.train.evaluate.iterative import filled

from .model import GenerativeEncoder

READING = (
    "Pictures from nothing: all ids are hidden, and filled in over {rounds} rounds, the most certain first. Beside "
    "them stand real held-out pictures, and what the quantiser makes of their true ids, which is the best that the "
    "model could draw."
)
TEMPERATURE, ROUNDS = 4.5, 12
"""MAGE's own, of iterative decoding."""
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureDistances:
    """Fréchet distances of sets of n pictures from held-out ones. model: those of the model. alone: those drawn from
    ids that are drawn by their frequencies, each by itself. trained: real ones of the training split.
    """

    model: float
    alone: float
    trained: float
    n: int

    @property
    def score(self) -> Score:
        """The distances."""
        baselines = {"pictures of ids drawn by frequency": self.alone, "real training pictures": self.trained}
        return Score(
            name="distance from held-out ones",
            value=self.model,
            of="generated pictures",
            count=self.n,
            baselines=baselines,
        )


def generated_ids(
    model: GenerativeEncoder,
    n: int,
    *,
    rounds: int = ROUNDS,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> Tensor:
    """The ids int64 (n, N) of pictures from nothing. seed: decides all."""
    parts = []
    for start in range(0, n, _AT_ONCE):
        blank = torch.zeros(min(_AT_ONCE, n - start), model.n, dtype=torch.int64)
        hidden = torch.ones_like(blank, dtype=torch.bool)
        own = seed * 1_000_003 + start
        parts.append(filled(model.predict, blank, hidden, rounds=rounds, temperature=temperature, seed=own))
    return torch.cat(parts)


@torch.inference_mode()
def generated_examples(
    model: GenerativeEncoder,
    real: Tensor,
    *,
    count: int,
    rounds: int = ROUNDS,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> Pictures:
    """Generated pictures beside the real ones uint8 (n, H, W, 3)."""
    ids = generated_ids(model, count, rounds=rounds, temperature=temperature, seed=seed)
    sets = {
        "Generated": model.drawn(ids),
        "Real": real,
        "Real, drawn from their ids": model.vq.decode(model.vq.ids(real)),
    }
    return Pictures(title="Generated pictures", reading=READING.format(rounds=rounds), sets=sets)


@torch.inference_mode()
def set_distances(model: GenerativeEncoder, real: Tensor, trained: Tensor, counts: IdCounts) -> PictureDistances:
    """The distances of as many pictures as there are in `real` and in `trained`, uint8 (n, H, W, 3)."""
    n = min(len(real), len(trained))
    rng = torch.Generator().manual_seed(0)
    alone = torch.multinomial(counts.single, n * model.n, replacement=True, generator=rng).view(n, model.n)
    cell = model.config.quantiser.cell
    wanted = cell_colours(real[:n], cell)
    sets = [model.drawn(generated_ids(model, n)), model.drawn(alone), trained[:n]]
    own, by_frequency, known = (frechet_distance(cell_colours(one, cell), wanted) for one in sets)
    return PictureDistances(model=own, alone=by_frequency, trained=known, n=n)


def cell_colours(pixels: Tensor, cell: int) -> Tensor:
    """The mean colours of the cells of pictures uint8 (n, H, W, 3), float64 (n, 3 h w)."""
    return F.avg_pool2d(pixels.permute(0, 3, 1, 2).double(), cell).flatten(1)


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """The Fréchet distance of the normal distributions with the moments of points float64 (n, D) and (m, D).

    Source: Dowson and Landau (1982); FID (Heusel et al., 2017) is the same of learnt features.
    """
    apart = (one.mean(dim=0) - other.mean(dim=0)).square().sum()
    first, second = torch.cov(one.T), torch.cov(other.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float(apart + first.trace() + second.trace() - 2 * shared)
