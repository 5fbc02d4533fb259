"""Part segmentation with the encoder of Point-MAE: a label for each point of a cloud (section 4.2 of the paper).

The encoder reads all groups. The outputs after a third, two thirds and all of its blocks are concatenated, pooled over
the cloud by maximum and mean, and interpolated at each point from the three nearest centres, weighted by inverse
squared distances (PointNet++, Qi et al., 2017, section 3.4). An MLP reads both and the cloud's category.

The scores are the ones reported on ShapeNetPart: for each cloud the IoU of each part of its category, 1 if neither the
cloud nor the prediction has the part, and their mean; only parts of the category are predicted. Instance mIoU is the
mean over clouds, class mIoU the mean over categories.

Differences from the authors' code: layer norms and GELU (authors: batch norms and ReLU); one dropout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.limits import PositiveInt, ProperProportion
from maskstream.shards.media.npy import read_npy
from maskstream.shards.members.arrays import FEATURES
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, weighted
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.evaluate.classifier import Tested, Tuning, extract_encoder, select_body_weights
from maskstream.train.evaluate.evaluation import Score, read_batches
from maskstream.train.evaluate.features import drop_augmentation
from maskstream.train.nn.objectives import compute_squared_distances

from .model import PointAutoencoder, PointAutoencoderConfig

_NEAREST = 3
_MOST_PARTS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class PointSegmenterConfig(ModelConfig[PointsBatch]):
    """The sizes of a part segmenter.

    Attributes:
        of: Autoencoder whose encoder is used.
        parts: Parts of each category, by their numbers in the data; a cloud without a category may have all parts.
        hidden: Width of the MLPs.
        drop: Dropout before the last layer.
    """

    of: PointAutoencoderConfig
    parts: tuple[tuple[int, ...], ...]
    hidden: PositiveInt = 256
    drop: ProperProportion = 0.5

    def validate(self) -> None:
        if not 2 <= len(self.numbers) <= _MOST_PARTS:
            raise ValueError(f"segmentation needs 2 to {_MOST_PARTS} parts, got {len(self.numbers)}")

    @property
    def numbers(self) -> list[int]:
        """Numbers of all parts, sorted."""
        return sorted({part for own in self.parts for part in own})

    @property
    def most_labels(self) -> int | None:
        """The number of categories."""
        return max(len(self.parts), 1)

    def check(self, data: Any) -> None:
        """Raise ValueError unless the data have one feature, the label of each point."""
        if isinstance(data, PointsData) and (data.select.n_features != 1 or isinstance(data.select.features, int)):
            raise ValueError(f"segmentation needs exactly one named feature, such as part, got {data.select.features}")


class PointSegmenter(Model[PointsBatch], config=PointSegmenterConfig):
    """Scores parts at the points of a batch; the column after x, y, z is the part's number."""

    def __init__(self, config: PointSegmenterConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config, depth, width = config, config.of.depth, config.of.width
        self.body = cast(PointAutoencoder, extract_encoder(config.of, grids))
        self.after = sorted({max(depth // 3, 1), max(2 * depth // 3, 1), depth})
        joined, hidden = len(self.after) * width, config.hidden
        self.propagate = nn.Sequential(*_build_layers(joined + 3, hidden), *_build_layers(hidden, hidden))
        self.category = nn.Embedding(len(config.parts) + 1, 64)
        self.head = nn.Sequential(
            *_build_layers(hidden + 2 * joined + 64, hidden),
            nn.Dropout(config.drop),
            nn.Linear(hidden, len(config.numbers)),
        )
        own = torch.tensor([[part in parts for part in config.numbers] for parts in config.parts])
        self.register_buffer("allowed", torch.cat((torch.ones(1, len(config.numbers), dtype=torch.bool), own)), False)
        self.register_buffer("number", torch.tensor(config.numbers), False)

    def scores(self, batch: PointsBatch) -> Tensor:
        """Return the score of each part at each point: float32 (B, N, parts)."""
        xyz = batch.points[..., :3].float()
        centres, groups = self.body.cut(xyz)
        x = torch.cat(self.body.compute_block_features(centres, groups, self.after), dim=2).float()
        square, near = compute_squared_distances(xyz, centres).topk(
            min(_NEAREST, centres.shape[1]), dim=2, largest=False
        )
        weight = F.normalize(1 / (square.clamp_min(0) + 1e-8), p=1, dim=2)
        row = torch.arange(len(x), device=x.device)[:, None, None]
        at_points = self.propagate(torch.cat(((weight[..., None] * x[row, near]).sum(dim=2), xyz), dim=2))
        whole = torch.cat((x.amax(dim=1), x.mean(dim=1), self.category(batch.label + 1)), dim=1)
        joined = torch.cat((at_points, whole[:, None].expand(-1, xyz.shape[1], -1)), dim=2)
        return cast(Tensor, self.head(joined)).float()

    def loss(self, batch: PointsBatch) -> Losses:
        """Return the mean cross-entropy of the points whose part is known."""
        found, part = self.scores(batch), self.number_parts(batch)
        error = F.cross_entropy(found.flatten(0, 1), part.clamp_min(0).flatten(), reduction="none")
        return Losses(parts={"segmentation": weighted(error, (part >= 0).float().flatten())})

    def number_parts(self, batch: PointsBatch) -> Tensor:
        """Return the true part of each point, int64 (B, N), as an index into the model's parts; -1 for any other
        number.
        """
        number = cast(Tensor, self.number)
        true = batch.points[..., 3].round().long().contiguous()
        place = torch.searchsorted(number, true).clamp_max(len(number) - 1)
        return torch.where(number[place] == true, place, -1)

    @torch.no_grad()
    def predicted(self, batch: PointsBatch) -> Tensor:
        """Return the most likely part of each point in its cloud's category, int64 (B, N), as in `number_parts`."""
        allowed = cast(Tensor, self.allowed)[batch.label + 1]
        return self.scores(batch).masked_fill(~allowed[:, None], -torch.inf).argmax(dim=2)

    def reconstructed(self, batch: PointsBatch) -> PointsBatch:
        """Return the batch with the predicted parts."""
        made = cast(Tensor, self.number)[self.predicted(batch)].to(batch.points.dtype)
        return replace(batch, points=torch.cat((batch.points[..., :3], made[..., None]), dim=2))


def _build_layers(n_inputs: int, width: int) -> list[nn.Module]:
    return [nn.Linear(n_inputs, width), nn.LayerNorm(width), nn.GELU()]


def count_parts(split: Manifest, column: str, component: str | None = None) -> list[Counter[int]]:
    """Count the points of each number in a column, by category; the last count is of clouds without a category.

    Args:
        split: The split.
        column: Name of the column.
        component: Cloud to read if samples have several.

    Raises:
        ValueError: A cloud lacks the column, or has numbers that are not integers.
    """
    found = component_of(split.components, ("points",), component)
    counts = [Counter[int]() for _ in range(len(split.info["label_names"]) + 1)]
    for index in range(len(split)):
        names = found.word(FEATURES, index).split(",")
        if column not in names:
            raise ValueError(
                f"{split}: the cloud {split.key(index)} has no label column {column!r}; besides x, y and z it has "
                f"{', '.join(filter(None, names)) or 'no columns'}. Choose one of these, or build shards from clouds "
                "with a class or part column (`maskstream docs points`)"
            )
        (data,) = split.store.read_many([split.member(index, found.name)])
        values = read_npy(data)[:, 3 + names.index(column)]
        if not np.array_equal(values, np.round(values)):
            raise ValueError(
                f"{split}: the column {column!r} of the cloud {split.key(index)} does not contain whole numbers"
            )
        numbers, many = np.unique(values.astype(np.int64), return_counts=True)
        counts[int(split.label[index])].update(dict(zip(numbers.tolist(), many.tolist(), strict=True)))
    return counts


def tune_parts(base: Recipe[Any], train: Manifest, points: str) -> Tuning | None:
    """Return the fine-tuning for part segmentation on the labels of a column; None without one.

    It runs 50 epochs (paper: 300) of AdamW at 2e-4 with 16 clouds, a cosine and a weight decay of 0.05. Numbers below 0
    are not parts.

    Args:
        base: Recipe of the run.
        train: Training split.
        points: Column of the labels, or "".
    """
    if not points or not isinstance(base.model, PointAutoencoderConfig) or not isinstance(base.data, PointsData):
        return None
    counts = count_parts(train, points, base.data.component)
    parts = tuple(tuple(sorted(part for part in own if part >= 0)) for own in (counts[:-1] or counts))
    recipe: Recipe[PointsBatch] = Recipe(
        name=f"{base.name}-segmenter",
        batch_size=16,
        data=replace(base.data, mask=None, views=1, select=replace(base.data.select, features=(points,))),
        model=PointSegmenterConfig(of=base.model, parts=parts),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=3.2e-3, min_lr=1.6e-5, warmup=0.1, epochs=50),
    )
    return Tuning(recipe=recipe, initial=select_body_weights, measure=measure_parts)


def measure_parts(
    model: Model[Any], recipe: Recipe[Any], train: Manifest, test: Manifest, device: torch.device
) -> Tested:
    if not isinstance(model, PointSegmenter) or not isinstance(recipe.data, PointsData):
        raise ValueError(f"the folder contains a {type(model).__name__}, not a segmenter; pass a different folder")
    return Tested(scores=score_parts(model, recipe.data, train, test, device))


def score_parts(
    model: PointSegmenter, data: PointsData, train: Manifest, test: Manifest, device: torch.device
) -> tuple[Score, ...]:
    """Measure instance and class mIoU and the fraction of right points on a test split, compared with each category's
    most frequent part.

    Args:
        model: The segmenter.
        data: Data config of the fine-tuning.
        train: Training split.
        test: Test split.
        device: Device of the model.
    """
    (column,) = data.select.features if isinstance(data.select.features, tuple) else ("",)
    numbers = model.config.numbers
    most = [
        max(range(len(numbers)), key=lambda n: own[numbers[n]]) for own in count_parts(train, column, data.component)
    ]
    labels: list[int] = []
    made: list[tuple[float, float, float, float]] = []
    allowed = cast(Tensor, model.allowed).cpu()
    for batch in read_batches(drop_augmentation(data, train), test, size=16, samples=len(test)):
        on_device = batch.to(device)
        true, predicted = (one.cpu() for one in (model.number_parts(on_device), model.predicted(on_device)))
        for row in range(len(batch)) if batch.weight is None else batch.weight.nonzero().flatten().tolist():
            label, known = int(batch.label[row]), true[row][true[row] >= 0]
            own = allowed[label + 1].nonzero().flatten().tolist()
            pair = (predicted[row][true[row] >= 0], torch.full_like(known, most[label]))
            iou, guessed = (compute_mean_iou(one, known, own) for one in pair)
            right, lucky = (float((one == known).double().mean()) for one in pair)
            labels.append(label)
            made.append((iou, guessed, right, lucky))
    clouds, by_class = np.array(made), np.array(labels)
    iou, guessed, right, lucky = clouds.mean(axis=0).tolist()
    by = np.stack([clouds[by_class == label].mean(axis=0) for label in np.unique(by_class)]).mean(axis=0)

    def scored(name: str, value: float, other: float) -> Score:
        return Score.share(name, value, "clouds", len(made), {"each category's most frequent part": other})

    return (
        scored("instance mIoU", iou, guessed),
        scored("class mIoU", float(by[0]), float(by[1])),
        scored("accuracy of points", right, lucky),
    )


def compute_mean_iou(predicted: Tensor, true: Tensor, parts: Sequence[int]) -> float:
    """Return the mean over parts of the IoU of points; 1 for a part that neither has.

    Args:
        predicted: Predicted parts, int64 (N,).
        true: True parts, int64 (N,).
        parts: Parts to average over.
    """
    ious = []
    for part in parts:
        one, other = predicted == part, true == part
        union = int((one | other).sum())
        ious.append(int((one & other).sum()) / union if union else 1.0)
    return sum(ious) / len(ious)


TUNINGS = {PointAutoencoderConfig: tune_parts}
