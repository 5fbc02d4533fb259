"""Does attacks and prints a line for each; the exit code is 1 if one broke a promise of docs/robustness.md.

python -m tests.attacks [NAME ...] [-n 1000] [--seed 0]
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


def main(words: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ATTACKS)} [default: all]")
    parser.add_argument("-n", type=int, default=1000, help="how many; of costly ones fewer [default: 1000]")
    parser.add_argument("--seed", type=int, default=0, help="what the attacks are drawn from [default: 0]")
    chosen = parser.parse_args(words)
    if unknown := set(chosen.names) - ATTACKS.keys():
        parser.error(f"no attack is named {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    failed = 0
    for name in chosen.names or ATTACKS:
        attack, begun = ATTACKS[name], time.monotonic()
        with tempfile.TemporaryDirectory(prefix="attack-") as folder:
            ends = attack(max(1, chosen.n // attack.cost), chosen.seed, Path(folder))
        print(line(name, ends, time.monotonic() - begun), flush=True)
        failed += broken(ends)
    return 1 if failed else 0


if __name__ == "__main__":  # not in `main`, which tests call
    logging.disable(logging.WARNING)
    os.environ["OPENCV_LOG_LEVEL"] = "OFF"
    sys.exit(main())
