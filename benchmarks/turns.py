"""Works that are compared take turns, so a machine that slows down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Self

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


def least_ms(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The minimum CPU time of each work in milliseconds."""
    found = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            found[name] = min(found[name], 1e3 * (time.process_time() - start))
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
