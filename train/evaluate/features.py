"""The features that frozen encoders give of the labelled samples of a split, and what a probe fits on them.

Samples come from the loader of the recipe: without augmentation, each once, in order. No token is hidden.

A probe is neighbours, a linear layer, or a query that attends to tokens. Neighbours by cosine vote for a class,
weighted by exp(cosine / 0.07) (k-NN: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance
Discrimination, 2018, section 3.4), of features as they are or whitened.

The linear probe is logistic regression with an L2 penalty that is chosen by cross-validation on the training samples.
A fold holds neighbours: samples are in the order of their keys, and those of one source, which are often alike, follow
one another. If like samples were trained on and held out, weak penalties would look too good. The problem is convex and
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
"""The fields of data configs that augment samples, with the values that do not; and what goes with augmented ones."""


@runtime_checkable
class GivesFeatures(Protocol):
    """A model that gives a vector of each sample: float32 (B, D)."""

    def features(self, batch: Any) -> Tensor: ...


@runtime_checkable
class GivesTokens(Protocol):
    """A model that gives a vector of each token, (B, N, D), what it reads of each, float32 (B, N, values), and the
    vectors of samples, float32 (B, F), of those of their tokens (`pool`).
    """

    def token_features(self, batch: Any) -> Tensor: ...

    def token_inputs(self, batch: Any) -> Tensor: ...

    def pool(self, tokens: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """The features of n samples by the encoder's name, in the order of their keys, and their labels: int64 (n,), or
    float32 (n, C) if a sample may have several. vectors: float32 (n, D). tokens: bfloat16 (n, N, D), of the encoders
    that have them.
    """

    labels: Tensor
    vectors: Mapping[str, Tensor]
    tokens: Mapping[str, Tensor]


def list_mask_fields(config: DataConfig[Any]) -> dict[str, None]:
    """The fields of a config that are masks, each with None: encoders are judged on whole samples."""
    return {f.name: None for f in fields(config) if isinstance(getattr(config, f.name), Mask)}


def drop_augmentation(config: DataConfig[Any], train: Manifest) -> DataConfig[Any]:
    """The config without augmentation and masks; sounds are normalised by the statistics of the split `train`."""
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
    """The config whose clips are from the middle of videos, sounds and motions instead of from a drawn place."""
    clip: Any = getattr(config, "clip", None)
    changed: Any = {"clip": replace(clip, start="center")} if getattr(clip, "start", "") == "random" else {}
    return replace(config, **changed)


def has_label_lists(data: Manifest) -> bool:
    """Whether the samples of a split have lists of classes (`labels` in their json) instead of one label each."""
    if JSON not in data.components or not len(data):
        return False
    (found,) = data.store.read_many([data.member(0, JSON)])
    return isinstance(json.loads(found).get(LABELS), list)


def match_labels(split: Manifest, names: Sequence[str], whose: str) -> Manifest:
    """Number the labels of a split by their places in other names, which are those of `whose`, for messages.

    Raises:
        ValueError: A sample has another class, or may have it, as lists of classes are read later.
    """
    if unknown := [name for name in split.label_names if name not in names]:
        remedy = f"of {whose}; give splits whose classes have the same names"
        if has_label_lists(split):
            raise ValueError(
                f"{split} has the classes {list_few(unknown, repr)}, which are none of the {len(names)} {remedy}"
            )
        try:
            return split.with_labels(names)
        except ValueError as error:
            raise ValueError(f"{error} {remedy}") from error
    return split.with_labels(names)


def match_labels_of_run(split: Manifest, run: Path) -> Manifest:
    """Number the labels of a split as the model of a run has learned them; see `match_labels`.

    A model that learns no labels takes them as they are, and so does one of an earlier release, whose run.json does not
    name them.
    """
    names = read_label_names(run)
    return split if names is None else match_labels(split, names, f"the run {run}")


def yield_labelled_batches(
    config: DataConfig[Any], data: Manifest, *, size: int, samples: int, several: bool, seed: int = 0
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Batches of `size` samples of a split, of a packed row each where rows are packed, with the rows that count int64
    (R,) and their labels; up to `samples` samples in all.

    If the split has more, they are drawn by the loader's shuffle. several: labels are float32 (R, C), from
    the field `labels`. Samples without a label do not count. seed: of crops and beginnings that are drawn.
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
    """The features of all encoders, decoded once for all. tokens: also those of each token.

    ValueError if there is no labelled sample.
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
            "the split has no labelled sample; a probe needs labels, of a dataset or of a folder's classes"
        )
    order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
    return Labelled(
        labels=torch.cat(labels)[order],
        vectors={name: torch.cat(parts)[order] for name, parts in vectors.items()},
        tokens={name: torch.cat(parts)[order] for name, parts in by_token.items()},
    )


