"""The CPU time of a row of every modality, in µs: small samples of the tests, in one thread, the least of many batches.

    python benchmarks/modalities.py
    python benchmarks/before_after.py --before ../old --after . --rounds 15 -- $PWD/benchmarks/modalities.py

A row of small samples is mostly our own Python, so what a change costs shows here first. Samples, settings and code are
those of the folder in which the script is started: a checkout that is older than this file can be measured too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path.cwd()))

import torch

from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from tests.pipelines.every_modality import MODALITIES, write_split

BATCH = 8


def cpu_us(name: str, seconds: float) -> float:
    """The least CPU time of a row of a modality's batches, which are made for so many seconds of CPU time."""
    with TemporaryDirectory() as folder:
        split = Split.open(write_split(name, Path(folder)), name, device="cpu", threads=1, seed=5)
        sampler = MODALITIES[name].source(split).sampler
        wanted = Wanted.of([row % len(split.manifest) for row in range(BATCH)])
        batch_of(sampler, wanted)  # numba compiles
        least, end = seconds, time.process_time() + seconds
        while (start := time.process_time()) < end:
            batch_of(sampler, wanted)
            least = min(least, time.process_time() - start)
    return round(least / BATCH * 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU time for each modality")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({f"{name} cpu_us": cpu_us(name, arguments.seconds) for name in MODALITIES}))


if __name__ == "__main__":
    main()
