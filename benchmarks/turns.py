"""Works that are compared take turns, so a machine that slows down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


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
