"""The page of a comparison by Recursive ROAR: the curve of each measure, its RACU, and the values in a table."""

from pathlib import Path

import numpy as np

from maskstream.train.papers.roar.model import RANDOM
from maskstream.train.papers.roar.roar import RoarResult

from .figures.chart import Chart, Line
from .page import render, write_page


def write_roar_page(result: RoarResult, data: str | Path, out: str | Path) -> Path:
    """Write the page of a result.

    Args:
        result: The result.
        data: The training split, which the page names.
        out: HTML file.
    """
    levels = np.array(result.levels, np.float64)
    curves = {name: np.array([curve.values for curve in result.of(name)]) for name in result.measures}
    thin = [
        Line(x=levels, y=one, name="", hue=hue, thin=True) for hue, some in enumerate(curves.values()) for one in some
    ]
    means = [Line(x=levels, y=some.mean(axis=0), name=name, hue=hue) for hue, (name, some) in enumerate(curves.items())]
    rows = {
        name: [_format_area(result, name), *(f"{column.mean():.3f}" for column in some.T)]
        for name, some in curves.items()
    }
    form = "Recursive ROAR" if result.recursive else "ROAR"
    html = render(
        "roar.html.j2",
        title=f"{form} of {result.recipe}",
        facts={
            "data": str(data),
            "texts tested": f"{result.test:,}",
            "trainings a level": str(len(result.of(RANDOM))),
            "majority": f"macro F1 {result.majority:.3f}",
        },
        recursive=result.recursive,
        columns=["RACU", *(f"{level} %" for level in result.levels)],
        table=rows,
        charts=True,
        chart=Chart(
            lines=(*thin, *means), said="Macro F1 by level", include=(0.0, result.majority), reference=result.majority
        ),
    )
    return write_page(html, out)


def _format_area(result: RoarResult, name: str) -> str:
    if name == RANDOM:
        return "0 by definition"
    values = result.racu(name)
    return f"{sum(values) / len(values):+.2f} ({min(values):+.2f} to {max(values):+.2f})"
