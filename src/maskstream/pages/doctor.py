"""The mask doctor: scores masks by how well a linear autoencoder's features predict the labels, without training.

    moments = Moments.of(labelled_frames("data/shards/k400/train"))
    rows = examine(moments, make_shapes(16), ratios=(0.25, 0.5, 0.75, 0.9))

One pass over the samples collects second moments; after that each (shape, ratio) is a closed form, so the whole table
takes seconds. A linear model of small pictures is only a cheap first hint for a deep model of large ones. Source:
Learning by Reconstruction Produces Uninformative Features For Perception (Balestriero & LeCun 2024, linear denoising
autoencoders with masks).

The closed form says how much of the labels the first K features of a masked linear autoencoder carry. The autoencoder
sees a sample x with some parts set to 0, their mean, and reconstructs x from K features. With S the covariance of x,
E[x masked^T] = q S and E[masked masked^T] = M = S weighted by E[visible_i visible_j]: q where i and j belong to one
part, r elsewhere; q = 1 - p, and r = q^2 where parts are hidden independently. Reduced-rank regression says that the
best features are x -> G^T x, G the first K solutions of q^2 S^2 g = lambda M g; at p = 0 those are the principal
components. How well a linear probe on them tells the classes is the share of the labels' variance that it explains,
R2(K); the alignment is that share of what K supervised features explain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.masks import Cues, Draw, Mask, TokenGrid
from maskstream.pipelines.masks.core import needed_cues
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.rng import Place
from maskstream.shards.format.manifest import Manifest

Floats = npt.NDArray[np.float64]
Labelled = tuple[npt.NDArray[Any], npt.NDArray[np.integer[Any]]]

_LEAST_SIDE = 14
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
        origin, second = np.empty(0), np.empty((0, 0))
        sums: dict[int, Floats] = {}
        members: Counter[int] = Counter()
        for samples, labels in batches:
            x, y = np.asarray(samples, dtype=np.float64).reshape(len(samples), -1), np.asarray(labels)
            if len(x) == 0:
                continue
            d = x.shape[1]
            if not members:
                if d > MAX_VALUES:
                    legal = f"more than {MAX_VALUES}: use smaller pictures (32 x 32 x 3 fit)"
                    raise ValueError(f"a sample has {d} values, {legal}")
                origin, second = x.mean(axis=0), np.zeros((d, d))
            if d != len(origin):
                raise ValueError(f"samples have {len(origin)} values, then {d}")
            if y.shape != (len(x),):
                raise ValueError(f"a batch has {len(x)} samples and labels of shape {y.shape}; give one label each")
            if not np.isfinite(x).all():
                raise ValueError("a sample has values that are not finite")
            x = x - origin
            second += x.T @ x
            for label in np.unique(y).tolist():
                sums[label] = sums.get(label, 0.0) + x[y == label].sum(axis=0)
                members[label] += int((y == label).sum())
        if not members:
            raise ValueError("no labelled sample was given")
        if len(members) < 2:
            raise ValueError("all samples have the same label; give samples of at least two classes")
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


@dataclass(frozen=True, kw_only=True, slots=True)
class VisibleParts:
    """How often the parts of a sample are visible: `parts` int64 (D,), the part of each value; each, float64 (N,), and
    two at once, (N, N).
    """

    parts: npt.NDArray[np.int64]
    each: Floats
    pairs: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A partition of a sample's D values: `parts` int64 (D,), the number of each value's part."""

    name: str
    parts: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if not np.array_equal(np.unique(self.parts), np.arange(self.parts.max(initial=0) + 1)):
            raise ValueError(f"the parts of shape {self.name} are numbered 0, 1, 2, ..., got {np.unique(self.parts)}")

    def seen(self, ratio: float, *, exact: bool = False) -> VisibleParts:
        """With parts hidden at `ratio`: each by itself, or with `exact` floor((1 - ratio) n) of n stay visible.

        ValueError where nothing stays visible.
        """
        if not 0 <= ratio < 1:
            raise ValueError(f"a masked ratio lies in [0, 1), got {ratio}")
        count = int(self.parts.max()) + 1
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
        return VisibleParts(parts=self.parts, each=np.full(count, same), pairs=pairs)


