"""Extracts features of labelled samples with frozen encoders and fits probes on them.

Samples come from the loader of the recipe: without augmentation, each once, in order. No token is hidden.

A probe is k-NN, a linear layer, or a query that attends to tokens. In k-NN, the nearest samples by cosine vote for a
class, weighted by exp(cosine / 0.07) (Wu et al., Unsupervised Feature Learning via Non-Parametric Instance
Discrimination, 2018, section 3.4), on plain or whitened features.

The linear probe is logistic regression with an L2 penalty chosen by cross-validation on the training samples. Folds
contain contiguous samples: these are sorted by key, so samples from one source, which are often similar, follow one
another. If similar samples were in both parts of a fold, weak penalties would look too good. The problem is convex and
solved by L-BFGS from zero in float64, so the result does not depend on a seed.

The attentive probe is a learned query that attends to the tokens, and a linear layer that reads the result (V-JEPA:
Bardes et al., Revisiting Feature Prediction for Learning Visual Representations from Video, 2024, section 4.1, without
its MLP).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.masks import Mask
from maskstream.pipelines.modalities.audio.data import AudioData, statistics_of
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.fields import JSON, LABELS
from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.read import PointAugment
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.named import list_few
from maskstream.train.core.data import read_label_names
from maskstream.train.core.process import seeded
from maskstream.train.nn.transformer import init_linear

from .evaluation import score

AUGMENTATIONS: Mapping[str, object] = {
    "views": 1,
    "augment": CenterCrop(),
    "colour": None,
    "transform": None,
    "roll_gain": None,
    "spec_augment": None,
    "mixup": None,
    "cycle": None,
    "targets": None,
}
"""Fields of data configs that augment samples, or depend on augmentation, with the values that turn it off."""


@runtime_checkable
class GivesFeatures(Protocol):
    """A model with a feature vector per sample: float32 (B, D)."""

    def features(self, batch: Any) -> Tensor: ...


@runtime_checkable
class GivesTokens(Protocol):
    """A model with token features (B, N, D), token inputs float32 (B, N, values), and a pooling of token features to
    sample features float32 (B, F).
    """

    def token_features(self, batch: Any) -> Tensor: ...

    def token_inputs(self, batch: Any) -> Tensor: ...

    def pool(self, tokens: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """The features of n samples, sorted by key.

    Attributes:
        labels: int64 (n,), or float32 (n, C) if samples may have several.
        vectors: Features float32 (n, D) by name of the encoder.
        tokens: Token features bfloat16 (n, N, D) of the encoders that have them.
    """

    labels: Tensor
    vectors: Mapping[str, Tensor]
    tokens: Mapping[str, Tensor]


def list_mask_fields(config: DataConfig[Any]) -> dict[str, None]:
    """Return the mask fields of a config, each with None, since encoders are evaluated on whole samples."""
    return {f.name: None for f in fields(config) if isinstance(getattr(config, f.name), Mask)}


def drop_augmentation(config: DataConfig[Any], train: Manifest) -> DataConfig[Any]:
    """Return the config without augmentation and masks.

    Args:
        config: Data config.
        train: Split whose statistics normalise spectrograms.
    """
    own = {f.name for f in fields(config)}
    changed: Any = {name: value for name, value in AUGMENTATIONS.items() if name in own}
    if isinstance(config, MeshData):
        changed["noise"] = None
    if isinstance(config, PointsData):
        changed["augment"] = PointAugment(normalise=config.augment.normalise)
    if isinstance(config, PackedData):
        # A row of `most` tokens has room for any sample when nothing is hidden.
        native = replace(config.native.at(1.0), scale=(1.0, 1.0), flip=0.0)
        changed |= {"native": native, "scaling": 0.0, "row_tokens": max(config.row_tokens, native.limits[1])}
    if isinstance(config, TextData):
        changed |= {"packing": "row", "windows": False, "scores": None}
    changed |= list_mask_fields(config)
    made = replace(config, **changed)
    if isinstance(made, AudioData) and made.statistics is None:
        made = replace(made, statistics=statistics_of(Split.open(train, made.modality, device="cpu"), made.features))
    return made


def from_middle(config: DataConfig[Any]) -> DataConfig[Any]:
    """Return the config with clips from the middle of videos, audio and pose sequences instead of random times."""
    clip: Any = getattr(config, "clip", None)
    changed: Any = {"clip": replace(clip, start="center")} if getattr(clip, "start", "") == "random" else {}
    return replace(config, **changed)


def has_label_lists(data: Manifest) -> bool:
    """Return whether the samples of a split have lists of classes (`labels` in their json) instead of one label."""
    if JSON not in data.components or not len(data):
        return False
    (found,) = data.store.read_many([data.member(0, JSON)])
    return isinstance(json.loads(found).get(LABELS), list)


def match_labels(split: Manifest, names: Sequence[str], whose: str) -> Manifest:
    """Renumber the labels of a split by their indices in other names.

    Args:
        split: The split.
        names: Names of labels.
        whose: Owner of the names, for messages.

    Raises:
        ValueError: A sample has another class; or the split has another class and lists of classes, which are read only
            later.
    """
    if unknown := [name for name in split.label_names if name not in names]:
        remedy = f"of {whose}; pass splits whose classes have the same names"
        if has_label_lists(split):
            raise ValueError(
                f"{split} has the classes {list_few(unknown, repr)}, which are not among the {len(names)} {remedy}"
            )
        try:
            return split.with_labels(names)
        except ValueError as error:
            raise ValueError(f"{error} {remedy}") from error
    return split.with_labels(names)


def match_labels_of_run(split: Manifest, run: Path) -> Manifest:
    """Renumber the labels of a split as the model of a run learned them; see `match_labels`.

    Labels stay unchanged for a model without labels, and for runs of earlier releases, whose run.json does not name
    them.

    Args:
        split: The split.
        run: Folder of the run.
    """
    names = read_label_names(run)
    return split if names is None else match_labels(split, names, f"the run {run}")


def yield_labelled_batches(
    config: DataConfig[Any], data: Manifest, *, size: int, samples: int, several: bool, seed: int = 0
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Yield batches of a split with the rows that have a label.

    With packed rows, a batch is one row. If the split has more than `samples` samples, the loader's shuffle selects
    them.

    Args:
        config: Data config.
        data: The split.
        size: Samples per batch.
        samples: Largest number of labelled samples in all.
        several: Whether labels are lists of classes, from the field `labels`.
        seed: Seed of random crops and start times.

    Yields:
        The batch, its labelled rows int64 (R,), and their labels int64 (R,), or float32 (R, C) if `several`.
    """
    chosen: Any = {"fields": (LABELS,)} if several else {}
    whole = len(data) <= samples
    size = 1 if isinstance(config, PackedData) else size
    options: Any = {"batch_size": size, "shuffle": not whole, "seed": seed, "device": "cpu", "rank": 0, "world_size": 1}
    loader = replace(config.whole(), **chosen).loader(data, **options)
    left = samples
    try:
        for batch in loader:
            labels = batch.fields[LABELS] if several else batch.label
            counts = torch.ones(len(batch), dtype=torch.bool) if batch.weight is None else batch.weight > 0
            rows = (counts & ((labels.sum(dim=1) > 0) if several else (labels >= 0))).nonzero()[:left, 0]
            left -= len(rows)
            yield batch, rows, labels[rows]
            if left <= 0:
                return
    finally:
        loader.close()


