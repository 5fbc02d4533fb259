"""Evaluates a quantiser's reconstructions of held-out images, compared with methods without a network."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import (
    Compared,
    Evaluation,
    Score,
    TrainingLoss,
    centred,
    read_shuffled,
    trained_on,
)
from maskstream.train.evaluate.patches import LEVELS, compute_root_mean_square

from .model import ImageVQConfig, VideoVQConfig, VQAutoencoder

SHRUNK = "images shrunk to a pixel per cell"
MEASURED = 256
"""The largest number of samples that are measured."""
_AT_ONCE, _ROUNDS = 32, 20
READING = (
    "Held-out images, and the decoder's reconstruction from the ids of their cells: one of {codes} ids for {cell} x "
    "{cell} pixels."
)


def evaluate(model: VQAutoencoder[Any], config: ImageData | VideoData, data: Manifest, shown: int) -> Evaluation:
    """Measure the errors of shuffled samples, and reconstruct some.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    measured, known = (collect_held_out_batches(config, split) for split in (data, trained_on(data)))
    (found, notes), first, sizes = measure_drawings(model, measured, known), measured[0], model.config.quantiser
    reading = READING.format(codes=sizes.codes, cell=sizes.cell)
    with torch.inference_mode():
        made = model.reconstructed(first)
    return Evaluation(
        scores=(found,),
        notes=notes,
        examples=(
            Compared(
                title="Reconstructions", reading=reading, batch=first, made=made, rows=range(min(shown, len(first)))
            ),
        ),
        loss=TrainingLoss(
            name="The mean squared error of pixels in [-1, 1]",
            baseline=SHRUNK,
            value=(found.baselines[SHRUNK] / 127.5) ** 2,
        ),
        learns="A quantiser learns by reconstructing images from a few ids.",
    )


def measure_drawings(
    model: VQAutoencoder[BatchT], measured: list[BatchT], trained: list[BatchT]
) -> tuple[Score, dict[str, float]]:
    """Measure the root mean squared error of reconstructed images, and the use of ids.

    Args:
        model: The model.
        measured: Batches to measure.
        trained: Batches for the baselines: k-means of the cells' mean colours and of whole cells, with as many means as
            there are ids.

    Returns:
        The score, and notes: the number of used ids, the number of ids, and e to the entropy of the ids.

    Raises:
        ValueError: A list of batches is empty.
    """
    if not measured or not trained:
        raise ValueError("errors need at least one batch, got none; use a split with at least one sample")
    pixels, known = (
        torch.cat([model.config.pixels(batch).flatten(0, -4) for batch in part]) for part in (measured, trained)
    )
    quantiser = model.quantiser
    with torch.inference_mode():
        ids = torch.cat([quantiser.ids(part) for part in torch.split(pixels, _AT_ONCE)])
        drawn = torch.cat([quantiser.decode(part) for part in torch.split(ids, _AT_ONCE)])
    codes, cell = quantiser.config.codes, quantiser.config.cell
    counts = torch.bincount(ids.flatten(), minlength=codes).double()
    share = counts[counts > 0] / counts.sum()
    cells, known_cells = cut_cells(pixels, cell), cut_cells(known, cell)
    colours, known_colours = (one.view(len(one), 3, -1).mean(dim=2) for one in (cells, known_cells))
    coloured = find_nearest(colours, cluster(known_colours, codes))[:, :, None].expand(-1, 3, cell * cell).flatten(1)
    baselines = {
        "k-means of the cells' mean colours": coloured,
        "k-means of whole cells": find_nearest(cells, cluster(known_cells, codes)),
    }
    errors = {name: compute_root_mean_square(guess, cells) for name, guess in baselines.items()}
    found = Score(
        name="root mean squared error of a pixel",
        value=compute_root_mean_square(drawn, pixels),
        unit=LEVELS,
        of="pictures",
        count=len(pixels),
        baselines={**errors, SHRUNK: compute_root_mean_square(shrink(pixels, cell), pixels)},
    )
    perplexity = float((-(share * share.log()).sum()).exp())
    return found, {"ids in use": len(share), "ids": codes, "perplexity": perplexity}


def shrink(pixels: Tensor, cell: int) -> Tensor:
    """Average images uint8 (n, H, W, 3) to one 8-bit pixel per cell, and enlarge them bicubically.

    Args:
        pixels: The images.
        cell: Side of a cell in pixels.
    """
    small = F.avg_pool2d(pixels.permute(0, 3, 1, 2).float(), cell).round()
    large = F.interpolate(small, scale_factor=cell, mode="bicubic", align_corners=False)
    return large.round().clamp(0, 255).permute(0, 2, 3, 1)


def cut_cells(pixels: Tensor, cell: int) -> Tensor:
    """Return the cells of images uint8 (n, H, W, 3), float32 (n h w, 3 * cell * cell), colours first.

    Args:
        pixels: The images.
        cell: Side of a cell in pixels.
    """
    return F.pixel_unshuffle(pixels.permute(0, 3, 1, 2).float(), cell).permute(0, 2, 3, 1).flatten(0, 2)


def cluster(points: Tensor, k: int) -> Tensor:
    """Return the means (k, values) of k clusters, by Lloyd's algorithm from k random points.

    If there are at most k points, they are returned.

    Args:
        points: Points float32 (n, values).
        k: Number of clusters.
    """
    if len(points) <= k:
        return points
    first = points[torch.from_numpy(np.random.default_rng(0).permutation(len(points))[:k])]
    labels = torch.cdist(points, first).argmin(dim=1)[:, None]
    ends = (cv2.TERM_CRITERIA_MAX_ITER, _ROUNDS, 0.0)
    return torch.from_numpy(
        cv2.kmeans(points.numpy(), k, labels.int().numpy(), ends, 1, cv2.KMEANS_USE_INITIAL_LABELS)[2]
    )


def find_nearest(points: Tensor, of: Tensor) -> Tensor:
    """Return for each point (n, values) the nearest of (k, values): (n, values).

    Args:
        points: The points.
        of: Points to choose from.
    """
    return of[torch.cat([torch.cdist(part, of).argmin(dim=1) for part in torch.split(points, 4096)])]


def collect_held_out_batches(config: ImageData | VideoData, data: Manifest) -> list[Any]:
    """Return shuffled samples of a split, without masks, random crops and colours; repeated calls return the same
    samples.

    Args:
        config: Data config of the run.
        data: The split.
    """
    plain: Any = replace(centred(config), mask=None)
    return list(read_shuffled(plain, data, most=MEASURED, size=_AT_ONCE))


EVALUATIONS = {ImageVQConfig: evaluate, VideoVQConfig: evaluate}
