"""Evaluates how well a model finds the objects of phrases, compared with boxes that ignore the phrase."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from maskstream.pipelines.modalities.fields import Field
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.shards.format.dataset import store_beside
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import (
    Compared,
    Evaluation,
    Score,
    TrainingLoss,
    centred,
    read_batches,
    read_first,
    read_shuffled,
    trained_on,
)

from .model import OneRef, OneRefConfig, compute_generalised_overlap, overlap, to_centre

MEASURED = 1024
"""Maximum number of phrases that are measured."""
KNOWN = 1 << 12
"""Largest number of boxes for the mean box."""
HIT = 0.5
"""The overlap (IoU) from which a box counts as found."""
UNSEEN = "unseen"
"""Split, next to a held-out one, with objects that are not in the training split."""
BOXES = "boxes"
_AT_ONCE = 64
READING = "Held-out phrases, with the box and the pixels that each refers to, and those that the model finds."


@torch.inference_mode()
def measure_referring(model: OneRef, measured: Iterable[ImageTextBatch], mean: Tensor) -> tuple[list[Score], float]:
    """Measure boxes and segments on batches without masks.

    The field "boxes" of batches has the boxes of all phrases of a sample. Samples without a box are ignored.

    Args:
        model: The model.
        measured: Batches of phrases.
        mean: The mean box of the training split, float32 (4,).

    Returns:
        The scores, and the loss of the mean box in the parts box and overlap.

    Raises:
        ValueError: No sample has a box.
    """
    overlaps, segments, far = [], [], []
    guesses: dict[str, list[Tensor]] = {}
    for batch in measured:
        made, boxed = model.reconstructed(batch), ~batch.box.isnan().any(dim=1)
        true = batch.box[boxed]
        overlaps.append(overlap(made.box[boxed], true))
        far.append((to_centre(mean) - to_centre(true)).abs().sum(dim=1) + 1 - compute_generalised_overlap(mean, true))
        for name, share in _score_guesses(batch, mean).items():
            guesses.setdefault(name, []).append(share[boxed])
        if batch.segment is not None and made.segment is not None:
            known = batch.segment.flatten(1).any(dim=1)
            one, other = made.segment[known].flatten(1), batch.segment[known].flatten(1)
            segments.append((one & other).sum(dim=1) / (one | other).sum(dim=1).clamp_min(1))
    if not sum(map(len, overlaps)):
        raise ValueError("box scores need phrases with a box, but there are none; use a split with boxes.npy")
    every = torch.cat(overlaps)
    means = {name: float(torch.cat(shares).mean()) for name, shares in guesses.items()}
    rows = [("boxes with an overlap of 0.5", float((every >= HIT).float().mean()), "%", means)]
    rows += [("mean overlap of boxes", float(every.mean()), "", {})]
    rows += [("mean overlap of segments", float(torch.cat(segments).mean()), "", {})] if segments else []
    scores = [
        Score(
            name=name,
            value=value,
            unit=unit,
            of="phrases",
            count=len(every),
            baselines=baselines,
            lower_is_better=False,
        )
        for name, value, unit, baselines in rows
    ]
    return scores, float(torch.cat(far).mean())


def _score_guesses(batch: ImageTextBatch, mean: Tensor) -> dict[str, Tensor]:
    """Return, by baseline that ignores the phrase, whether its box is right, or the fraction of right boxes: (B,)."""
    boxes, length = batch.fields[BOXES], batch.fields[f"{BOXES}.length"]
    assert isinstance(boxes, Tensor)
    assert isinstance(length, Tensor)
    there = torch.arange(boxes.shape[1]) < length[:, None]
    hits = (overlap(boxes, batch.box[:, None]) >= HIT) & there
    size = mean[2:] - mean[:2]
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1).where(there, torch.tensor(-1.0))
    largest = hits.gather(1, areas.argmax(dim=1, keepdim=True))[:, 0]
    centre = torch.cat((0.5 - size / 2, 0.5 + size / 2))
    return {
        "the largest object": largest.float(),
        "any of the objects": hits.sum(dim=1) / length.clamp_min(1),
        "the mean box": (overlap(mean.expand_as(batch.box), batch.box) >= HIT).float(),
        "a box in the centre": (overlap(centre.expand_as(batch.box), batch.box) >= HIT).float(),
    }


def guess_without_objects(guesses: Mapping[str, float]) -> dict[str, float]:
    """Return the baselines that do not use the positions of objects.

    Only some objects in scenes of `unseen` have phrases, so their boxes would reveal too much.
    """
    return {name: share for name, share in guesses.items() if "object" not in name}


def drop_masks(config: ImageTextData) -> ImageTextData:
    """Return a recipe's data without masks, with centre crops."""
    return replace(centred(config), image_mask=None, text_mask=None)


def measure_boxes(config: ImageTextData, model: OneRef, data: Manifest) -> tuple[list[Score], float]:
    """Measure boxes and segments on shuffled phrases of a split; the mean box is computed on `trained_on(data)`.

    Args:
        config: Data config of the run.
        model: The model.
        data: The split.
    """
    config = drop_masks(config)
    before = trained_on(data)
    known = min(len(before), KNOWN)
    boxes = torch.cat(
        [one.box for one in read_batches(config, before, size=min(known, _AT_ONCE), samples=known, shuffle=True)]
    )
    mean = boxes[~boxes.isnan().any(dim=1)].mean(dim=0)
    asked = replace(config, fields=(Field(name=BOXES),))
    return measure_referring(model, read_shuffled(asked, data, most=MEASURED, size=_AT_ONCE), mean)


def evaluate(model: OneRef, config: ImageTextData, data: Manifest, shown: int) -> Evaluation:
    """Measure the boxes and segments of a held-out split, and of the split `unseen` next to it if there is one.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    scores, mean_loss = measure_boxes(config, model, data)
    if (unseen := store_beside(data.store, UNSEEN)) is not None:
        others, _ = measure_boxes(config, model, Manifest.open(unseen))
        scores += [
            replace(one, name=f"{one.name}, objects never shown", baselines=guess_without_objects(one.baselines))
            for one in others
        ]
    batch = read_first(drop_masks(config), data, shown)
    with torch.inference_mode():
        made = model.reconstructed(batch)
    return Evaluation(
        scores=tuple(scores),
        examples=(
            Compared(
                title="Phrases",
                reading=READING,
                batch=batch,
                made=made,
                rows=range(len(batch)),
                errors=[{"overlap": one} for one in overlap(made.box, batch.box).tolist()],
            ),
        ),
        loss=TrainingLoss(
            name="The sum of the errors of box, segment, relations of patches, hidden patches and hidden words",
            baseline="the mean box (only the parts box and overlap)",
            value=mean_loss,
        ),
        learns="OneRef learns which part of an image a phrase refers to.",
    )


EVALUATIONS = {OneRefConfig: evaluate}
