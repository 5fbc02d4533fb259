"""The features that frozen encoders give of the labelled samples of a split.

Samples come from the loader of the recipe: without augmentation, each once, in order. No token is hidden.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.audio.data import AudioData, statistics_of
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.fields import JSON, LABELS
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.format.manifest import Manifest, SplitLocation

AUGMENTATIONS: Mapping[str, object] = {
    "views": 1,
    "augment": CenterCrop(),
    "colour": None,
    "roll_gain": None,
    "spec_augment": None,
    "mixup": None,
}
"""The fields of data configs that augment samples, with the values that do not."""


@runtime_checkable
class GivesFeatures(Protocol):
    """A model that gives a vector of each sample: float32 (B, D)."""

    def features(self, batch: Any) -> Tensor: ...


@runtime_checkable
class GivesTokens(Protocol):
    """A model that gives a vector of each token, (B, N, D), and what it reads of each, float32 (B, N, values)."""

    def token_features(self, batch: Any) -> Tensor: ...

    def token_inputs(self, batch: Any) -> Tensor: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """The features of n samples by the encoder's name, in the order of their keys, and their labels: int64 (n,), or
    float32 (n, C) if a sample may have several. vectors: float32 (n, D). tokens: bfloat16 (n, N, D), of the encoders
    that have them.
    """

    labels: Tensor
    vectors: Mapping[str, Tensor]
    tokens: Mapping[str, Tensor]


def without_augmentation(config: DataConfig[Any], train: SplitLocation) -> DataConfig[Any]:
    """The config without augmentation; sounds are normalised by the statistics of the split `train`."""
    own = {f.name for f in fields(config)}
    changed: Any = {name: value for name, value in AUGMENTATIONS.items() if name in own}
    made = replace(config, **changed)
    if isinstance(made, AudioData) and made.statistics is None:
        made = replace(made, statistics=statistics_of(Split.open(train, made.modality, device="cpu"), made.features))
    return made


def has_label_lists(data: SplitLocation) -> bool:
    """Whether the samples of a split have lists of classes (`labels` in their json) instead of one label each."""
    manifest = Manifest.load(data)
    if JSON not in manifest.components or not len(manifest):
        return False
    (found,) = manifest.store.read_many([manifest.member(0, JSON)])
    return isinstance(json.loads(found).get(LABELS), list)


def labelled_batches(
    config: DataConfig[Any], data: SplitLocation, *, size: int, samples: int, several: bool
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Batches of a split, with the rows that count int64 (R,) and their labels; up to `samples` samples in all.

    If the split has more, they are drawn by the loader's shuffle with seed 0. several: labels are float32 (R, C), from
    the field `labels`. Samples without a label do not count.
    """
    chosen: Any = {"fields": (LABELS,)} if several else {}
    whole = len(Manifest.load(data)) <= samples
    options: Any = {"batch_size": size, "shuffle": not whole, "seed": 0, "device": "cpu", "rank": 0, "world_size": 1}
    loader = replace(config, **chosen).loader(data, **options)
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
                vectors[name].append(found.float().mean(dim=1))
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
