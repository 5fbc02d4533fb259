"""First and second moments of labelled samples, collected in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.manifest import Manifest

Floats = npt.NDArray[np.float64]
Labelled = tuple[npt.NDArray[Any], npt.NDArray[np.integer[Any]]]

MAX_VALUES = 3072
"""Values of a sample: D x D float64 matrices of 75 MB, and some 11 s of CPU time for each shape and ratio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Of `count` samples x of D values with labels y as one-hot vectors of C classes: the covariance of x, float64
    (D, D); that of x and y, (D, C); and the trace of that of y.
    """

    count: int
    covariance: Floats
    with_labels: Floats
    label_variance: float

    @classmethod
    def of(cls, batches: Iterable[Labelled]) -> Moments:
        """The moments of batches of samples (B, ...) with labels int (B,). The classes are the labels that occur.

        Each batch is flattened to (B, D), in float64, and taken relative to the mean of the first, so that no digits
        are lost where the mean is large. ValueError where there is no sample, or only one class, where D differs or is
        above 3072, where a batch has not one label a sample, and for values that are not finite.
        """
        sums: _Sums | None = None
        for samples, labels in batches:
            x = np.asarray(samples, dtype=np.float64).reshape(len(samples), -1)
            if len(x) == 0:
                continue
            sums = sums or _Sums.like(x)
            sums.add(x, np.asarray(labels))
        if sums is None:
            raise ValueError("no labelled sample was given")
        return sums.moments()


@dataclass(kw_only=True, slots=True)
class _Sums:
    """Sums relative to `origin`: of x x^T, and by class of x and of the samples."""

    origin: Floats
    second: Floats
    by_class: dict[int, Floats]
    members: Counter[int]

    @classmethod
    def like(cls, x: Floats) -> _Sums:
        d = x.shape[1]
        if d > MAX_VALUES:
            raise ValueError(f"a sample has {d} values, more than {MAX_VALUES}: use smaller pictures (32 x 32 x 3 fit)")
        return cls(origin=x.mean(axis=0), second=np.zeros((d, d)), by_class={}, members=Counter())

    def add(self, x: Floats, labels: npt.NDArray[np.integer[Any]]) -> None:
        if x.shape[1] != len(self.origin):
            raise ValueError(f"samples have {len(self.origin)} values, then {x.shape[1]}")
        if labels.shape != (len(x),):
            raise ValueError(f"a batch has {len(x)} samples and labels of shape {labels.shape}; give one label each")
        if not np.isfinite(x).all():
            raise ValueError("a sample has values that are not finite")
        moved = x - self.origin
        self.second += moved.T @ moved
        for label in np.unique(labels).tolist():
            mine = labels == label
            self.by_class[label] = self.by_class.get(label, 0.0) + moved[mine].sum(axis=0)
            self.members[label] += int(mine.sum())

    def moments(self) -> Moments:
        if len(self.members) < 2:
            raise ValueError("all samples have the same label; give samples of at least two classes")
        count = self.members.total()
        share = np.array([self.members[label] for label in self.by_class]) / count
        by_class = np.stack(list(self.by_class.values()), axis=1) / count
        mean = by_class.sum(axis=1)
        return Moments(
            count=count,
            covariance=self.second / count - np.outer(mean, mean),
            with_labels=by_class - np.outer(mean, share),
            label_variance=float((share * (1 - share)).sum()),
        )


BATCH = 64


MIDDLE_FRAME = VideoData(
    clip=VideoClip(frames=1, stride=1, size=16, start="center"),
    augment=CenterCrop(),
    flow="none",
    tubelet=1,
    patch=1,
)
"""The central square of the middle frame of a video, 16 x 16 pixels."""


def labelled_frames(
    location: str | Path, data: VideoData = MIDDLE_FRAME, *, samples: int | None = None
) -> Iterator[Labelled]:
    """The first frames of the clips of `samples` videos of a split, chosen at random (None: of all).

    Pictures are float64 (B, size, size, 3) in [0, 1], labels int64 (B,); videos without a label are left out.
    """
    manifest = Manifest.load(location)
    some = samples is not None and samples < len(manifest)
    loader = data.loader(manifest, batch_size=min(samples or BATCH, BATCH), shuffle=some, device="cpu")
    left = samples or len(loader) * BATCH
    for batch in loader:
        keep = batch.label >= 0
        if batch.weight is not None:
            keep &= batch.weight > 0
        yield batch.video[keep][:left, 0].numpy() / 255.0, batch.label[keep][:left].numpy()
        left -= len(batch)
        if left <= 0:
            return
