"""How far exports lie from the runs that they are of, on raw samples of odd sizes and lengths: a table for docs.

    python benchmarks/exports.py --samples 50 [--seed 0] [FAMILY ...]

Small models of every family are trained for two steps on raw samples that are made here, and go to every target. The
lines of each model card are run on the raw files in a process without maskstream (tests/train/raw_exports.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.train.raw_exports import FAMILIES, Found, measure

TARGETS = ("hf", "timm", "torch", "onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=[*FAMILIES], metavar="FAMILY")
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    found: dict[str, dict[str, Found]] = {}
    for name in words.families:
        with tempfile.TemporaryDirectory() as folder:
            for one in measure({name: FAMILIES[name]}, Path(folder), words.samples, words.seed):
                found.setdefault(one.family, {})[one.target] = one
                print(one.family, one.target, f"{one.card:.1e}", one.own, file=sys.stderr, flush=True)
    print(f"| model | {' | '.join(TARGETS)} | own processor |\n| --- |{' ---: |' * (len(TARGETS) + 1)}")
    for name, row in found.items():
        cells = [f"{row[to].card:.1e}" if to in row else "" for to in TARGETS]
        own = ", ".join(f"{to} {row[to].own:.2g}" for to in TARGETS if to in row and row[to].own is not None)
        print(f"| {name} | {' | '.join(cells)} | {own} |")


if __name__ == "__main__":
    main()
