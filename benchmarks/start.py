"""What a process costs before it computes: imports, a first batch, and worker processes.

    python benchmarks/start.py DATA [--rounds 9]

DATA is a split of videos, such as data/shards/sample/train. Each step is a process of its own with one thread of BLAS,
and steps take turns. What is compiled, of Python and of kernels, is kept from a round before that does not count.

CPU time is that of the process at the end of the step, with the interpreter's own start; memory is its peak. Workers:
memory is that of the process, its workers and what they need after five batches. What they share counts once, as in
PSS; so does each page of a file, also where others here have it, and a batch that waits in shared memory which nobody
has mapped. `torchcodec, two workers` is torch's DataLoader, which forks this process, on the same videos.
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
from importlib.util import find_spec
from pathlib import Path

from libraries import start_with_pyav_libraries
from machine import facts
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
import os, re, sys, time
from contextlib import suppress
from pathlib import Path

def children(pid):
    own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*own, *(deep for one in own for deep in children(one))]

def of_processes(pid):
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(re.search(rf"Pss_{kind}: +([0-9]+)", rollup)[1]) for kind in ("Anon", "Shmem")) / 1024

def of_files(pids, page=os.sysconf("SC_PAGE_SIZE")):
    pages, mapped, waiting = set(), set(), {}
    for pid in pids:
        with open(f"/proc/{pid}/pagemap", "rb") as table:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                span, _, offset, device, inode = line.split()[:5]
                mapped.add(int(inode))
                start, stop = (int(end, 16) // page for end in span.split("-"))
                if device != "00:00" and inode != "0" and "memfd:" not in line and "/dev/shm/" not in line:
                    table.seek(8 * start)
                    found = memoryview(table.read(8 * (stop - start))).cast("Q")  # bits 63, 61: there, of the file
                    first = int(offset, 16) // page
                    pages.update((device, inode, first + n) for n, one in enumerate(found) if one >> 61 & 5 == 5)
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # the folder itself
                if os.readlink(file).startswith(("/dev/shm/", "/memfd:")):
                    waiting[file.stat().st_ino] = file.stat().st_blocks * 512
    return (len(pages) * page + sum(size for inode, size in waiting.items() if inode not in mapped)) / 2**20

def cpu(pid):
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])) / 100

begun = time.perf_counter()
LOADER
wall = time.perf_counter() - begun
for _ in range(4):
    next(batches)
time.sleep(1)
pids = [os.getpid(), *children(os.getpid())]
print(sum(map(cpu, workers)) / 2, sum(map(of_processes, pids)) + of_files(pids), wall)
"""
OF_TORCHCODEC = """
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
    arguments = parser.parse_args()
    scripts = {name: script + END for name, script in STEPS.items() if find_spec(PACKAGES.get(name, "torch"))}
    two = LOADER.format(mask="Tube(ratio=0.9)", workers=2) + "workers = run._production.pool.pids"
    scripts["two workers"] = WORKERS.replace("LOADER", two)
    if find_spec("torchcodec"):
        start_with_pyav_libraries(Path("runs/libraries"))
        scripts[PEER] = WORKERS.replace("LOADER", OF_TORCHCODEC)
    found: dict[str, list[list[float]]] = {name: [] for name in scripts}
    with tempfile.TemporaryDirectory() as kept:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": kept}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for part in arguments.data.glob("*.tar"):
            with tarfile.open(part) as members:
                members.extractall(f"{kept}/videos", filter="data")

        def step(name: str) -> float:
            command = [sys.executable, "-c", scripts[name], str(arguments.data), f"{kept}/videos"]
            said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
            found[name].append([float(word) for word in said.split()])
            return found[name][-1][0]

        in_turns({name: lambda name=name: step(name) for name in scripts}, arguments.rounds)
    print(json.dumps(facts(("torch", "numba", *PACKAGES.values()))))
    print("| | CPU s | quartiles | MB | wall s |\n| --- | ---: | ---: | ---: | ---: |")
    for name, rounds in found.items():
        seconds, memory, *wall = zip(*rounds[1:], strict=True)
        low, median, high = quartiles(seconds)
        words = [f"{statistics.median(values):.1f}" for values in wall]
        print(
            f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} | {statistics.median(memory):.0f} | {''.join(words)} |"
        )


if __name__ == "__main__":
    main()
