"""Acceptance of the GPU path: `make gpu`. Each step runs in a process of its own with its own time limit.

Writes runs/gpu.json (every figure, card, driver, versions, commit), also where a step fails, and prints a table for
docs/benchmarks.md. Without a card it runs what needs none, says what was not run, and ends in 0.
"""

from __future__ import annotations

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

import torch
from machine import ROOT, facts

PACKAGES = (
    "maskstream",
    "torch",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "av",
    "numpy",
    "numba",
    "PyNvVideoCodec",
)
PROOFS = (
    "tests/shards/media/test_uncropped.py",
    "tests/pipelines/modalities/video/test_decoder_choice.py",
    "tests/pipelines/modalities/video/test_decoders.py",
    "tests/pipelines/modalities/video/test_dali.py",
    "tests/pipelines/modalities/video/test_yuv.py",
    "tests/pipelines/flow/test_ofa.py",
    "tests/pipelines/masks/test_motion_on_device.py",
    "tests/train/test_meta_step.py",
)
"""The tests that prove of the GPU path what can be proven without a card."""


@dataclass(frozen=True)
class Step:
    """A step: its time limits in seconds, on a card and without one (0: it needs a card), and what it shows.

    file: where its function is.
    """

    name: str
    seconds: int
    without: int
    shows: str
    file: str = "gpu_steps"


STEPS = (
    Step("probe", 15, 60, "driver, libraries, all graphs"),
    Step("proofs", 90, 900, "the tests that need no card"),
    Step("tests", 50, 0, "the tests that need a card"),
    Step("pixels", 70, 240, "every format against the CPU, and who decoded it"),
    Step("cache", 40, 0, "decoders are found again for any size"),
    Step("decoding", 110, 240, "clips a second by backend, threads and output"),
    Step("challenger", 60, 0, "PyNvVideoCodec against DALI", "gpu_challenger"),
    Step("flow", 60, 240, "textures that move: error and pairs a second of each source", "gpu_motion"),
    Step("masks", 30, 240, "masks drawn on the device: tokens, waits, cost", "gpu_motion"),
    Step("endurance", 70, 240, "damaged clips, memory, resume"),
    Step("training", 140, 240, "videomae-small and -base"),
    Step("torchrun", 30, 240, "torchrun against plain"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/gpu.json")
    parser.add_argument("--only", default="", help="the names of steps, separated by commas")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    if arguments.step:
        print(json.dumps(_figures(arguments.step, device)))
        return
    on_card = device.type == "cuda"
    result: dict[str, Any] = {
        "card": torch.cuda.get_device_name(device) if on_card else "none",
        **facts(PACKAGES),
        "steps": {},
    }
    only = set(filter(None, arguments.only.split(",")))
    for step in STEPS:
        if not only or step.name in only:
            result["steps"][step.name] = _run(step, on_card)
            _write(arguments.out, result)
            print(_line(step, result["steps"][step.name]), flush=True)
    failed = [name for name, row in result["steps"].items() if row["state"] in ("failed", "timed out")]
    if not on_card:
        print("No card is here: steps 'not run' need one, the others ran on the CPU with VP9 and prove no speed.")
    print(f"{len(failed)} steps failed{': ' + ', '.join(failed) if failed else ''}; all figures are in {arguments.out}")
    sys.exit(1 if failed else 0)


def _figures(name: str, device: torch.device) -> dict[str, Any]:
    """What a step finds, in this process."""
    if name in ("tests", "proofs"):
        chosen = ["-m", "gpu", "tests/pipelines"] if name == "tests" else ["-m", "not gpu", *PROOFS]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rs", *chosen],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout.strip().splitlines()
        return {"figures": {"pytest": said[-1:]}, "wrong": said[-12:] if done.returncode else []}
    step = next(step for step in STEPS if step.name == name)
    figures, wrong = getattr(import_module(step.file), name)(device)
    return {"figures": figures, "wrong": wrong}


def _run(step: Step, on_card: bool) -> dict[str, Any]:
    """The state, the seconds and the figures of a step; a step that fails or takes too long ends nothing else."""
    limit = step.seconds if on_card else step.without
    if not limit:
        return {"state": "not run", "seconds": 0.0, "figures": {}, "wrong": ["it needs a card"]}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, str(Path(__file__).resolve()), "--step", step.name]
        try:
            code = subprocess.run(command, stdout=out, stderr=errors, timeout=limit, check=False).returncode
        except subprocess.TimeoutExpired:
            return {"state": "timed out", "seconds": limit, "figures": {}, "wrong": [f"it took more than {limit} s"]}
        out.seek(0)
        errors.seek(0)
        lines, said = out.read().splitlines(), errors.read().splitlines()
    seconds = round(time.perf_counter() - start, 1)
    if code or not lines:
        return {"state": "failed", "seconds": seconds, "figures": {}, "wrong": said[-6:] or [f"it ended in {code}"]}
    found = json.loads(lines[-1])
    return {"state": "failed" if found["wrong"] else "passed", "seconds": seconds, **found}


def _line(step: Step, row: dict[str, Any]) -> str:
    """A row of the table."""
    kept = {name: value for name, value in row["figures"].items() if not name.endswith("stages")}
    said = json.dumps(kept) if kept else step.shows
    wrong = f"; wrong: {row['wrong'][-1]}" if row["wrong"] and row["state"] != "not run" else ""
    return f"| {step.name} | {row['state']} | {row['seconds']} s | {said}{wrong} |"


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