@torch.no_grad()
def extract_features(
    encoders: Mapping[str, GivesFeatures],
    batches: Iterator[tuple[Batch, Tensor, Tensor]],
    *,
    tokens: bool,
    device: torch.device,
) -> Labelled:
    """Extract the features of all encoders; samples are decoded once.

    Args:
        encoders: Encoders by name.
        batches: Batches from `yield_labelled_batches`.
        tokens: Whether to extract token features too.
        device: Device of the encoders.

    Raises:
        ValueError: No sample has a label.
    """
    keys: list[str] = []
    labels: list[Tensor] = []
    vectors: dict[str, list[Tensor]] = {name: [] for name in encoders}
    by_token: dict[str, list[Tensor]] = {
        name: [] for name, encoder in encoders.items() if tokens and isinstance(encoder, GivesTokens)
    }
    for batch, rows, own in batches:
        on_device = batch.to(device)
        labels.append(own)
        keys += [batch.key[row] for row in rows.tolist()]
        for name, encoder in encoders.items():
            if name in by_token and isinstance(encoder, GivesTokens):
                found = encoder.token_features(on_device).cpu()[rows]
                by_token[name].append(found.bfloat16())
                vectors[name].append(encoder.pool(found))
            else:
                vectors[name].append(encoder.features(on_device).float().cpu()[rows])
    if not sum(map(len, labels)):
        raise ValueError(
            "the split has no labelled samples, but a probe needs labels, from the dataset or from class folder names"
        )
    order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
    return Labelled(
        labels=torch.cat(labels)[order],
        vectors={name: torch.cat(parts)[order] for name, parts in vectors.items()},
        tokens={name: torch.cat(parts)[order] for name, parts in by_token.items()},
    )


