"""What a process costs before it computes: imports, a first batch, and worker processes.

    python benchmarks/start.py DATA [--rounds 9] [--ranks 8]

DATA is a split of videos, such as data/shards/sample/train. Each step is a process of its own with one thread of BLAS,
and steps take turns. What is compiled, of Python and of kernels, is kept from a round before that does not count.

CPU time is that of the process at the end of the step, with the interpreter's own start; memory is its peak. Workers:
memory is that of the process, its workers and what they need after five batches. What they share counts once, as in
PSS; so does each page of a file, also where others here have it, and a batch that waits in shared memory which nobody
has mapped. `torchcodec, two workers` is torch's DataLoader, which forks this process, on the same videos. With --ranks
so many processes with two workers each run at once, as on a machine with as many cards, and the PSS of one is printed:
pages of files are shared there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from libraries import start_with_pyav_libraries
from machine import facts
from processes import family, pss_mb
from turns import in_turns, quartiles

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
import os, sys, time
from processes import cpu_s, family, memory_mb
begun = time.perf_counter()
LOADER
wall = time.perf_counter() - begun
for _ in range(4):
    next(batches)
time.sleep(1)
print(sum(map(cpu_s, workers)) / 2, memory_mb(family(os.getpid())), wall)
"""
RANK = """
import sys
LOADER
for _ in range(4):
    next(batches)
print("ready", flush=True)
sys.stdin.read()
"""
OF_TORCHCODEC = """
from pathlib import Path
import torch
from torch.utils.data import DataLoader, Dataset
from torchcodec.decoders import VideoDecoder

class Clips(Dataset):
    files = sorted(Path(sys.argv[2]).glob("*.mp4"))

    def __len__(self):
        return 1 << 20

    def __getitem__(self, index):
        video = VideoDecoder(self.files[index % len(self.files)], num_ffmpeg_threads=1)
        start = int(torch.randint(video.metadata.num_frames - 60, ()))
        frames = video.get_frames_at([*range(start, start + 61, 4)]).data
        side = min(frames.shape[2:])
        return torch.nn.functional.interpolate(frames[..., :side, :side], (224, 224), mode="bilinear")

batches = iter(DataLoader(Clips(), batch_size=8, num_workers=2))
next(batches)
workers = [worker.pid for worker in batches._workers]
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
PEER = "torchcodec, two workers"
PACKAGES = {"webdataset": "webdataset", "SPDL": "spdl", "torchcodec": "torchcodec", "MDS": "streaming"}


def main() -> None:
    """Prints a table of the medians of all rounds, with quartiles."""
    parser = argparse.ArgumentParser(description="What a process costs before it computes.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ranks", type=int, default=0, help="how many processes with two workers also run at once")
    arguments = parser.parse_args()
    scripts = {name: script + END for name, script in STEPS.items() if find_spec(PACKAGES.get(name, "torch"))}
    two = LOADER.format(mask="Tube(ratio=0.9)", workers=2) + "workers = run._production.pool.pids"
    with_workers = {"two workers": two}
    if find_spec("torchcodec"):
        start_with_pyav_libraries(Path("runs/libraries"))
        with_workers[PEER] = OF_TORCHCODEC
    scripts |= {name: WORKERS.replace("LOADER", script) for name, script in with_workers.items()}
    found: dict[str, list[list[float]]] = {name: [] for name in scripts}
    with tempfile.TemporaryDirectory() as kept:
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPYCACHEPREFIX": kept,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for part in arguments.data.glob("*.tar"):
            with tarfile.open(part) as members:
                members.extractall(f"{kept}/videos", filter="data")

        def command(script: str) -> list[str]:
            return [sys.executable, "-c", script, str(arguments.data), f"{kept}/videos"]

        def step(name: str) -> float:
            said = subprocess.run(command(scripts[name]), env=env, capture_output=True, text=True, check=True).stdout
            found[name].append([float(word) for word in said.split()])
            return found[name][-1][0]

        in_turns({name: lambda name=name: step(name) for name in scripts}, arguments.rounds)
        print(json.dumps(facts(("torch", "numba", *PACKAGES.values()))))
        print("| | CPU s | quartiles | MB | wall s |\n| --- | ---: | ---: | ---: | ---: |")
        for name, rounds in found.items():
            seconds, memory, *wall = zip(*rounds[1:], strict=True)
            low, median, high = quartiles(seconds)
            cells = [f"{statistics.median(memory):.0f}", *(f"{statistics.median(values):.1f}" for values in wall)]
            print(f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} | {' | '.join(cells)} |{' |' * (not wall)}")
        for name, script in with_workers.items() if arguments.ranks else ():
            memory = pss_of_ranks(command(RANK.replace("LOADER", script)), arguments.ranks, env)
            print(f"{name}: one of {arguments.ranks} such processes at once has a PSS of {memory:.0f} MB")


def pss_of_ranks(command: list[str], ranks: int, env: dict[str, str]) -> float:
    """The PSS in MB of one of the ranks that run at once, with its workers."""
    with ExitStack() as running:
        started = [
            running.enter_context(subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(ranks)
        ]
        for one in started:
            if one.stdout is None or not one.stdout.readline():
                raise SystemExit("a rank ended before it had made five batches; its error is above")
        time.sleep(1)
        return sum(pss_mb(family(one.pid)) for one in started) / ranks


if __name__ == "__main__":
    main()
