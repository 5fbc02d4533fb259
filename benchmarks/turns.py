"""Works that are compared take turns, so a machine that slows down slows all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self

Maker = Callable[..., AbstractContextManager[Callable[[], float]]]


def in_turns(steps: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each step returns (its seconds), a number a round, after a round that does not count.

    Every round runs each step once, and begins with another one.
    """
    names = list(steps)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds = steps[name]()
            if number >= 0:
                found[name].append(seconds)
    return found


class Apart:
    """A work in a process of its own, where `make` of the arguments is a context that gives it. A call does it once."""

    def __init__(self, make: Maker, *about: object) -> None:
        spawn = get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, make, about), daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self) -> float:
        self.pipe.send(True)
        seconds: float = self.pipe.recv()
        return seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.pipe.close()
        self.process.join()


def _serve(pipe: Connection, make: Maker, about: tuple[object, ...]) -> None:
    """Does the work whenever it is asked to, until the other end is closed."""
    with make(*about) as work, suppress(EOFError):
        while pipe.recv():
            pipe.send(work())


class Checkout:
    """A process in a checkout's folder, with its code, in which a script `serve`s: it measures works by name."""

    def __init__(self, folder: Path, script: Path, stack: ExitStack) -> None:
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, str(script.resolve()), "--serve"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(folder.resolve() / "src")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(self.process.kill)
        self.names: list[str] = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)["answer"]
        raise SystemExit("a checkout's process has ended; see its error above")

    def measure(self, name: str) -> float:
        """The processor time of the work in ms, or inf if it cannot be done."""
        assert self.process.stdin is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self._answer())


def serve(names: Sequence[str], measure: Callable[[str], float]) -> None:
    """Says the works of this checkout, then measures each that is named on a line."""
    print(json.dumps({"answer": list(names)}), flush=True)
    for line in sys.stdin:
        try:
            answer = measure(line.strip())
        except Exception as error:
            print(f"{Path.cwd()}: {line.strip()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            answer = float("inf")
        print(json.dumps({"answer": answer}), flush=True)


def compare(script: Path, before: Path, names: Sequence[str], rounds: int, what: str) -> None:
    """Prints a table of works in another checkout and in this folder's, by default of those that both have."""
    with ExitStack() as stack:
        checkouts = [Checkout(folder, script, stack) for folder in (before, Path.cwd())]
        names = names or [name for name in checkouts[0].names if name in checkouts[1].names]
        found: dict[str, list[list[float]]] = {name: [] for name in names}
        for number in range(-1, rounds):
            for name in names:
                turn = [1, 0] if number % 2 else [0, 1]
                ms = {n: checkouts[n].measure(name) for n in turn}
                if number >= 0:
                    found[name].append([ms[0], ms[1]])
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    print(f"| {what} | before, ms | after, ms | ratio | quartiles |\n| --- | ---: | ---: | ---: | --- |")
    for name, rows in found.items():
        a, b = (median(column) for column in zip(*rows, strict=True))
        print(f"| `{name}` | {a:.2f} | {b:.2f} | {_quartiles([b / a for a, b in rows])} |")


def quartiles(values: Sequence[float]) -> list[float]:
    """The lower quartile, the median and the upper quartile; of one value, that value."""
    return quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3


def _quartiles(ratios: Sequence[float]) -> str:
    """The median, and behind it the lower and the upper quartile."""
    low, middle, high = quartiles(ratios)
    return f"{middle:.2f} | {low:.2f} to {high:.2f}"
