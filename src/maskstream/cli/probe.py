"""`maskstream probe`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import Json, say

if TYPE_CHECKING:
    from maskstream.train.evaluate.probe import ProbeResult


def probe(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs of one recipe that differ in their seed.", show_default=False),
    ],
    data: Annotated[str, typer.Option(help="The labelled split that probes are trained on.", show_default=False)],
    test: Annotated[str, typer.Option(help="The labelled split that they are tested on.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The JSON file [default: probe.json in the first run]", show_default=False)
    ] = None,
    probes: Annotated[
        str, typer.Option(help="The probes, with commas between: knn10, knn20, linear, attentive.")
    ] = "knn10,knn20,linear,attentive",
    seeds: Annotated[int, typer.Option(min=1, help="How many untrained encoders are compared.")] = 3,
    samples: Annotated[int, typer.Option(min=1, help="The most samples of each split.")] = 10_000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: Json = False,
) -> None:
    """Measure what can be read from a run's frozen features of labelled samples.

    It compares them with untrained encoders of the same recipe and with raw inputs (docs/probes.md).
    """
    from maskstream.pipelines.stream.topology import resolved_device
    from maskstream.train.evaluate.probe import PROBE
    from maskstream.train.evaluate.probe import probe as measure

    result = measure(
        runs,
        data,
        test,
        probes=[name.strip() for name in probes.split(",") if name.strip()],
        seeds=seeds,
        samples=samples,
        device=resolved_device(device),
    )
    written = runs[0] / PROBE if out is None else out
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    for line in [*table(result), *held_out(runs)]:
        say(line)
    say(f"wrote {written}")


def held_out(runs: Sequence[Path]) -> Iterator[str]:
    """What the runs reach on held-out samples, a line each, of what their evaluation.json has."""
    from maskstream.pages.report.evaluated import margin, number, score_name
    from maskstream.train.evaluations import kept_evaluations

    for run in runs:
        for one in kept_evaluations(run):
            score = one.scores[0]
            beside = f", {margin(score)}" if score.baselines else ""
            value = number(score.value, score.unit)
            yield f"{run} on {one.data.location}: {score_name(score)} {value}{beside}"


def table(result: ProbeResult) -> list[str]:
    """The lines of a table: a row per kind of encoder, a column per probe, each with its mean and spread."""
    names = list(dict.fromkeys(one.probe for one in result.reached))
    kinds = list(dict.fromkeys(one.encoder for one in result.reached))
    width = max(map(len, ["majority", "margin", *kinds]))

    def row(head: str, cells: list[str]) -> str:
        return "  ".join([head.ljust(width), *(cell.rjust(15) for cell in cells)]).rstrip()

    lines = [
        f"{result.recipe}: {result.metric} on {result.test} samples of {result.classes} classes, probes trained on "
        f"{result.train}; mean and (largest - smallest) over seeds",
        row("", names),
    ]
    for kind in kinds:
        found = [result.of(kind, name) for name in names]
        lines.append(row(kind, ["" if one is None else f"{one.mean:.3f} ({one.spread:.3f})" for one in found]))
    margins = [result.margin(name) for name in names]
    lines.append(row("margin", ["" if one is None else f"{one[0]:+.3f} ({one[1]:.3f})" for one in margins]))
    lines.append(row("majority", [f"{result.majority:.3f}"]))
    return lines