class Inputs:
    """The baseline of raw inputs: a model's token inputs, reduced to at most 256 principal components."""

    COMPONENTS, FITTED_ROWS, FITTED_VALUES = 256, 1024, 1 << 27

    def __init__(
        self, model: GivesTokens, batches: Iterator[tuple[Batch, Tensor, Tensor]], device: torch.device
    ) -> None:
        """Fit the components on the first rows of `batches`: up to 1,024, fewer if a sample has many values."""
        self._model = model
        found: list[Tensor] = []
        with torch.no_grad():
            for batch, rows, _ in batches:
                found.append(self._read(batch.to(device))[rows.to(device)])
                limit = min(self.FITTED_ROWS, max(self.FITTED_VALUES // found[0].shape[1], 64))
                if sum(map(len, found)) >= limit:
                    break
            x = torch.cat(found)
            self.mean = x.mean(dim=0)
            x = x - self.mean
            values, vectors = torch.linalg.eigh((x @ x.T).double())
            kept = (values > values[-1] * 1e-9).nonzero()[-self.COMPONENTS :, 0]
            self.components = x.T @ (vectors[:, kept] / values[kept].sqrt()).float()

    def features(self, batch: Any) -> Tensor:
        """Return the components of the samples, float32 (B, 256 or fewer)."""
        found: Tensor = (self._read(batch) - self.mean) @ self.components
        return found

    def _read(self, batch: Any) -> Tensor:
        return self._model.token_inputs(batch).flatten(1)


TEMPERATURE = 0.07
_AT_ONCE = 1024
PENALTIES = (1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Penalties to try, strongest first; of equally good ones the first is chosen."""
FOLDS = 5
ENOUGH = 1000
"""Number of held-out samples after which no further fold is evaluated."""
_ITERATIONS = 100
STEPS, ROWS = 300, 64
"""Steps of AdamW, and samples in each."""
LR, WEIGHT_DECAY = 3e-3, 1e-2


def knn_scores(train: Tensor, has: Tensor, test: Tensor, k: int) -> Tensor:
    """Return the weighted votes for each class, in [0, 1].

    Args:
        train: Training features (n, D).
        has: Classes of the training samples, float32 (n, C).
        test: Test features (m, D).
        k: Number of neighbours; all vote if there are fewer.

    Returns:
        Scores float32 (m, C).
    """
    train, k = F.normalize(train.float(), dim=1), min(k, len(train))
    votes = []
    for rows in torch.split(test, _AT_ONCE):
        near, index = (F.normalize(rows.float(), dim=1) @ train.T).topk(k, dim=1)
        weight = ((near - near[:, :1]) / TEMPERATURE).exp()
        votes.append((weight[..., None] * has[index]).sum(dim=1) / weight.sum(dim=1, keepdim=True))
    return torch.cat(votes)


def whiten(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Apply PCA whitening, fitted on `train`.

    Components whose variance is only rounding error are dropped. Features often vary along a few directions, which then
    dominate the distances; after whitening, all directions have equal weight. n should be several times D: with n <= D
    samples, all distances would be equal.

    Args:
        train: Training features (n, D).
        test: Test features (m, D).

    Returns:
        Both, float32 (n, R) and (m, R), with standard deviation 1 over `train`.
    """
    mean = train.double().mean(dim=0)
    centred = train.double() - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(train))
    kept = values > 1e-9 * values[-1]
    scale = vectors[:, kept] / values[kept].sqrt()
    return (centred @ scale).float(), ((test.double() - mean) @ scale).float()


def score_linear(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, *, penalties: Sequence[float] = PENALTIES
) -> Tensor:
    """Fit the linear probe and return its scores of each class.

    Args:
        train: Standardised training features (n, D), with similar samples next to each other.
        labels: int64 (n,) for one label each, float32 (n, C) for several.
        test: Test features (m, D).
        classes: Number of classes.
        penalties: Penalties to choose from.

    Returns:
        Scores float64 (m, C).
    """
    train, test = train.double(), test.double()
    penalty = penalties[0] if len(penalties) == 1 else _choose_penalty(train, labels, classes, penalties)
    return _with_bias(test) @ fit(train, labels, classes, penalty)


def _choose_penalty(train: Tensor, labels: Tensor, classes: int, penalties: Sequence[float]) -> float:
    """Return the penalty with the best score on all held-out folds together."""
    fold = assign_folds(labels)
    held = [one for n in range(FOLDS) if 0 < int((one := fold == n).sum()) < len(labels)]
    while sum(int(one.sum()) for one in held[:-1]) >= ENOUGH:
        held.pop()
    if not held:
        return penalties[0]
    starts: list[Tensor | None] = [None] * len(held)
    best, found = penalties[0], -1.0
    for penalty in penalties:
        made, true = [], []
        for n, one in enumerate(held):
            starts[n] = weights = fit(train[~one], labels[~one], classes, penalty, starts[n])
            made.append(_with_bias(train[one]) @ weights)
            true.append(labels[one])
        reached = score(torch.cat(made), torch.cat(true))
        if reached > found:
            best, found = penalty, reached
    return best


def fit(x: Tensor, labels: Tensor, classes: int, penalty: float, start: Tensor | None = None) -> Tensor:
    """Fit a linear classifier with an L2 penalty.

    The mean loss plus penalty / 2 times the sum of squared weights is minimised. The loss is cross-entropy; for several
    labels, binary cross-entropy summed over the classes.

    Args:
        x: Features float64 (n, D).
        labels: int64 (n,), or float32 (n, C) for several.
        classes: Number of classes.
        penalty: Strength of the penalty.
        start: Initial weights; zero by default.

    Returns:
        Weights float64 (D + 1, C); the last row is a bias without penalty.
    """
    inputs = _with_bias(x)
    weights = (inputs.new_zeros(inputs.shape[1], classes) if start is None else start.clone()).requires_grad_()
    solver = torch.optim.LBFGS(
        [weights], max_iter=_ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = _compute_loss(inputs @ weights, labels) + penalty / 2 * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _compute_loss(scores: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return F.cross_entropy(scores, labels)
    return F.binary_cross_entropy_with_logits(scores, labels.double(), reduction="none").sum(dim=1).mean()


def _with_bias(x: Tensor) -> Tensor:
    return torch.cat((x, x.new_ones(len(x), 1)), dim=1)


def assign_folds(labels: Tensor) -> Tensor:
    """Return the fold of each training sample, int64 (n,); each label is split into FOLDS runs of neighbours."""
    if labels.ndim > 1:
        return torch.arange(len(labels)) * FOLDS // len(labels)
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    own = labels[order]
    place = torch.arange(len(labels)) - (counts.cumsum(dim=0) - counts)[own]
    fold = torch.empty_like(labels)
    fold[order] = place * FOLDS // counts[own]
    return fold


class AttentiveProbe(nn.Module):
    """Attention of one query over tokens (B, N, D), with `heads` heads, then a norm and a linear layer: (B, C)."""

    def __init__(self, width: int, classes: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))
        init_linear(self)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(tokens)
        key, value = (self._split_by_head(layer(x)) for layer in (self.key, self.value))
        query = self._split_by_head(self.query.expand(len(x), 1, -1))
        seen = F.scaled_dot_product_attention(query, key, value)
        scores: Tensor = self.out(seen.transpose(1, 2).flatten(1))
        return scores

    def _split_by_head(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1, self.heads, x.shape[2] // self.heads).transpose(1, 2)


def score_attentive(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, *, heads: int = 4, seed: int = 0, steps: int = STEPS
) -> Tensor:
    """Train the attentive probe and return its scores of each class.

    Args:
        train: Training tokens (n, N, D) of any float type.
        labels: As in `score_linear`.
        test: Test tokens (m, N, D).
        classes: Number of classes.
        heads: Number of attention heads; 1 if they do not divide D.
        seed: Seed of the weights and the order.
        steps: Number of training steps.

    Returns:
        Scores float32 (m, C).
    """
    width = train.shape[2]
    with seeded(seed):
        probe = AttentiveProbe(width, classes, heads if width % heads == 0 else 1)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    draws = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    with torch.enable_grad():
        for step in range(steps):
            while len(order) < min(ROWS, len(train)):
                order = torch.cat((order, torch.randperm(len(train), generator=draws)))
            rows, order = order[:ROWS], order[ROWS:]
            for group in optimiser.param_groups:
                group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
            scores = probe(train[rows].float())
            loss = (
                F.cross_entropy(scores, labels[rows])
                if labels.ndim == 1
                else F.binary_cross_entropy_with_logits(scores, labels[rows])
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.inference_mode():
        return torch.cat([probe(rows.float()) for rows in torch.split(test, ROWS)])
