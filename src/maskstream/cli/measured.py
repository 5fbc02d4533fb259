"""Commands that measure runs: `maskstream evaluate` and `probe`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskstream.shards.flag import DataFlag, ModelFlag, OutputFlag
from maskstream.train.core.options import ProbeOptions, SameSplit

from .terminal import Json, tabulate, tell, working

if TYPE_CHECKING:
    from maskstream.train.evaluate.probe import ProbeResult
    from maskstream.train.evaluate_run import RunEvaluation


def evaluate(
    runs: Annotated[Sequence[Path], ModelFlag("Folders of runs, such as runs/demo.")],
    *,
    data: Annotated[str, DataFlag("Split to evaluate on, preferably for validation.")],
    again: Annotated[bool, OutputFlag("Measure even if evaluation.json already has the scores.")] = False,
    same_split: SameSplit = False,
    as_json: Json = False,
) -> None:
    """Measure runs on a split, compared with training-free predictions (`maskstream docs monitoring#evaluate`).

    The scores are saved in RUN/evaluation.json, as by `report`. Several runs are compared.
    """
    with working(f"opening {', '.join(map(str, runs))} and {data}", as_json) as shown:
        from maskstream.shards.format.manifest import Manifest
        from maskstream.train.evaluate_run import evaluate_run

        split = Manifest.load(data)
        found = []
        for run in runs:
            shown.phase(f"measuring {run} on {data}")
            found.append(evaluate_run(run, split, again=again, same_split=same_split))
    lines = tabulate_scores([str(run) for run in runs], found, compared_runs(runs) if len(runs) > 1 else None)
    tell({"evaluations": [asdict(one) for one in found]}, lines, as_json)


def tabulate_scores(
    names: Sequence[str], found: Sequence[RunEvaluation], differing: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Return the lines of a table: the differences between runs, and each score followed by its baselines, in a column
    per run.

    Args:
        names: Names of the runs.
        found: Evaluations of the runs.
        differing: Settings that differ, with their value in each run.
    """
    from maskstream.pages.report.evaluated import Cells, number, score_name

    cells = Cells(len(found))
    for column, one in enumerate(found):
        for score in one.scores:
            for name, value in {"": score.value, **score.baselines}.items():
                cells.put(score_name(score), name, column, number(value, score.unit))
        for name, value in one.notes.items():
            cells.put(name, "", column, number(value, ""))
    steps = [f"step {one.step}" for one in found]
    return tabulate(names, [*(differing or {}).items(), ("", steps), *cells.rows()])


def probe(
    runs: Annotated[
        Sequence[Path],
        ModelFlag("Folders of runs: several seeds of one recipe, or several recipes to compare."),
    ],
    *,
    data: Annotated[str, DataFlag("Labelled split on which the probes are trained.")],
    test: Annotated[str, DataFlag("Labelled split on which the probes are tested.")],
    out: Annotated[Path | None, OutputFlag("JSON file [default: probe.json in the first run of each recipe].")] = None,
    options: ProbeOptions,
    as_json: Json = False,
) -> None:
    """Measure how well frozen features of runs predict the labels of samples.

    They are compared with untrained encoders of the same recipe and with raw inputs (`maskstream docs probes`). Runs of
    one recipe count as its seeds. Runs of several recipes, such as with different masks, are compared in a column per
    recipe, below the settings that differ. Encoders see whole samples, so the masks of training do not matter here.
    """
    with working(f"opening {', '.join(map(str, runs))}, {data} and {test}", as_json) as shown:
        from maskstream.train.evaluate.probe import PROBE, compare_probes

        found = compare_probes(runs, data, test, replace(options, progress=shown))
    first = next(iter(found.values()))
    differing = compared_runs([some[0] for some in found])
    together = first.to_dict()
    if len(found) > 1:
        told = [{"runs": list(map(str, some)), **result.to_dict()} for some, result in found.items()]
        together = {"differs": differing, "probes": told}
    each = {some[0] / PROBE: result.to_dict() for some, result in found.items()} if out is None else {out: together}
    for path, content in each.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
    table = tabulate_probes(first) if len(found) == 1 else tabulate_compared(found, differing)
    tell(together, chain(table, held_out(runs), [f"wrote {path}" for path in each]), as_json)


def compared_runs(runs: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Return the settings that differ between the recipes of runs, with their value in each."""
    from maskstream.shards.config import compare
    from maskstream.train.core.run_folder import run_recipe

    return compare([run_recipe(run).to_dict(identity=True) for run in runs])


def held_out(runs: Sequence[Path]) -> Iterator[str]:
    """Yield a line for each held-out result in the runs' evaluation.json."""
    from maskstream.pages.report.evaluated import margin, number, score_name
    from maskstream.train.evaluate_run import read_evaluations

    for run in runs:
        for one in read_evaluations(run):
            score = one.scores[0]
            beside = f", {margin(score)}" if score.baselines else ""
            value = number(score.value, score.unit)
            yield f"{run} on {one.data.location}: {score_name(score)} {value}{beside}"


def tabulate_probes(result: ProbeResult) -> list[str]:
    """Return the lines of a table: a row per kind of encoder, a column per probe, with mean and range over seeds."""
    names = list(dict.fromkeys(one.probe for one in result.reached))
    rows = [
        (kind, [format_reached(result, kind, name) for name in names])
        for kind in dict.fromkeys([*(one.encoder for one in result.reached), "margin"])
    ]
    none = [""] * (len(names) - 1)
    return [
        f"{result.recipe}: {_describe_probes(result)}",
        *tabulate(names, [*rows, ("majority", [f"{result.majority:.3f}", *none])]),
    ]


def format_reached(result: ProbeResult, kind: str, name: str) -> str:
    """Return the mean and the range of a probe; "" if it was not measured.

    Args:
        result: The result.
        kind: Kind of encoder, or "margin".
        name: Name of the probe.
    """
    if kind == "margin":
        margin = result.margin(name)
        return "" if margin is None else f"{margin[0]:+.3f} ({margin[1]:.3f})"
    one = result.of(kind, name)
    return "" if one is None else f"{one.mean:.3f} ({one.spread:.3f})"


def _describe_probes(result: ProbeResult) -> str:
    return (
        f"{result.metric} on {result.test} samples of {result.classes} classes, probes trained on {result.train}; mean "
        "and (largest - smallest) over seeds"
    )


def tabulate_compared(
    found: Mapping[tuple[Path, ...], ProbeResult], differing: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the lines of a table: a column for the runs of each recipe, below the settings that differ.

    Args:
        found: Results by runs.
        differing: Settings that differ, with their value for each result.
    """
    from maskstream.train.evaluate.probe import TRAINED

    results = list(found.values())
    rows = [*differing.items(), ("seeds", [", ".join(map(str, one.seeds[TRAINED])) for one in results])]
    kinds = dict.fromkeys([*(one.encoder for result in results for one in result.reached), "margin"])
    for name in dict.fromkeys(one.probe for one in results[0].reached):
        rows.append((f"{name} probe", [""] * len(results)))
        cells = {kind: [format_reached(result, kind, name) for result in results] for kind in kinds}
        rows += [(f"  {kind}", some) for kind, some in cells.items() if any(some)]
    rows.append(("majority", [f"{result.majority:.3f}" for result in results]))
    names = [f"{some[0]}{f' and {len(some) - 1} more' if len(some) > 1 else ''}" for some in found]
    return [_describe_probes(results[0]), *tabulate(names, rows)]