def make_shape(name: str, side: int, channels: int = 3) -> Shape:
    """The shape `name` of pictures (side, side, channels): "4" is squares of 4 x 4 pixels, "rows" and "columns" lines.

    All channels of a pixel belong to one part. ValueError where squares do not tile the picture.
    """
    y, x = np.divmod(np.arange(side * side), side)
    if name in ("rows", "columns"):
        pixels = y if name == "rows" else x
    else:
        k = int(name) if name.isdecimal() else 0
        if k < 1 or side % k or k == side:
            legal = [str(d) for d in range(1, side) if side % d == 0]
            raise ValueError(
                f"a shape of a {side} x {side} picture is one of {', '.join(legal)}, rows, columns: {name!r}"
            )
        pixels = y // k * (side // k) + x // k
    return Shape(name=name if not name.isdecimal() else f"{name} x {name}", parts=pixels.repeat(channels))


def make_shapes(side: int, names: Sequence[str] | None = None, channels: int = 3) -> tuple[Shape, ...]:
    """The shapes `names`; by default squares of 1, 2, 4, ... pixels up to half the picture, rows and columns."""
    if names is None:
        names = [*(str(k) for k in (1, 2, 4, 8, 16) if k < side and side % k == 0), "rows", "columns"]
    return tuple(make_shape(name, side, channels) for name in names)


