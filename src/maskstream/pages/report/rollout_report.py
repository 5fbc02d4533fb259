"""Compares rollouts of several runs with each other and with persistence: a page, and numbers for scripts."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maskstream.pages.figures.card import Card, Section
from maskstream.pages.figures.chart import Chart, Line
from maskstream.pages.figures.mesh import MeshFigures, ShownField, draw_fields, get_mesh_nodes
from maskstream.pages.figures.pictures import draw_row
from maskstream.pages.page import render, write_page
from maskstream.shards.arrays import Float32s
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.process import CPU, compute_threads
from maskstream.train.core.run_folder import run_weights
from maskstream.train.core.weights import load_model
from maskstream.train.papers.meshmask.evaluate import (
    ROLLOUTS,
    Trajectories,
    measure_rollout_error,
    measure_steps,
    next_model,
    open_reader,
    persist,
    rollout,
)

_MARKS = (1, 10, 50)
PERSISTENCE = "persistence"
SHOWN = 2
"""Maximum number of trajectories that are drawn."""
SHOWN_STEPS = (1 / 15, 1 / 3, 2 / 3, 1)
"""Steps of a rollout that are drawn, as parts of its length."""


def compare_rollouts(
    runs: Sequence[str | Path],
    data: str | Path,
    out: str | Path | None = None,
    *,
    count: int | None = None,
    steps: int | None = None,
    component: str | None = None,
) -> dict[str, Any]:
    """Compare the rollouts of models with each other and with persistence.

    Args:
        runs: Folders of the runs.
        data: Location of the split.
        out: HTML file of a page with two trajectories; None for no page.
        count: Number of trajectories; None for all.
        steps: Steps of each; None for the length of the shortest.
        component: Mesh to read if samples have several.

    Returns:
        For persistence and for each run by its folder, the loss of one step (`one_step`) and the root mean square
            errors of the rollouts in standard deviations of the fields, as plain JSON values.

    Raises:
        ValueError: A run is not of a next-step model, or the split has no such trajectories.
    """
    split = Manifest.load(data)
    trajectories = Trajectories.open(split, count, steps, component)
    made: dict[str, Tensor] = {PERSISTENCE: persist(trajectories)}
    one_step: dict[str, float] = {}
    with compute_threads(CPU):
        for run in runs:
            model = next_model(load_model(run_weights(Path(run))))
            one_step[str(run)], one_step[PERSISTENCE] = measure_steps(model, trajectories)
            made[str(run)] = rollout(model, trajectories)
    errors = {name: measure_rollout_error(fields, trajectories) for name, fields in made.items()}
    last = len(errors[PERSISTENCE])
    marks = sorted({mark for mark in (*_MARKS, last) if mark <= last})
    table = {
        name: {
            "one_step": one_step[name],
            **{f"step {mark}": float(error[mark - 1]) for mark in marks},
            f"mean of {last}": float(error.mean()),
        }
        for name, error in errors.items()
    }
    if out is not None:
        models = {name: fields for name, fields in made.items() if name != PERSISTENCE}
        cards = draw_rollout_cards(MeshFigures(reader=open_reader(split, component)), trajectories, models)
        text = render(
            "rollout.html.j2",
            title="Rollouts",
            facts={"trajectories": f"{len(trajectories.start)} of {data}", "steps": str(last)},
            table={name: [f"{value:.3f}" for value in row.values()] for name, row in table.items()},
            columns=[column.replace("_", " ") for column in table[PERSISTENCE]],
            charts=True,
            chart=_draw_chart(errors),
            section=Section(
                title="Rollouts and ground truth", words=ROLLOUTS, cards=tuple(islice(cards, SHOWN)), layout="wide"
            ),
        )
        write_page(text, out)
    return {"trajectories": len(trajectories.start), "errors": table}


def _draw_chart(errors: Mapping[str, Float32s]) -> Chart:
    """Draw the errors by step; larger errors of diverging rollouts are cut off."""
    top = max(float(error.max()) for error in errors.values() if np.isfinite(error).all())
    steps = np.arange(1, len(errors[PERSISTENCE]) + 1, dtype=np.float64)
    lines = (
        Line(x=steps, y=error.astype(np.float64), name=name, hue=i) for i, (name, error) in enumerate(errors.items())
    )
    return Chart(lines=tuple(lines), said="Error by step", include=(0.0,), top=top)


def draw_rollout_cards(figures: MeshFigures, trajectories: Trajectories, made: Mapping[str, Tensor]) -> Iterator[Card]:
    """Draw the truth and the rollouts of each trajectory at a few steps, with one colour scale.

    Args:
        figures: Figures of the meshes.
        trajectories: The trajectories.
        made: Rollouts float32 (T, N, D) by name.
    """
    reader, last = figures.reader, len(trajectories.fields) - 1
    steps = sorted({max(round(part * last), 1) for part in SHOWN_STEPS})
    for i, key in enumerate(trajectories.start.key):
        nodes = get_mesh_nodes(trajectories.start, i)
        mesh, shown = reader.mesh(i), ShownField.of(reader, i)
        drawn = {name: values[:, nodes].numpy() for name, values in {"Truth": trajectories.fields, **made}.items()}
        scale = shown.scale(drawn["Truth"])
        rows = []
        for step in steps:
            title = f"After {step} step{'s'[: step > 1]}"
            images = {name: draw_fields(mesh, shown, values[step], scale) for name, values in drawn.items()}
            rows.append(draw_row(images, key, title=title))
        words = shown.name if scale is None else f"{shown.name}, {scale[0]:.2f} (dark) to {scale[1]:.2f} (bright)"
        yield Card(key=key, words=words, figures=tuple(rows))
