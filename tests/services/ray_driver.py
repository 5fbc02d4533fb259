"""Drivers of jobs in a Ray cluster, run as scripts on its head. They print JSON.

python -m tests.services.ray_driver events ADDRESS KIND,KIND ...
python -m tests.services.ray_driver shards ADDRESS N_NODES ROOT OUT
python -m tests.services.ray_driver pauses ADDRESS ROOT OUT
"""

import importlib
import json
import sys
import time
from pathlib import Path

import ray

from maskstream.preprocess import Limits, RayExecutor, make_shards
from maskstream.shards.progress import Progress

from . import poison_pictures

LOCAL_WORK = Path(__file__).parents[1] / "preprocess/executors"


def events(address, *runs):
    """What comes of runs of tasks of local_work.py of these kinds, with a comma between kinds: a list per run."""
    sys.path.insert(0, str(LOCAL_WORK))
    work = importlib.import_module("local_work")
    ray.init(address=address, log_to_driver=False)
    for kinds in runs:
        found = []
        tasks = [work.Number(kind, number) for number, kind in enumerate(kinds.split(","))]
        try:
            for event in RayExecutor().run(work.work, tasks):
                said = getattr(event, "reason", None) or getattr(event, "record", None)
                found.append((type(event).__name__, event.task.number, said))
        except Exception as error:
            found.append((type(error).__name__, str(error), getattr(error, "__notes__", [])))
        print(json.dumps(found), flush=True)


class Clock(Progress):
    """Prints when sources were finished."""

    def advance(self, units):
        print(json.dumps({"units": units, "at": time.monotonic()}), flush=True)

    def say(self, text):
        print(json.dumps({"said": text, "at": time.monotonic()}), flush=True)


def shards(address, n_nodes, root, out):
    """Make shards of poisoned pictures, when all nodes have joined."""
    ray.init(address=address, log_to_driver=False)
    while sum(node["Alive"] for node in ray.nodes()) < int(n_nodes):
        time.sleep(0.1)
    made(RayExecutor(), root, out, Clock())


def pauses(address, root, out):
    """Cut sounds at their pauses."""
    ray.init(address=address, log_to_driver=False)
    cut(RayExecutor(), root, out)


def cut(executor, root, out):
    """The job of sounds."""
    return make_shards("audio-folder", root, out, clips="silence", min_clip=1, as_is=True, executor=executor)


def made(executor, root, out, progress=None):
    """The job of the tests."""
    return make_shards(
        poison_pictures.poisoned,
        root,
        out,
        executor=executor,
        samples_per_shard=4,
        limits=Limits(time_s=6, memory_gb=0.8),
        max_rejects=0.3,
        progress=progress,
    )


if __name__ == "__main__":
    do, *words = sys.argv[1:]
    {"events": events, "shards": shards, "pauses": pauses}[do](*words)
