"""Evaluates the reconstruction of masked samples in packed rows, uncropped, at their native size and aspect ratio."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from maskstream.pipelines.modalities.packed.batch import PackedBatch
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.model import LossPart, squared
from maskstream.train.evaluate.evaluation import NORMALISED, Compared, Evaluation
from maskstream.train.evaluate.patches import PatchLosses

from .model import NativeAutoencoder, NativeAutoencoderConfig

MEASURED = 256
"""Number of samples to measure; the rest of the last sample's row is measured too."""
READING = (
    "A held-out sample at its own aspect, the tokens that the encoder saw, and these tokens with the model's "
    "predictions of the others. "
) + NORMALISED


@torch.inference_mode()
def evaluate(model: NativeAutoencoder, config: PackedData, data: Manifest, shown: int) -> Evaluation:
    """Measure the loss on whole samples with the recipe's masks, and reconstruct some.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    parts: list[tuple[LossPart, LossPart, LossPart]] = []
    samples, drawn = 0, None
    for batch in yield_held_out_rows(config, data):
        if batch.mask is None:
            raise ValueError("reconstructions need hidden tokens, but the recipe has no mask; set data.mask")
        if drawn is None:
            drawn = Compared(
                title="Reconstructions",
                reading=READING,
                batch=batch,
                made=model.reconstructed(batch),
                rows=range(min(shown, len(batch))),
            )
        true, weight = model.targets(batch, batch.mask.target), model.weight(batch)
        copied = model.targets(batch, find_nearest_visible(batch))
        (own,) = model(batch).parts.values()
        parts.append((own, squared(torch.zeros_like(true), true, weight), squared(copied, true, weight)))
        samples += len(batch)
    score = PatchLosses.of(parts, samples).score("samples")
    return Evaluation(scores=(score,), examples=() if drawn is None else (drawn,))


def yield_held_out_rows(config: PackedData, data: Manifest) -> Iterator[PackedBatch]:
    """Yield rows of at least MEASURED samples of a split, uncropped and with the recipe's mask ratios; repeated calls
    yield the same rows.

    A larger split is shuffled.

    Args:
        config: Data config of the run.
        data: The split.
    """
    whole = len(data) <= MEASURED
    native = replace(config.native.at(1.0), scale=(1.0, 1.0), flip=0.0)
    # A row of `most` tokens has room for any sample, and few samples fill it.
    plain = replace(config, native=native, colour=None, scaling=0.0, row_tokens=native.limits[1], row_targets=None)
    left = MEASURED
    loader = plain.loader(data, batch_size=1, shuffle=not whole, seed=0, device="cpu", rank=0, world_size=1, steps=1)
    with closing(loader):
        for batch in loader:
            yield batch
            left -= len(batch)
            if left <= 0:
                return


def find_nearest_visible(batch: PackedBatch) -> Tensor:
    """Return the index of the nearest visible token of the same sample for each target, int64 (M,).

    Ties go to the first; time steps, rows and columns have equal lengths.
    """
    mask, near = batch.mask, []
    if mask is None:
        raise ValueError("the batch has no masks; pass mask= to the loader")
    place = batch.place.float()
    seen, wanted = (ends[1:-1].long() for ends in (mask.cu_visible, mask.cu_target))
    for visible, target in zip(mask.visible.tensor_split(seen), mask.target.tensor_split(wanted), strict=True):
        apart = (place[target][:, None] - place[visible]).square_().sum(dim=2)
        near.append(visible[apart.argmin(dim=1)])
    return torch.cat(near)


EVALUATIONS = {NativeAutoencoderConfig: evaluate}
