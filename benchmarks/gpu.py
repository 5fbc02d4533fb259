"""The first run on a card: `make gpu`. Each step runs in a process of its own with its own time limit.

Writes runs/gpu.json (every figure, card, driver, versions, commit) after each step, and prints a table for
docs/benchmarks.md. Without a card a step runs on few small videos, or says that it needs a card; so does a step whose
packages are missing. docs/gpu.md says what the steps are, and what to send when one fails.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import gpu_rig
from libraries import start_with_pyav_libraries
from machine import ROOT, facts, version_of

PACKAGES = (
    "maskstream",
    "torch",
    "triton",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "PyNvVideoCodec",
    "torchcodec",
    "av",
    "numpy",
    "numba",
)


@dataclass(frozen=True)
class Step:
    """A step: its function, what it shows, its time limit in seconds, and what it needs: a card, a package."""

    name: str
    shows: str
    seconds: int = 240
    file: str = "gpu_steps"
    card: bool = False
    package: str = ""


STEPS = (
    Step("probe", "driver, libraries, compiler, all graphs", 60),
    Step("tests", "the tests that need a GPU", 180, card=True),
    Step("pixels", "every format against the CPU, and which decoder read it", 240),
    Step("decoding", "clips per second of each decoder and the estimate, and the fastest for each format", 420),
    Step("challenger", "PyNvVideoCodec on the same clips", 60, card=True, package="PyNvVideoCodec"),
    Step("training", "steps with each decoder: clips per second, and time spent waiting for data", 600),
    Step("ranks", "one rank of NCCL: DDP, and FSDP with compiled blocks", 240),
    Step("flow", "moving textures: error and clips per second of each source", 120, "gpu_motion"),
    Step("masks", "masks drawn on the device: tokens, waits, launches", 120, "gpu_motion"),
    Step("endurance", "packets damaged after the checksums were computed, memory, resume", 240),
)
"""In the order in which they say most: a run that is cut off has the first ones."""


def main() -> None:
    """Runs the steps, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/gpu.json")
    parser.add_argument("--only", default="", help="names of steps, separated by commas")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rig = gpu_rig.find_rig()
    if arguments.step:
        step = next(step for step in STEPS if step.name == arguments.step)
        figures, wrong = getattr(import_module(step.file), step.name)(rig)
        print(json.dumps({"figures": figures, "wrong": wrong}))
        return
    rows: dict[str, dict[str, Any]] = {}
    result = {"card": rig.card or "none", **facts(PACKAGES), "steps": rows}
    only = set(filter(None, arguments.only.split(",")))
    for step in STEPS:
        if not only or step.name in only:
            rows[step.name] = run(step, rig)
            print(line(step, rows[step.name]), flush=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    if not rig.is_real:
        print("Tensors were on the CPU, and videos were VP9, which DALI decodes there: this proves no speed.")
    failed = [name for name, row in rows.items() if row["state"] in ("failed", "timed out")]
    print(f"{len(failed)} steps failed{': ' + ', '.join(failed) if failed else ''}; all figures are in {arguments.out}")
    sys.exit(1 if failed else 0)


def run(step: Step, rig: gpu_rig.Rig) -> dict[str, Any]:
    """The state, the seconds and the figures of a step; a step that fails or takes too long ends nothing else."""
    row: dict[str, Any] = {"state": "failed", "seconds": 0.0, "figures": {}, "wrong": []}
    if step.card and not rig.is_real:
        return {**row, "state": "needs a card"}
    if step.package and version_of(step.package) == "not installed":
        return {**row, "state": f"needs {step.package}"}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        words = [sys.executable, sys.argv[0], "--step", step.name]
        try:
            code = subprocess.run(words, stdout=out, stderr=errors, timeout=step.seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            return {**row, "state": "timed out", "wrong": [f"took more than {step.seconds} s"]}
        out.seek(0)
        errors.seek(0)
        lines, said = out.read().splitlines(), errors.read().splitlines()
    row["seconds"] = round(time.perf_counter() - start, 1)
    if code or not lines:
        return {**row, "wrong": said[-6:] or [f"it ended in {code}"]}
    found = json.loads(lines[-1])
    return {**row, **found, "state": "failed" if found["wrong"] else "passed"}


def line(step: Step, row: dict[str, Any]) -> str:
    """A row of the table."""
    said = json.dumps(row["figures"]) if row["figures"] else step.shows
    wrong = f"; wrong: {row['wrong'][-1]}" if row["wrong"] else ""
    return f"| {step.name} | {row['state']} | {row['seconds']} s | {said}{wrong} |"


if __name__ == "__main__":
    start_with_pyav_libraries(ROOT / "runs/libraries")
    main()
