"""Scores all pairs of a shape and a ratio by how well their features predict the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from .alignment import Shape, masked_alignment, plain_alignment, supervised_alignment
from .moments import Floats, Moments

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


def examine(
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
    most_features = min(len(moments.covariance), moments.count // 2)
    wanted = sorted({k for k in features if 1 <= k <= most_features})
    if not wanted or not shapes or not ratios:
        raise ValueError(
            f"give at least one shape, one ratio and one number of features from 1 to {most_features} (half the "
            f"samples at most), got {len(shapes)} shapes, ratios {tuple(ratios)}, features {tuple(features)}"
        )
    most = supervised_alignment(moments, wanted[-1])
    plain = plain_alignment(moments, wanted[-1]).share / most
    findings = [_finding(None, 0.0, plain, plain, wanted)]
    for shape in shapes:
        for ratio in ratios:
            share = masked_alignment(moments, shape, ratio, wanted[-1], exact=exact).share
            findings.append(_finding(shape.name, ratio, share / most, plain, wanted))
            progress()
    return findings[:1] + sorted(findings[1:], key=lambda finding: -finding.mean_change)


def _finding(shape: str | None, ratio: float, alignment: Floats, plain: Floats, features: Sequence[int]) -> Finding:
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
    values = len(moments.covariance)
    if moments.count < 2 * values:
        console.print(
            f"[yellow]few samples[/]: {moments.count} of {values} values each. With fewer than two samples a value the "
            "probe fits noise: use more samples or smaller pictures before believing the last digits."
        )
