"""What a process costs before it computes: imports, a first batch, and worker processes.

    python benchmarks/start.py DATA [--rounds 9]

DATA is a split of videos, such as data/shards/sample/train. Each step is a process of its own with one thread of BLAS,
and steps take turns. What is compiled, of Python and of kernels, is kept from a round before that does not count.

CPU time is that of the process at the end of the step, with the interpreter's own start; memory is its peak. Workers:
PSS is the sum over the process, its workers and what they need, so memory that they share counts once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from machine import facts
from turns import in_turns

END = """
import resource, time
print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
LOADER = """
import sys
from maskstream.pipelines import VideoClip, masks, video_loader
run = video_loader(sys.argv[1], clip=VideoClip(frames=16, stride=4), mask=masks.{mask}, batch_size=8, device="cpu",
                   threads=1, workers={workers})
batches = run.repeat()
next(batches)
"""
WORKERS = """
import time
from pathlib import Path

def children(pid):
    own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*own, *(deep for one in own for deep in children(one))]

def pss(pid):
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0]) / 1024

def cpu(pid):
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])) / 100

begun = time.perf_counter()
LOADER
wall = time.perf_counter() - begun
for _ in range(4):
    next(batches)
time.sleep(1)
print(sum(map(cpu, run._production.pool.pids)) / 2, sum(map(pss, ["self", *children(__import__("os").getpid())])), wall)
"""
STEPS = {
    "torch": "import torch",
    "maskstream": "import maskstream.pipelines",
    "maskstream's `video_loader`": "from maskstream.pipelines import video_loader",
    "webdataset": "import webdataset",
    "SPDL": "import spdl.io, spdl.pipeline",
    "torchcodec": "import torchcodec.decoders",
    "MDS": "import streaming",
    "first batch, tube masks": LOADER.format(mask="Tube(ratio=0.9)", workers=0),
    "first batch, motion-guided masks": LOADER.format(mask="MotionGuided(ratio=0.9)", workers=0),
}
PACKAGES = {"webdataset": "webdataset", "SPDL": "spdl", "torchcodec": "torchcodec", "MDS": "streaming"}


def main() -> None:
    """Prints a table of the medians of all rounds, with quartiles."""
    parser = argparse.ArgumentParser(description="What a process costs before it computes.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    scripts = {name: script + END for name, script in STEPS.items() if find_spec(PACKAGES.get(name, "torch"))}
    two = LOADER.format(mask="Tube(ratio=0.9)", workers=2)
    scripts["two workers"] = WORKERS.replace("LOADER", two)
    found: dict[str, list[list[float]]] = {name: [] for name in scripts}
    with tempfile.TemporaryDirectory() as kept:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": kept}
        env.pop("PYTHONDONTWRITEBYTECODE", None)

        def step(name: str) -> float:
            command = [sys.executable, "-c", scripts[name], str(arguments.data)]
            said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
            found[name].append([float(word) for word in said.split()])
            return found[name][-1][0]

        in_turns({name: lambda name=name: step(name) for name in scripts}, arguments.rounds)
    print(json.dumps(facts(("torch", "numba", *PACKAGES.values()))))
    print("| | CPU s | quartiles | MB | wall s |\n| --- | ---: | ---: | ---: | ---: |")
    for name, rounds in found.items():
        seconds, memory, *wall = zip(*rounds[1:], strict=True)
        low, median, high = statistics.quantiles(seconds, n=4)
        words = [f"{statistics.median(values):.1f}" for values in wall]
        print(
            f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} | {statistics.median(memory):.0f} | {''.join(words)} |"
        )


if __name__ == "__main__":
    main()