RIDGE = 1e-6
"""Of the mean variance, added to the diagonal: constant pixels carry no feature, and nothing divides by 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """share: float64 (K,), of the labels' variance, what a linear probe on the first 1 ... K features explains.
    strength: float64 (K,), the variance of the sample that each feature reconstructs, descending.
    """

    share: Floats
    strength: Floats


def alignment(moments: Moments, features: int, seen: VisibleParts | None = None) -> Alignment:
    """Of the first `features` features under a mask; without one they are the principal components.

    ValueError where the mask is for samples of another size.
    """
    covariance = _compute_covariance(moments)
    d = len(covariance)
    if not 1 <= features <= d:
        raise ValueError(f"features lie in 1 ... {d}, the values of a sample, got {features}")
    masked, cross = covariance, covariance
    if seen is not None:
        if seen.parts.shape != (d,):
            raise ValueError(f"a mask has {len(seen.parts)} values, the samples {d}")
        each, pairs = seen.each[seen.parts], seen.pairs[np.ix_(seen.parts, seen.parts)]
        # What is never visible has no variance; the ridge keeps the matrix positive.
        ridge = RIDGE * float(covariance.diagonal().mean()) * torch.eye(d, dtype=torch.float64)
        masked = covariance * torch.from_numpy(pairs) + ridge
        cross = torch.from_numpy(each)[:, None] * covariance
    half = _factor_lower(masked)
    # S^2 g = lambda M g with M = L L^T is the plain problem of A A^T, A = L^-1 q S.
    turned = torch.linalg.solve_triangular(half, cross, upper=False)
    strength, vectors = torch.linalg.eigh(turned @ turned.T)
    directions = torch.linalg.solve_triangular(half.T, vectors[:, -features:].flip(1), upper=True)
    inner = _factor_lower(directions.T @ covariance @ directions)
    probe = torch.linalg.solve_triangular(inner, directions.T @ torch.from_numpy(moments.with_labels), upper=False)
    explained = probe.square().sum(1).cumsum(0) / moments.label_variance
    return Alignment(share=explained.numpy(), strength=strength[-features:].flip(0).numpy())


@dataclass(frozen=True, kw_only=True, slots=True)
class Visibility:
    """How often a mask shows tokens of one time step, h x w of them: each, float64 (N,), and two at once, (N, N)."""

    plane: tuple[int, int]
    each: Floats
    pairs: Floats

    @classmethod
    def of(cls, mask: Mask, grid: TokenGrid, draws: int = 2000) -> Visibility:
        """That of the middle time step of a grid (t, h, w), over so many draws at the start of a run.

        ValueError for a mask that follows cues: the closed form is for masks that do not depend on what they hide.
        """
        t, h, w = grid.need("t", "h", "w", by="the doctor")
        if needs := needed_cues(mask):
            raise ValueError(
                f"{mask} follows {', '.join(sorted(needs))}, and the doctor scores masks that do not depend on what "
                "they hide; `maskstream probe` compares runs with any mask"
            )
        seen = np.empty((draws, h * w))
        for n in range(draws):
            maps = mask.maps(grid, Draw.of(0, 0, f"doctor {n}", 0, Place(step=n), Cues()))
            seen[n] = ~maps.hidden.reshape(t, h * w)[t // 2]
        return cls(plane=(h, w), each=seen.mean(axis=0), pairs=seen.T @ seen / draws)

    def seen(self, side: int, channels: int = 3) -> VisibleParts:
        """The same of the values of pictures (side, side, channels)."""
        y, x = np.divmod(np.arange(side * side), side)
        h, w = self.plane
        return VisibleParts(
            parts=(y * h // side * w + x * w // side).repeat(channels), each=self.each, pairs=self.pairs
        )


def find_common_side(planes: Sequence[tuple[int, int]], most: int = 32) -> int:
    """The side of the smallest pictures of 14 pixels or more that all planes of tokens divide; ValueError without."""
    least = lcm(*(length for plane in planes for length in plane))
    if least > most:
        told = ", ".join(f"{h} x {w}" for h, w in planes)
        raise ValueError(
            f"pictures of up to {most} pixels have no side that tokens of {told} divide; compare fewer masks"
        )
    return least * -(-_LEAST_SIDE // least) if least < _LEAST_SIDE else least


def measure_supervised_alignment(moments: Moments, features: int) -> Floats:
    """What the best linear features for the labels explain: float64 (K,), the most that any `share` can be."""
    half = _factor_lower(_compute_covariance(moments))
    mixed = torch.linalg.solve_triangular(half, torch.from_numpy(moments.with_labels), upper=False)
    squares = torch.linalg.svdvals(mixed).square()
    padded = torch.zeros(max(features, len(squares)), dtype=torch.float64)
    padded[: len(squares)] = squares
    out: Floats = (padded.cumsum(0)[:features] / moments.label_variance).numpy()
    return out


def _compute_covariance(moments: Moments) -> Tensor:
    """The covariance with the ridge on its diagonal."""
    covariance = torch.from_numpy(moments.covariance)
    ridge = RIDGE * float(covariance.diagonal().mean())
    if ridge <= 0:
        raise ValueError("all samples are equal: there is nothing to reconstruct")
    return covariance + ridge * torch.eye(len(covariance), dtype=torch.float64)


def _factor_lower(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor of a positive matrix."""
    factor: Tensor = torch.linalg.cholesky((matrix + matrix.T) / 2)
    return factor


