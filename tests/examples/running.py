"""Runs what stands in examples/ as a user does: in a folder of its own, with the same commands."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT_S = 600


def run(*command: str | Path, folder: Path, fails: bool = False, **env: str) -> str:
    """What a command prints; fails: whether it is to end with an error."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    said = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, said
    return said


def losses(run: Path) -> list[float]:
    """The losses in a run's metrics; all are numbers."""
    found = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(loss) for loss in found)
    return found


def samples(split: Path) -> int:
    """How many samples dataset.json counts."""
    count: int = json.loads((split / "dataset.json").read_text())["counts"]["samples"]
    return count