class Inputs:
    """What a model reads of a sample, reduced to at most 256 principal components: the baseline of raw inputs."""

    COMPONENTS, FITTED_ROWS, FITTED_VALUES = 256, 1024, 1 << 27

    def __init__(
        self, model: GivesTokens, batches: Iterator[tuple[Batch, Tensor, Tensor]], device: torch.device
    ) -> None:
        """Fits the components on the first rows of `batches`: up to 1,024, fewer if a sample has many values."""
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
        """The components of the samples, float32 (B, 256 or fewer)."""
        found: Tensor = (self._read(batch) - self.mean) @ self.components
        return found

    def _read(self, batch: Any) -> Tensor:
        return self._model.token_inputs(batch).flatten(1)


TEMPERATURE = 0.07
_AT_ONCE = 1024
PENALTIES = (1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""The penalties that are tried, strongest first; of equally good ones the first is taken."""
FOLDS = 5
ENOUGH = 1000
"""No further fold is held out once this many samples were."""
_ITERATIONS = 100
STEPS, ROWS = 300, 64
"""Steps of AdamW, and samples in each."""
LR, WEIGHT_DECAY = 3e-3, 1e-2


def knn_scores(train: Tensor, has: Tensor, test: Tensor, k: int) -> Tensor:
    """The votes for each class, float32 (m, C), 0 to 1.

    train: vectors (n, D); has: the classes that each has, float32 (n, C); test: vectors (m, D). With fewer than k
    vectors in train, all vote.
    """
    train, k = F.normalize(train.float(), dim=1), min(k, len(train))
    votes = []
    for rows in torch.split(test, _AT_ONCE):
        near, index = (F.normalize(rows.float(), dim=1) @ train.T).topk(k, dim=1)
        weight = ((near - near[:, :1]) / TEMPERATURE).exp()
        votes.append((weight[..., None] * has[index]).sum(dim=1) / weight.sum(dim=1, keepdim=True))
    return torch.cat(votes)


def whiten(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """PCA whitening: both, float32 (n, R) and (m, R), turned to the R principal components of `train` (n, D), each with
    deviation 1 over it. Components without a spread but for rounding are left out.

    Features often vary along a few directions, which then decide which are near; here all directions count alike. So
    n should be several times D: of n <= D samples all would be equally far apart.
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
    """The scores of each class, float64 (m, C).

    train: standardised vectors (n, D), like samples beside one another; test: (m, D). labels: int64 (n,) for one label
    each, float32 (n, C) for several.
    """
    train, test = train.double(), test.double()
    penalty = penalties[0] if len(penalties) == 1 else _choose_penalty(train, labels, classes, penalties)
    return _with_bias(test) @ fit(train, labels, classes, penalty)


def _choose_penalty(train: Tensor, labels: Tensor, classes: int, penalties: Sequence[float]) -> float:
    """The penalty whose scores of held-out folds are the best, all folds together."""
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
    """The weights float64 (D + 1, C), the last row a bias without penalty, that minimise the mean loss of x float64
    (n, D) plus penalty / 2 times the sum of their squares. The loss is cross-entropy; for several labels it is that of
    each class by itself, summed over the classes.
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
    """The fold of each training sample, int64 (n,): FOLDS runs of neighbours, of each label by itself."""
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
    """The scores of each class, float32 (m, C).

    train and test: tokens (n, N, D) and (m, N, D) of any float type. labels: as in `score_linear`. seed: of the
    weights and of the order.
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
