"""Evaluates predicted ids of images, compared with counts of ids and neighbours, and generated images as a set.

The distance of generated from held-out images is measured by the mean colours of their cells. A distance of learned
features (FID) would need external weights; colours of cells need none, but ignore details.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import (
    Compared,
    Evaluation,
    Pictures,
    Score,
    TrainingLoss,
    centred,
    read_shuffled,
    trained_on,
)
from maskstream.train.evaluate.hidden_ids import HiddenIdLosses, IdCounts, fill_in
from maskstream.train.evaluate.patches import collect_held_out_pictures, find_nearest_visible

from .model import GenerativeEncoder, GenerativeEncoderConfig, need_mask

GENERATED_READING = (
    "Generated images: all ids are hidden, and filled in over {rounds} rounds, the most certain first. Next to them "
    "are real held-out images, and the quantiser's decoding of their true ids, which is the best possible result of "
    "the model."
)
TEMPERATURE, ROUNDS = 4.5, 12
"""MAGE's own, of iterative decoding."""
READING = (
    "The centre crop of a held-out image, the cells whose ids the encoder saw, and the quantiser's decoding with the "
    "most probable ids in all other cells. "
)
COUNTED = 2048
"""Largest number of images whose ids are counted."""
_AT_ONCE = 32


def generate_ids(
    model: GenerativeEncoder,
    n: int,
    *,
    rounds: int = ROUNDS,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> Tensor:
    """Generate the ids int64 (n, N) of images from fully hidden ids.

    Args:
        model: The model.
        n: Number of images.
        rounds: Number of decoding rounds.
        temperature: Factor of the noise in decoding.
        seed: Seed of all random draws.
    """
    parts = []
    for start in range(0, n, _AT_ONCE):
        blank = torch.zeros(min(_AT_ONCE, n - start), model.n, dtype=torch.int64)
        hidden = torch.ones_like(blank, dtype=torch.bool)
        own = seed * 1_000_003 + start
        parts.append(fill_in(model.predict, blank, hidden, rounds=rounds, temperature=temperature, seed=own))
    return torch.cat(parts)


@torch.inference_mode()
def generate_examples(
    model: GenerativeEncoder,
    real: Tensor,
    *,
    count: int,
    rounds: int = ROUNDS,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> Pictures:
    """Generate images, next to real ones.

    Args:
        model: The model.
        real: Real images uint8 (n, H, W, 3).
        count: Number of images to generate.
        rounds: Number of decoding rounds.
        temperature: Factor of the noise in decoding.
        seed: Seed of all random draws.
    """
    ids = generate_ids(model, count, rounds=rounds, temperature=temperature, seed=seed)
    sets = {
        "Generated": model.drawn(ids),
        "Real": real,
        "Real, drawn from their ids": model.vq.decode(model.vq.ids(real)),
    }
    return Pictures(title="Generated pictures", reading=GENERATED_READING.format(rounds=rounds), sets=sets)


@torch.inference_mode()
def measure_distances(model: GenerativeEncoder, real: Tensor, trained: Tensor, counts: IdCounts) -> Score:
    """Measure the Fréchet distance of generated from held-out images, by the mean colours of cells.

    The baselines are images of independent ids, drawn by frequency, and training images.

    Args:
        model: The model.
        real: Held-out images uint8 (n, H, W, 3).
        trained: Training images uint8 (n, H, W, 3).
        counts: Counts of ids.
    """
    n = min(len(real), len(trained))
    rng = torch.Generator().manual_seed(0)
    alone = torch.multinomial(counts.single, n * model.n, replacement=True, generator=rng).view(n, model.n)
    cell = model.config.quantiser.cell
    wanted = compute_cell_colours(real[:n], cell)
    sets = [model.drawn(generate_ids(model, n)), model.drawn(alone), trained[:n]]
    own, by_frequency, known = (compute_frechet_distance(compute_cell_colours(one, cell), wanted) for one in sets)
    return Score(
        name="distance from held-out ones",
        value=own,
        of="generated pictures",
        count=n,
        baselines={"images of ids drawn by frequency": by_frequency, "real training pictures": known},
    )


def compute_cell_colours(pixels: Tensor, cell: int) -> Tensor:
    """Return the mean colours of the cells of images uint8 (n, H, W, 3), float64 (n, 3 h w).

    Args:
        pixels: The images.
        cell: Side of a cell in pixels.
    """
    return F.avg_pool2d(pixels.permute(0, 3, 1, 2).double(), cell).flatten(1)


def compute_frechet_distance(one: Tensor, other: Tensor) -> float:
    """Return the Fréchet distance of the normal distributions with the moments of two sets of points.

    Source: Dowson and Landau (1982); FID (Heusel et al., 2017) is the same for learnt features.

    Args:
        one: Points float64 (n, D).
        other: Points float64 (m, D).
    """
    apart = (one.mean(dim=0) - other.mean(dim=0)).square().sum()
    first, second = torch.cov(one.T), torch.cov(other.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float(apart + first.trace() + second.trace() - 2 * shared)


@torch.inference_mode()
def measure_hidden_ids(model: GenerativeEncoder, measured: Iterable[ImageBatch], counts: IdCounts) -> HiddenIdLosses:
    """Measure the losses on batches with masks, compared with the nearest visible ids; see `HiddenIdLosses.of`.

    Args:
        model: The model.
        measured: Batches with masks.
        counts: Counts of training ids.
    """
    rows = []
    for batch in measured:
        ids, mask = model.ids(batch), need_mask(batch)
        logits = model.predicted(model.encode(ids, mask.visible, mask.mask_token), mask)
        true = ids.gather(1, mask.target)
        losses = F.cross_entropy(logits.float().transpose(1, 2), true, reduction="none")
        rows.append((losses, logits.argmax(dim=2) == true, true, ids.gather(1, find_nearest_visible(mask))))
    return HiddenIdLosses.of(rows, counts)


def collect_training_pictures(config: ImageData, data: Manifest) -> list[ImageBatch]:
    """Return up to `COUNTED` images of the split `trained_on`, without masks, random crops and colours.

    Args:
        config: Settings of the data.
        data: The validation split, from which `trained_on` finds the training split.
    """
    return list(read_shuffled(replace(centred(config), mask=None), trained_on(data), most=COUNTED, size=_AT_ONCE))


def evaluate(model: GenerativeEncoder, config: ImageData, data: Manifest, shown: int) -> Evaluation:
    """Measure the losses on shuffled samples with the recipe's masks, and the distance of generated from real images.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    measured, known = collect_held_out_pictures(config, data), collect_training_pictures(config, data)
    counts = IdCounts.of((model.vq.ids(batch.image) for batch in known), model.blank)
    found = measure_hidden_ids(model, measured, counts)
    real, trained = (torch.cat([batch.image for batch in part]) for part in (measured, known))
    apart, first = measure_distances(model, real, trained, counts), measured[0]
    with torch.inference_mode():
        made = model.reconstructed(first)
    return Evaluation(
        scores=(
            *found.scores(
                "counts next to the nearest visible id", "a copy of the nearest visible id", "the most frequent id"
            ),
            apart,
        ),
        examples=(
            Compared(title="Predictions", reading=READING, batch=first, made=made, rows=range(min(shown, len(first)))),
            generate_examples(model, first.image[:16], count=16),
        ),
        loss=TrainingLoss(
            name="The mean cross-entropy of the hidden ids in nats, with smoothed labels",
            baseline="counts of ids",
            value=found.alone,
        ),
        learns="The encoder learns by predicting the ids of cells that it was not shown.",
    )


def generate(
    model: GenerativeEncoder,
    config: ImageData,
    data: Manifest,
    *,
    count: int,
    rounds: int,
    temperature: float | None,
    seed: int,
) -> Pictures:
    """Generate images, next to real ones of the split.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: A split of real samples.
        count: Number of samples to generate.
        rounds: Number of decoding rounds.
        temperature: Temperature of the decoding; None for the default.
        seed: Seed of all random draws.
    """
    return generate_examples(
        model,
        collect_held_out_pictures(config, data)[0].image[:count],
        count=count,
        rounds=rounds,
        temperature=TEMPERATURE if temperature is None else temperature,
        seed=seed,
    )


EVALUATIONS = {GenerativeEncoderConfig: evaluate}
GENERATES = {GenerativeEncoderConfig: generate}
