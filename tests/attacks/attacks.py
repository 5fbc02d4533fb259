"""The attacks by name. An attack is a module of this folder with

    attack(count, seed, folder) -> Counter[str]      # or attack(count, seed, folder, where)

which does `count` attacks, drawn from `seed`, below an empty folder and counts their ends. Ends in `BAD` break a
promise of docs/robustness.md; all others, such as "exact" or "refused", keep it. It prints the seed and number of a
bad one.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .where import EXECUTORS, HERE, STORES, Where

BAD = {
    "signal": "signals",
    "hang": "hangs",
    "foreign": "foreign exceptions",
    "wrong": "wrong",
    "missed": "missed",
    "memory": "over the limit of memory",
}
"""The ends that break a promise, and the words for several: a process that died or went on for too long; an exception
that is not a MaskstreamError; another result than that of an undisturbed run; damage that nothing noticed.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """An attack: its module in this folder; how many the test suite does, and the good ends that these must show.

    cost: what one attack costs, as a multiple of the cheapest. `make attack N=5000` does 5000 // cost of them.
    stores, executors: where its shards may lie and its tasks may run (where.py).
    slow: whether the tests leave it to `make test-all`. timed: whether ends depend on the clock, so that not all of
    them occur each time.
    """

    module: str
    few: int
    ends: tuple[str, ...]
    cost: int = 1
    slow: bool = False
    timed: bool = False
    stores: tuple[str, ...] = ("local",)
    executors: tuple[str, ...] = ("local",)

    def is_for(self, store: str, executor: str) -> bool:
        """Whether it can be done there."""
        return store in self.stores and executor in self.executors

    def __call__(self, count: int, seed: int, folder: Path, where: Where = HERE) -> Counter[str]:
        run: Callable[..., Counter[str]] = importlib.import_module(f"{__package__}.{self.module}").attack
        return run(count, seed, folder) if where is HERE else run(count, seed, folder, where)


ATTACKS = {
    "archives": Attack(module="archives", few=60, ends=("refused", "whole"), slow=True),
    "archive-kills": Attack(module="archive_kills", few=6, ends=("exact",), cost=10, slow=True),
    "cache": Attack(module="cache", few=8000, ends=("cached", "fetched"), slow=True),
    "checkpoints": Attack(module="checkpoints", few=40, ends=("exact", "refused"), cost=5, slow=True),
    "erasures": Attack(module="erasures", few=12, ends=("gone",), cost=2, slow=True),
    "exits": Attack(module="exits", few=9, ends=("ended",), cost=10, slow=True),
    "forged": Attack(module="forged", few=70, ends=("right", "replaced", "refused"), slow=True, stores=STORES),
    "flips": Attack(module="flips", few=150, ends=("refused", "right"), stores=STORES, slow=True),
    "fuzz": Attack(module="fuzz", few=150, ends=("refused", "rejected", "right", "sample"), slow=True),
    "index-kills": Attack(module="index_kills", few=8, ends=("exact",), cost=10, slow=True),
    "kept-files": Attack(module="kept_files", few=40, ends=("right",), slow=True),
    "labels": Attack(module="labels", few=40, ends=("refused", "right"), slow=True),
    "long-lists": Attack(module="long_lists", few=8, ends=("refused", "right"), cost=5, slow=True),
    "names": Attack(module="names", few=40, ends=("exact", "refused"), slow=True),
    "names-code": Attack(module="names_code", few=40, ends=("refused", "right"), slow=True),
    "numbers": Attack(module="numbers", few=60, ends=("rejected", "sample"), slow=True),
    "outages": Attack(
        module="outages",
        few=8,
        ends=("exact", "outage"),
        cost=10,
        timed=True,
        slow=True,
        stores=("local", "s3", "az"),
        executors=("local", "ray"),
    ),
    "part-kills": Attack(module="part_kills", few=4, ends=("exact",), cost=20, slow=True, executors=EXECUTORS),
    "raw-exports": Attack(module="raw_exports", few=10, ends=("same",), cost=2, slow=True),
    "reach": Attack(module="reach", few=60, ends=("finished", "refused"), slow=True),
    "replays": Attack(module="replays", few=3, ends=("exact", "named"), cost=25, slow=True),
    "repeats": Attack(module="repeats", few=8, ends=("exact", "refused"), cost=5, slow=True),
    "shard-kills": Attack(
        module="shard_kills",
        few=8,
        ends=("exact",),
        cost=10,
        slow=True,
        stores=("local", "s3", "az"),
        executors=("local", "ray"),
    ),
    "side-files": Attack(module="side_files", few=40, ends=("refused", "right"), slow=True),
    "slow-servers": Attack(module="slow_servers", few=10, ends=("exact", "outage"), cost=20, slow=True, timed=True),
    "sources": Attack(module="sources", few=60, ends=("rejected", "sample"), executors=("local", "ray"), slow=True),
    "stored-targets": Attack(module="stored_targets", few=40, ends=("refused", "replaced", "right"), slow=True),
    "train-kills": Attack(module="train_kills", few=6, ends=("exact",), cost=25, stores=STORES, slow=True),
    "version-kills": Attack(
        module="version_kills", few=8, ends=("exact",), cost=10, slow=True, stores=("local", "s3", "az")
    ),
    "worker-kills": Attack(module="worker_kills", few=8, ends=("exact",), cost=50, slow=True, stores=STORES),
}


def line(name: str, ends: Counter[str], seconds: float) -> str:
    """What came of an attack, in one line: bad ends first, all of them."""
    bad = ", ".join(f"{ends[end]} {words}" for end, words in BAD.items())
    good = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()) if end not in BAD)
    return f"{name}: {ends.total()} attacks: {bad}; {good or 'none ended well'}; {seconds:.0f} s"


def broken(ends: Counter[str]) -> int:
    """How many attacks broke a promise."""
    return sum(ends[end] for end in BAD)
