"""Scores masks by how well a linear autoencoder's features predict the labels, without training.

    moments = Moments.of(draw_labelled_frames("data/shards/k400/train"))
    rows = measure_shapes(moments, make_shapes(16), ratios=(0.25, 0.5, 0.75, 0.9))

One pass over the samples collects second moments; after that each (shape, ratio) is a closed form, so the whole table
takes seconds. A linear model of small images is only a cheap first hint for a deep model of large ones. Source:
Learning by Reconstruction Produces Uninformative Features For Perception (Balestriero & LeCun 2024, linear denoising
autoencoders with masks).

The closed form measures how much of the labels the first K features of a masked linear autoencoder explain. The
autoencoder sees a sample x with some parts set to 0, their mean, and reconstructs x from K features. With S the
covariance of x, E[x masked^T] = q S and E[masked masked^T] = M = S weighted by E[visible_i visible_j]: q if i and j
belong to one part, r elsewhere; q = 1 - p, and r = q^2 if parts are hidden independently. By reduced-rank regression
the best features are x -> G^T x, where G are the first K solutions of q^2 S^2 g = lambda M g; at p = 0 these are the
principal components. A linear probe on them explains a fraction R2(K) of the labels' variance; the alignment is this
fraction relative to K supervised features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.masks import Cues, Draw, Mask, TokenGrid
from maskstream.pipelines.masks.core import needed_cues
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.rng import Place
from maskstream.shards.arrays import Float64s, Int64s
from maskstream.shards.format.manifest import Manifest

Labelled = tuple[npt.NDArray[Any], npt.NDArray[np.integer[Any]]]

_LEAST_SIDE = 14
MAX_VALUES = 3072
"""Values of a sample: D x D float64 matrices of 75 MB, and some 11 s of CPU time for each shape and ratio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Second moments of samples x of D values with labels y as one-hot vectors of C classes.

    Attributes:
        count: Number of samples.
        covariance: Covariance of x, float64 (D, D).
        with_labels: Covariance of x and y, float64 (D, C).
        label_variance: Trace of the covariance of y.
    """

    count: int
    covariance: Float64s
    with_labels: Float64s
    label_variance: float

    @classmethod
    def of(cls, batches: Iterable[Labelled]) -> Moments:
        """Compute the moments of labelled samples. The classes are the labels that occur.

        Each batch is flattened to (B, D), in float64, relative to the mean of the first, so that no digits are lost if
        the mean is large.

        Args:
            batches: Samples (B, ...) and labels int (B,).

        Raises:
            ValueError: All samples are missing or of one class, D differs or is above 3072, a batch does not have one
                label per sample, or values are not finite.
        """
        origin, second = np.empty(0), np.empty((0, 0))
        sums: dict[int, Float64s] = {}
        members: Counter[int] = Counter()
        for samples, labels in batches:
            x, y = np.asarray(samples, dtype=np.float64).reshape(len(samples), -1), np.asarray(labels)
            if len(x) == 0:
                continue
            d = x.shape[1]
            if not members:
                if d > MAX_VALUES:
                    legal = f"more than {MAX_VALUES}: use smaller images (32 x 32 x 3 fit)"
                    raise ValueError(f"a sample has {d} values, {legal}")
                origin, second = x.mean(axis=0), np.zeros((d, d))
            if d != len(origin):
                raise ValueError(f"samples must have the same number of values, got {len(origin)}, then {d}")
            if y.shape != (len(x),):
                raise ValueError(f"a batch has {len(x)} samples and labels of shape {y.shape}; pass one label each")
            if not np.isfinite(x).all():
                raise ValueError("a sample has values that are not finite")
            x = x - origin
            second += x.T @ x
            for label in np.unique(y).tolist():
                sums[label] = sums.get(label, 0.0) + x[y == label].sum(axis=0)
                members[label] += int((y == label).sum())
        if not members:
            raise ValueError("got no labelled samples")
        if len(members) < 2:
            raise ValueError("all samples have the same label; pass samples of at least two classes")
        count = members.total()
        share = np.array([members[label] for label in sums]) / count
        by_class = np.stack([*sums.values()], axis=1) / count
        mean = by_class.sum(axis=1)
        return cls(
            count=count,
            covariance=second / count - np.outer(mean, mean),
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


def draw_labelled_frames(
    location: str | Path, data: VideoData = MIDDLE_FRAME, *, samples: int | None = None
) -> Iterator[Labelled]:
    """Yield the first frames of clips of a split's videos, with their labels.

    Videos without a label are left out.

    Args:
        location: Location of the split.
        data: Data config of the clips.
        samples: Number of videos, chosen at random; None for all.

    Yields:
        Images float64 (B, size, size, 3) in [0, 1], and labels int64 (B,).
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Visibility:
    """How often a mask shows the parts of a sample.

    Attributes:
        parts: Number of the part of each value, int64 (D,), or of each token of one time step, (h, w).
        each: Frequency of each part, float64 (N,).
        pairs: Frequency of two parts at once, float64 (N, N).
    """

    parts: Int64s
    each: Float64s
    pairs: Float64s

    @classmethod
    def at(cls, parts: Int64s, ratio: float, *, exact: bool = False) -> Visibility:
        """Return the visibility of parts that are hidden at a ratio.

        Args:
            parts: Number of the part of each value, 0, 1, 2, ...
            ratio: Mask ratio.
            exact: Whether floor((1 - ratio) n) of n parts are visible, instead of hiding each independently.

        Raises:
            ValueError: No part stays visible.
        """
        if not 0 <= ratio < 1:
            raise ValueError(f"a masked ratio must lie in [0, 1), got {ratio}")
        count = int(parts.max()) + 1
        same, across = 1 - ratio, (1 - ratio) ** 2
        if exact:
            visible = int((1 - ratio) * count + 1e-9)
            if visible == 0:
                raise ValueError(
                    f"at ratio {ratio} none of {count} parts stays visible; use a smaller ratio or smaller parts"
                )
            same, across = visible / count, visible * (visible - 1) / (count * max(count - 1, 1))
        pairs = np.full((count, count), across)
        np.fill_diagonal(pairs, same)
        return cls(parts=parts, each=np.full(count, same), pairs=pairs)

    @classmethod
    def of(cls, mask: Mask, grid: TokenGrid, draws: int = 2000) -> Visibility:
        """Estimate the visibility in the middle time step of a grid (t, h, w) at the start of a run.

        Args:
            mask: The mask.
            grid: The token grid.
            draws: Number of masks to draw.

        Raises:
            ValueError: The mask depends on the sample, which the closed form does not allow.
        """
        t, h, w = grid.need("t", "h", "w", by="the doctor")
        if needs := needed_cues(mask):
            raise ValueError(
                f"{mask} follows {', '.join(sorted(needs))}, but only masks that do not depend on the sample can be "
                "scored; `maskstream probe` compares runs with any mask"
            )
        seen = np.empty((draws, h * w))
        for n in range(draws):
            maps = mask.maps(grid, Draw.of(0, 0, f"doctor {n}", 0, Place(step=n), Cues()))
            seen[n] = ~maps.hidden.reshape(t, h * w)[t // 2]
        return cls(parts=np.arange(h * w).reshape(h, w), each=seen.mean(axis=0), pairs=seen.T @ seen / draws)

    def enlarged(self, side: int, channels: int = 3) -> Visibility:
        """Return the visibility of the values of images (side, side, channels), whose side the tokens divide.

        Args:
            side: Side of the images in pixels.
            channels: Channels of the images.
        """
        h, w = self.parts.shape
        pixels = self.parts.repeat(side // h, axis=0).repeat(side // w, axis=1)
        return replace(self, parts=pixels.ravel().repeat(channels))


def make_shapes(side: int, names: Sequence[str] | None = None, channels: int = 3) -> dict[str, Int64s]:
    """Return the numbers of the parts of a sample's D values, int64 (D,), by the name of their shape; all channels of a
    pixel belong to one part.

    Args:
        side: Side of the images in pixels.
        names: "4" for squares of 4 x 4 pixels, "rows" or "columns" for lines; by default squares of 1, 2, 4, ...
            pixels up to half the image, rows and columns.
        channels: Channels of the images.

    Raises:
        ValueError: The squares do not tile the image.
    """
    y, x = np.divmod(np.arange(side * side), side)
    lines = {"rows": y, "columns": x}
    tiles = {str(k): y // k * (side // k) + x // k for k in range(1, side) if side % k == 0}
    shapes = {}
    for name in [*(str(k) for k in (1, 2, 4, 8, 16) if str(k) in tiles), *lines] if names is None else names:
        pixels = (tiles | lines).get(name)
        if pixels is None:
            legal = ", ".join((*tiles, *lines))
            raise ValueError(f"a shape of a {side} x {side} image must be one of {legal}, got {name!r}")
        shapes[f"{name} x {name}" if name in tiles else name] = pixels.repeat(channels)
    return shapes


RIDGE = 1e-6
"""Fraction of the mean variance that is added to the diagonal, so that constant pixels contribute no features and
nothing is divided by 0.
"""


def alignment(moments: Moments, features: int, seen: Visibility | None = None) -> Float64s:
    """Return the fraction of the labels' variance that a linear probe explains from the first 1 ... K features under a
    mask, float64 (K,); without a mask the features are the principal components.

    Args:
        moments: Moments of the samples.
        features: Number of features.
        seen: Visibility of the parts.

    Raises:
        ValueError: The number of features or the size of the mask does not fit the samples.
    """
    covariance = _compute_covariance(moments)
    d = len(covariance)
    if not 1 <= features <= d:
        raise ValueError(f"features must lie between 1 and {d}, the number of values in a sample, got {features}")
    masked, cross = covariance, covariance
    if seen is not None:
        if seen.parts.shape != (d,):
            raise ValueError(f"a mask has {len(seen.parts)} values, but the samples have {d}")
        each, pairs = seen.each[seen.parts], seen.pairs[np.ix_(seen.parts, seen.parts)]
        # Parts that are never visible have no variance; the ridge keeps the matrix positive.
        ridge = RIDGE * float(covariance.diagonal().mean()) * torch.eye(d, dtype=torch.float64)
        masked = covariance * torch.from_numpy(pairs) + ridge
        cross = torch.from_numpy(each)[:, None] * covariance
    half = _factor_lower(masked)
    # S^2 g = lambda M g with M = L L^T is the plain problem of A A^T, A = L^-1 q S.
    turned = torch.linalg.solve_triangular(half, cross, upper=False)
    vectors = torch.linalg.eigh(turned @ turned.T).eigenvectors[:, -features:].flip(1)
    directions = torch.linalg.solve_triangular(half.T, vectors, upper=True)
    inner = _factor_lower(directions.T @ covariance @ directions)
    probe = torch.linalg.solve_triangular(inner, directions.T @ torch.from_numpy(moments.with_labels), upper=False)
    explained: Float64s = (probe.square().sum(1).cumsum(0) / moments.label_variance).numpy()
    return explained


def find_common_side(planes: Sequence[tuple[int, ...]], most: int = 32) -> int:
    """Return the side of the smallest images, of at least 14 pixels, that all token planes divide.

    Args:
        planes: Tokens (h, w) of each plane.
        most: Largest allowed side.

    Raises:
        ValueError: There are only larger ones.
    """
    least = lcm(*(length for plane in planes for length in plane))
    if least > most:
        told = ", ".join(f"{h} x {w}" for h, w in planes)
        raise ValueError(f"tokens of {told} have no common image side of up to {most} pixels; compare fewer masks")
    return least * -(-_LEAST_SIDE // least) if least < _LEAST_SIDE else least


def measure_supervised_alignment(moments: Moments, features: int) -> Float64s:
    """Return the label variance explained by the best linear features, float64 (K,): no `alignment` is higher.

    Args:
        moments: Moments of the samples.
        features: Number of features.
    """
    half = _factor_lower(_compute_covariance(moments))
    mixed = torch.linalg.solve_triangular(half, torch.from_numpy(moments.with_labels), upper=False)
    explained = torch.linalg.svdvals(mixed).square().cumsum(0) / moments.label_variance
    out: Float64s = explained[torch.arange(features).clamp(max=len(explained) - 1)].numpy()
    return out


def _compute_covariance(moments: Moments) -> Tensor:
    """Return the covariance with the ridge on its diagonal."""
    covariance = torch.from_numpy(moments.covariance)
    ridge = RIDGE * float(covariance.diagonal().mean())
    if ridge <= 0:
        raise ValueError("all samples are equal: there is nothing to reconstruct")
    return covariance + ridge * torch.eye(len(covariance), dtype=torch.float64)


def _factor_lower(matrix: Tensor) -> Tensor:
    """Return the lower Cholesky factor of a positive matrix."""
    factor: Tensor = torch.linalg.cholesky((matrix + matrix.T) / 2)
    return factor


FEATURES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The score of one mask.

    Attributes:
        shape: Name of the shape; None without a mask.
        ratio: Mask ratio.
        alignment: Explained variance relative to supervised features, by number of features.
        change: Change of the alignment relative to no mask, by number of features.
    """

    shape: str | None
    ratio: float
    alignment: dict[int, float]
    change: dict[int, float]

    @property
    def mean_change(self) -> float:
        return float(np.mean(list(self.change.values())))


def measure_shapes(
    moments: Moments,
    shapes: Mapping[str, Int64s],
    ratios: Sequence[float],
    *,
    features: Sequence[int] = FEATURES,
    exact: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """Score no mask first, then every (shape, ratio), the largest mean change first.

    Args:
        moments: Moments of the samples.
        shapes: Shapes of masked parts, from `make_shapes`.
        ratios: Mask ratios.
        features: Numbers of features.
        exact: See `Visibility.at`.
        progress: Called after each pair.

    Raises:
        ValueError: A list is empty, or no number of features is possible.
    """
    cases = (
        (name, ratio, Visibility.at(parts, ratio, exact=exact)) for name, parts in shapes.items() for ratio in ratios
    )
    plain, *findings = measure_masks(moments, cases, features, progress)
    if not findings:
        raise ValueError(f"pass at least one shape and one ratio, got {len(shapes)} shapes, ratios {tuple(ratios)}")
    return [plain, *sorted(findings, key=lambda finding: -finding.mean_change)]


def measure_masks(
    moments: Moments,
    cases: Iterable[tuple[str, float, Visibility]],
    features: Sequence[int] = FEATURES,
    progress: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """Score no mask first, then each case.

    Numbers of features above the values of a sample or half the number of samples are left out, since they are not
    meaningful.

    Args:
        moments: Moments of the samples.
        cases: Name, mask ratio and visibility of each mask.
        features: Numbers of features.
        progress: Called after each case.
    """
    allowed = min(len(moments.covariance), moments.count // 2)
    wanted = sorted({k for k in features if 1 <= k <= allowed})
    if not wanted:
        raise ValueError(
            f"features must lie between 1 and {allowed}, at most half of the {moments.count} samples, got "
            f"{tuple(features)}; pass more samples or fewer features"
        )
    most = measure_supervised_alignment(moments, wanted[-1])
    plain, findings = np.empty(0), []
    for name, ratio, seen in ((None, 0.0, None), *cases):
        own = alignment(moments, wanted[-1], seen) / most
        plain = own if name is None else plain
        change = own / np.maximum(plain, 1e-12) - 1
        findings.append(
            Finding(
                shape=name,
                ratio=ratio,
                alignment={k: float(own[k - 1]) for k in wanted},
                change={k: float(change[k - 1]) for k in wanted},
            )
        )
        if name is not None:
            progress()
    return findings


def shape_rows(findings: Sequence[Finding]) -> list[tuple[str, list[str]]]:
    """Return the rows of a table: the alignment without a mask, then the change by each shape and ratio, in percent."""
    plain, *masked = findings
    rows = [("nothing", ["-", *(f"{value:.3f}" for value in plain.alignment.values()), ""])]
    for one in masked:
        changes = (f"{100 * value:+.1f}%" for value in (*one.change.values(), one.mean_change))
        rows.append((str(one.shape), [f"{one.ratio:g}", *changes]))
    return rows


def describe_best(findings: Sequence[Finding]) -> str:
    """Describe the best of the masks, which are sorted."""
    best = findings[1]
    if best.mean_change > 0:
        return f"Best: {best.shape} at {best.ratio:g}, {100 * best.mean_change:+.1f} % on average."
    return "None of these masks makes the features more predictive of the labels than no mask."


def few_samples(moments: Moments) -> list[str]:
    """Return a warning if there are too few samples for the scores."""
    values = len(moments.covariance)
    if moments.count >= 2 * values:
        return []
    return [
        f"few samples: {moments.count} of {values} values each. With fewer than two samples per value the probe fits "
        "noise: use more samples or smaller images before trusting the last digits."
    ]


def mask_rows(findings: Sequence[Finding]) -> list[tuple[str, list[str]]]:
    """Return the rows of a table with a column for no mask, and one for each mask with its change."""
    plain, *masked = findings
    return [
        ("hidden", ["-", *(f"{one.ratio:.1%}" for one in masked)]),
        *(
            (f"{k} feature{'s'[: k > 1]}", [f"{value:.3f}", *(f"{100 * one.change[k]:+.1f}%" for one in masked)])
            for k, value in plain.alignment.items()
        ),
        ("mean", ["", *(f"{100 * one.mean_change:+.1f}%" for one in masked)]),
    ]
