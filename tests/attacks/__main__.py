"""Does attacks and prints a line for each; the exit code is 1 if one broke a promise of docs/robustness.md.

python -m tests.attacks [NAME ...] [-n 1000] [--seed 0] [--store s3] [--executor ray]
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

from .attacks import ATTACKS, broken, line
from .where import EXECUTORS, STORES, opened


def main(words: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ATTACKS)} [default: all]")
    parser.add_argument("-n", type=int, default=1000, help="how many; of costly ones fewer [default: 1000]")
    parser.add_argument("--seed", type=int, default=0, help="what the attacks are drawn from [default: 0]")
    parser.add_argument("--store", choices=STORES, default="local", help="where shards lie [default: local]")
    parser.add_argument("--executor", choices=EXECUTORS, default="local", help="where tasks run [default: local]")
    chosen = parser.parse_args(words)
    if unknown := set(chosen.names) - ATTACKS.keys():
        parser.error(f"no attack is named {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    place = (chosen.store, chosen.executor)
    possible = [name for name, attack in ATTACKS.items() if attack.is_for(*place)]
    if others := set(chosen.names) - set(possible):
        parser.error(f"not with {' and '.join(place)}: {', '.join(sorted(others))}; there are {', '.join(possible)}")
    failed = 0
    for name in chosen.names or possible:
        attack, begun = ATTACKS[name], time.monotonic()
        with tempfile.TemporaryDirectory(prefix="attack-") as folder, opened(*place, Path(folder)) as where:
            ends = attack(max(1, chosen.n // attack.cost), chosen.seed, Path(folder), where)
        print(line(name, ends, time.monotonic() - begun), flush=True)
        failed += broken(ends)
    return 1 if failed else 0


if __name__ == "__main__":  # not in `main`, which tests call
    logging.disable(logging.WARNING)
    os.environ["OPENCV_LOG_LEVEL"] = "OFF"
    sys.exit(main())
