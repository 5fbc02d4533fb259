"""Compares every number of a command's JSON between two checkouts, which run in turns.

    python benchmarks/before_after.py --before ../old --after . -- $PWD/benchmarks/loader.py --rounds 1 --out {out}
    python benchmarks/before_after.py --before ../old --after . -- -m maskstream bench {shards} --json --samples 400

This Python runs the command in each checkout's folder with the checkout's `src` on its path. The command writes JSON to
`{out}`, or prints it as its last line. `{shards}` stands for the folder --shards in the checkout. The checkouts
alternate in going first, so that a machine that slows down slows both. Printed are the medians over the rounds of each
number before and after, and of their ratio within a round; behind it the quartiles of that ratio. A ratio whose
quartiles lie on both sides of 1 shows no difference: run more rounds. `--per` names the number to divide by, such as
that of another reader in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from turns import quartiles

NAMES = ("contest", "reader")
"""The fields of a row that name it, in tables like loader.py's."""


def numbers(data: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yields every number in the JSON with its path; a row of a table is named by its fields NAMES."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from numbers(value, f"{path} {name}".strip())
    elif isinstance(data, list):
        for n, value in enumerate(data):
            words = [str(value[name]) for name in NAMES if name in value] if isinstance(value, Mapping) else [str(n)]
            yield from numbers(value, f"{path} {' '.join(words)}".strip())
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield path, float(data)


def measured(checkout: Path, command: list[str], shards: Path) -> dict[str, float]:
    """The numbers of one run in a checkout; raises SystemExit with the command's error output if it fails."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        words = [word.format(out=out, shards=checkout / shards) for word in command]
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        run = subprocess.run(
            [sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise SystemExit(f"{' '.join(words)} in {checkout} ended with {run.returncode}:\n{run.stderr[-2000:]}")
        text = out.read_text() if out.exists() else run.stdout.strip().splitlines()[-1]
    return dict(numbers(json.loads(text)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="the checkout before the change")
    parser.add_argument("--after", type=Path, required=True, help="the checkout after it")
    parser.add_argument(
        "--shards", type=Path, default=Path(), help="a folder that both checkouts contain, for {shards}"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which both checkouts run once")
    parser.add_argument("--only", default="cpu", help="compare only numbers whose names contain this text")
    parser.add_argument("--per", default="", help="divide by the number with this name")
    parser.add_argument("command", nargs="+", help="what Python runs, after --")
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for n in range(arguments.rounds):
        for name in list(checkouts)[:: 1 if n % 2 == 0 else -1]:
            rounds[name].append(measured(checkouts[name], arguments.command, arguments.shards))
        print(f"round {n + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    for name in [one for one in rounds["before"][0] if arguments.only in one and one in rounds["after"][0]]:
        one, two = ([r[name] / r.get(arguments.per, 1.0) for r in rounds[when]] for when in ("before", "after"))
        if all(one) and all(two):
            ratios = [b / a for a, b in zip(one, two, strict=True)]
            low, middle, high = quartiles(ratios)
            print(f"{median(one):10.3f} {median(two):10.3f} {middle:7.3f} [{low:.3f} {high:.3f}]  {name}")


if __name__ == "__main__":
    main()
