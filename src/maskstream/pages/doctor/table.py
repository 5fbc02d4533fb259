"""The findings as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .examine import Finding
from .moments import Moments


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