FEATURES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The score of one mask; shape None is no mask. alignment: by number of features, the explained variance as a share
    of that of supervised features. change: of the alignment relative to no mask; mean_change: the mean over features.
    """

    shape: str | None
    ratio: float
    alignment: dict[int, float]
    change: dict[int, float]

    @property
    def mean_change(self) -> float:
        return float(np.mean(list(self.change.values())))


def measure_masks_of(
    moments: Moments,
    shapes: Sequence[Shape],
    ratios: Sequence[float],
    *,
    features: Sequence[int] = FEATURES,
    exact: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """No mask first, then every (shape, ratio), the largest mean change first.

    Numbers of `features` above the values of a sample or half the number of samples, which say nothing, are left out.
    `progress` is called after each pair.
    """
    cases = ((shape.name, ratio, shape.seen(ratio, exact=exact)) for shape in shapes for ratio in ratios)
    plain, *findings = _list_examined(moments, cases, features, progress)
    if not findings:
        raise ValueError(f"give at least one shape and one ratio, got {len(shapes)} shapes, ratios {tuple(ratios)}")
    return [plain, *sorted(findings, key=lambda finding: -finding.mean_change)]


def measure_masks(
    moments: Moments, masks: Mapping[str, Visibility], side: int, *, features: Sequence[int] = FEATURES
) -> list[Finding]:
    """No mask first, then each of some masks by its name; moments: of pictures of side x side pixels."""
    channels = len(moments.covariance) // side**2
    cases = ((name, 1 - float(one.each.mean()), one.seen(side, channels)) for name, one in masks.items())
    return _list_examined(moments, cases, features)


def _list_examined(
    moments: Moments,
    cases: Iterable[tuple[str, float, VisibleParts]],
    features: Sequence[int],
    progress: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """No mask first, then each case: name, masked ratio and what is seen."""
    allowed = min(len(moments.covariance), moments.count // 2)
    wanted = sorted({k for k in features if 1 <= k <= allowed})
    if not wanted:
        raise ValueError(
            f"features lie in 1 ... {allowed}, half of {moments.count} samples at most, got {tuple(features)}; give "
            "more samples or fewer features"
        )
    most = measure_supervised_alignment(moments, wanted[-1])
    plain = alignment(moments, wanted[-1]).share / most
    findings = [_make_finding(None, 0.0, plain, plain, wanted)]
    for name, ratio, seen in cases:
        findings.append(_make_finding(name, ratio, alignment(moments, wanted[-1], seen).share / most, plain, wanted))
        progress()
    return findings


def _make_finding(
    shape: str | None, ratio: float, alignment: Floats, plain: Floats, features: Sequence[int]
) -> Finding:
    change = alignment / np.maximum(plain, 1e-12) - 1
    return Finding(
        shape=shape,
        ratio=ratio,
        alignment={k: float(alignment[k - 1]) for k in features},
        change={k: float(change[k - 1]) for k in features},
    )


def show(findings: Sequence[Finding], moments: Moments, console: Console) -> None:
    """Prints the alignment without a mask, and the change that each mask makes, in percent."""
    plain, *masked = findings
    table = Table(
        padding=(0, 0, 0, 1),
        title="Alignment of 1, 2, 4, ... features with the labels: without a mask, and the change by each mask",
    )
    for name in ("hidden together", "ratio", *map(str, plain.alignment), "mean"):
        table.add_column(name, justify="left" if name == "hidden together" else "right", no_wrap=True, min_width=5)
    table.add_row("nothing", "-", *(f"{value:.3f}" for value in plain.alignment.values()), "")
    table.add_section()
    for finding in masked:
        changes = (f"{100 * value:+.1f}%" for value in (*finding.change.values(), finding.mean_change))
        table.add_row(str(finding.shape), f"{finding.ratio:g}", *changes)
    console.print(table)
    best = masked[0]
    if best.mean_change > 0:
        console.print(f"Best: {best.shape} at {best.ratio:g}, {100 * best.mean_change:+.1f} % on average.")
    else:
        console.print("None of these masks makes the features more predictive of the labels than no mask.")
    if few := few_samples(moments):
        console.print(f"[yellow]few samples[/]: {few}")


def few_samples(moments: Moments) -> str:
    """What too few samples do to the figures, in words; "" where there are enough."""
    values = len(moments.covariance)
    if moments.count >= 2 * values:
        return ""
    return (
        f"{moments.count} of {values} values each. With fewer than two samples a value the probe fits noise: use more "
        "samples or smaller pictures before believing the last digits."
    )


def mask_rows(findings: Sequence[Finding]) -> list[tuple[str, list[str]]]:
    """The rows of a table with a column for no mask, and one for each mask with the change that it makes."""
    plain, *masked = findings
    return [
        ("hidden", ["-", *(f"{one.ratio:.1%}" for one in masked)]),
        *(
            (f"{k} feature{'s'[: k > 1]}", [f"{value:.3f}", *(f"{100 * one.change[k]:+.1f}%" for one in masked)])
            for k, value in plain.alignment.items()
        ),
        ("mean", ["", *(f"{100 * one.mean_change:+.1f}%" for one in masked)]),
    ]
