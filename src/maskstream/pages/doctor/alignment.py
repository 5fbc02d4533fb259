"""The closed form: how much of the labels the first K features of a masked linear autoencoder carry.

A linear autoencoder sees a sample x with some parts set to 0, their mean, and reconstructs x from K features. With S
the covariance of x, E[x masked^T] = q S and E[masked masked^T] = M = S weighted by E[visible_i visible_j]: q where i
and j belong to one part, r elsewhere; q = 1 - p, and r = q^2 where parts are hidden independently. Reduced-rank
regression says that the best features are x -> G^T x, G the first K solutions of q^2 S^2 g = lambda M g; at p = 0 those
are the principal components. How well a linear probe on them tells the classes is the share of the labels' variance
that it explains, R2(K); the alignment is that share of what K supervised features explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .moments import Floats, Moments


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A partition of a sample's D values: `parts` int64 (D,), the number of each value's part."""

    name: str
    parts: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        """The number of parts."""
        return int(self.parts.max()) + 1

    def __post_init__(self) -> None:
        if not np.array_equal(np.unique(self.parts), np.arange(self.parts.max(initial=0) + 1)):
            raise ValueError(f"the parts of shape {self.name} are numbered 0, 1, 2, ..., got {np.unique(self.parts)}")


def shape_of(name: str, side: int, channels: int = 3) -> Shape:
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


def shapes_of(side: int, names: Sequence[str] | None = None, channels: int = 3) -> tuple[Shape, ...]:
    """The shapes `names`; by default squares of 1, 2, 4, ... pixels up to half the picture, rows and columns."""
    if names is None:
        names = [*(str(k) for k in (1, 2, 4, 8, 16) if k < side and side % k == 0), "rows", "columns"]
    return tuple(shape_of(name, side, channels) for name in names)


RIDGE = 1e-6
"""Of the mean variance, added to the diagonal: constant pixels carry no feature, and nothing divides by 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """share: float64 (K,), of the labels' variance, what a linear probe on the first 1 ... K features explains.
    strength: float64 (K,), the variance of the sample that each feature reconstructs, descending.
    """

    share: Floats
    strength: Floats


def plain_alignment(moments: Moments, features: int) -> Alignment:
    """Without a mask: the first `features` principal components."""
    return _alignment(moments, _covariance(moments), 1.0, features)


def masked_alignment(moments: Moments, shape: Shape, ratio: float, features: int, *, exact: bool = False) -> Alignment:
    """With parts of `shape` hidden at `ratio`: each by itself, or with `exact` floor((1 - ratio) n) of n stay visible.

    ValueError where the shape is that of other samples, and where nothing stays visible.
    """
    covariance = _covariance(moments)
    if shape.parts.shape != (len(covariance),):
        raise ValueError(f"shape {shape.name} has {len(shape.parts)} values, the samples {len(covariance)}")
    same, across = visible_chances(shape.count, ratio, exact=exact)
    parts = torch.from_numpy(shape.parts)
    together = parts[:, None] == parts[None, :]
    weight = torch.where(together, same, across).to(torch.float64)
    return _alignment(moments, covariance * weight, same, features)


def visible_chances(parts: int, ratio: float, *, exact: bool) -> tuple[float, float]:
    """How probable it is that one part is visible, and that two are."""
    if not 0 <= ratio < 1:
        raise ValueError(f"a masked ratio lies in [0, 1), got {ratio}")
    if not exact:
        return 1 - ratio, (1 - ratio) ** 2
    visible = int((1 - ratio) * parts + 1e-9)
    if visible == 0:
        raise ValueError(f"at ratio {ratio} none of {parts} parts stays visible; use a smaller ratio or smaller parts")
    return visible / parts, visible * (visible - 1) / (parts * max(parts - 1, 1))


def supervised_alignment(moments: Moments, features: int) -> Floats:
    """What the best linear features for the labels explain: float64 (K,), the most that any `share` can be."""
    half = _lower(_covariance(moments))
    mixed = torch.linalg.solve_triangular(half, torch.from_numpy(moments.with_labels), upper=False)
    squares = torch.linalg.svdvals(mixed).square()
    padded = torch.zeros(max(features, len(squares)), dtype=torch.float64)
    padded[: len(squares)] = squares
    out: Floats = (padded.cumsum(0)[:features] / moments.label_variance).numpy()
    return out


def _alignment(moments: Moments, masked: Tensor, seen: float, features: int) -> Alignment:
    covariance = _covariance(moments)
    d = len(covariance)
    if not 1 <= features <= d:
        raise ValueError(f"features lie in 1 ... {d}, the values of a sample, got {features}")
    half = _lower(masked)
    # S^2 g = lambda M g with M = L L^T is the plain problem of A A^T, A = L^-1 q S.
    turned = torch.linalg.solve_triangular(half, seen * covariance, upper=False)
    strength, vectors = torch.linalg.eigh(turned @ turned.T)
    last = vectors[:, -features:].flip(1)
    directions = torch.linalg.solve_triangular(half.T, last, upper=True)
    inner = _lower(directions.T @ covariance @ directions)
    probe = torch.linalg.solve_triangular(inner, directions.T @ torch.from_numpy(moments.with_labels), upper=False)
    explained = probe.square().sum(1).cumsum(0) / moments.label_variance
    return Alignment(share=explained.numpy(), strength=strength[-features:].flip(0).numpy())


def _covariance(moments: Moments) -> Tensor:
    """The covariance with the ridge on its diagonal."""
    covariance = torch.from_numpy(moments.covariance)
    ridge = RIDGE * float(covariance.diagonal().mean())
    if ridge <= 0:
        raise ValueError("all samples are equal: there is nothing to reconstruct")
    return covariance + ridge * torch.eye(len(covariance), dtype=torch.float64)


def _lower(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor of a positive matrix."""
    factor: Tensor = torch.linalg.cholesky((matrix + matrix.T) / 2)
    return factor
