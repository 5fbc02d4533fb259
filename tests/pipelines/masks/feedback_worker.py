"""Run as a script: batches from a spawned worker of the loader, drawn with scores that this process publishes."""

import json
import mmap
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskstream.pipelines.masks import ByClass, Cues, Draw, Maps, Mask, MaskBatch, Padded, TokenGrid
from maskstream.pipelines.masks.text.feedback import Feedback
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.order import Order
from maskstream.pipelines.stream.produce import BatchMaker, plans
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.workers import WorkerPool
from maskstream.shards.stores.base import UNHEEDED, Announcement, Range

N = 32
LARGE = 200_000
GRID = TokenGrid(axes=("token",), shape=(N,), patch=(1,))


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    wanted: Wanted
    keys: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TextBatch(Batch):
    mask: MaskBatch


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts of one word a token, the first half of class 0, the second of class 1."""

    pattern: Mask
    seed: int = 0
    needs_progress: bool = False
    needs_torch: bool = True
    together: int = 1

    def request(self, wanted: Wanted) -> TextRequest:
        return TextRequest(wanted=wanted)

    def announce(self, request: TextRequest) -> Announcement:
        return UNHEEDED

    def allocate(self, requests: Sequence[TextRequest]) -> list[Maps | None]:
        return [None] * sum(len(one.wanted) for one in requests)

    def mask(self, request: TextRequest, draft: list[Maps | None], rows: Sequence[int]) -> None:
        pass

    def fill(self, request: TextRequest, draft: list[Maps | None], rows: Sequence[int], stats: Stats) -> None:
        cues = Cues(words=np.arange(N), classes=np.arange(N) // (N // 2))
        wanted = request.wanted
        columns = (rows, wanted.indexes.tolist(), wanted.epochs.tolist(), wanted.places)
        for row, index, epoch, place in zip(*columns, strict=True):
            draft[row] = self.pattern.maps(GRID, Draw.of(0, epoch, str(index), 0, place, cues))

    def join(self, draft: list[Maps | None]) -> TextBatch:
        mask = self.pattern.batched(GRID, [maps for maps in draft if maps is not None])
        return TextBatch(key=[""] * len(draft), label=torch.zeros(len(draft)), mask=mask)


def from_a_worker() -> None:
    """Prints for each batch the version and how much of either half is hidden."""
    feedback = Feedback(2)
    order = Order(shard_sizes=(64,), global_batch=16, seed=0, lanes=1, block=None, shuffle=False)
    sampler = Texts(pattern=Padded(mask=ByClass(ratio=1.0, feedback=feedback)))
    pool = WorkerPool(BatchMaker(sampler=sampler, order=order), workers=1, threads=1, prefetch=1)
    for step, made in enumerate(pool.batches(plans(order, 0, 0, 0, 1, endless=True))):
        batch = made.batch.mask
        halves = batch.masked.view(16, 2, -1).double().mean((0, 2)).tolist()
        print(json.dumps([step, sorted(set(batch.version.tolist())), halves]))
        if step < 8:
            feedback.publish([0.0, step + 1.0] if step < 4 else [step + 1.0, 0.0])
        if step == 16:
            break
    pool.close()


def read_all(feedback: Feedback, ready: Any, wrong: Any, last: int) -> None:
    """Counts reads that mix two versions or go back; ends at version `last`."""
    seen, before = 0, -1
    ready.set()
    while before < last:
        now = feedback.read()
        wrong.value += not (now.scores == now.version).all() or now.version < before
        seen, before = seen + (now.version != before), now.version
    assert seen > 2


def torn() -> None:
    """Publishes as fast as it can to a spawned reader; prints how many reads were wrong."""
    spawn = multiprocessing.get_context("spawn")
    feedback, last = Feedback(LARGE), 400
    ready, wrong = spawn.Event(), spawn.Value("i", 0)
    reader = spawn.Process(target=read_all, args=(feedback, ready, wrong, last))
    reader.start()
    ready.wait()
    for version in range(1, last + 1):
        feedback.publish(np.full(LARGE, float(version)))
    reader.join()
    print(json.dumps([wrong.value, reader.exitcode]))


def publish_there(feedback: Feedback) -> None:
    try:
        feedback.publish([1.0, 2.0])
    except RuntimeError as error:
        print(json.dumps(str(error)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def one_way() -> None:
    """A worker that publishes is refused; it is then killed, and so is this process, which first says where its memory
    lies.
    """
    feedback = Feedback(2)
    worker = multiprocessing.get_context("spawn").Process(target=publish_there, args=(feedback,))
    worker.start()
    worker.join()
    at = feedback._memory.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.startswith(f"{at:x}-"))
    print(json.dumps([feedback.publish([3.0, 4.0]), line.split(maxsplit=5)[5].strip()]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    {"worker": from_a_worker, "torn": torn, "one-way": one_way}[sys.argv[1]]()
