"""A sampler of numbers whose rows can kill or hold their process; worker processes import it."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.order import Order
from maskstream.pipelines.stream.produce import BatchMaker
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.stores.base import UNHEEDED, Announcement, Range

ROW = 10_000
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class NumberRequest:
    wanted: Wanted
    keys: list[str]
    ranges: list[Range]


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberBatch(Batch):
    """values: int64 (B, ROW), the draws of each row; large enough for a memory file."""

    values: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Number i has the key "n<i>" and lies in i // 10.tar. poison: what happens to the process that makes a number.

    "hang" holds it, any other word is a signal. once: a folder; each poison then works one time only.
    """

    poison: dict[int, str] = field(default_factory=dict)
    once: Path | None = None
    seed: int = 0
    needs_progress: bool = False
    needs_torch: bool = True
    together: int = 1

    def request(self, wanted: Wanted) -> NumberRequest:
        numbers = wanted.indexes.tolist()
        ranges = [Range(f"{number // 10}.tar", 512, 10) for number in numbers]
        return NumberRequest(wanted=wanted, keys=[f"n{number}" for number in numbers], ranges=ranges)

    def announce(self, request: NumberRequest) -> Announcement:
        return UNHEEDED

    def allocate(self, requests: Sequence[NumberRequest]) -> torch.Tensor:
        return torch.zeros(sum(len(one.wanted) for one in requests), ROW, dtype=torch.int64)

    def mask(self, request: NumberRequest, draft: torch.Tensor, rows: Sequence[int]) -> None:
        pass

    def fill(self, request: NumberRequest, draft: torch.Tensor, rows: Sequence[int], stats: Stats) -> None:
        indexes, epochs = request.wanted.indexes.tolist(), request.wanted.epochs.tolist()
        for row, index, epoch in zip(rows, indexes, epochs, strict=True):
            if index in self.poison and self._works(index):
                if self.poison[index] == "hang":
                    time.sleep(1000)
                os.kill(os.getpid(), signal.Signals[self.poison[index]])
                time.sleep(1000)  # a signal may need a moment
            draft[row] = torch.from_numpy(np.random.default_rng([index, epoch]).integers(2**60, size=ROW))

    def _works(self, index: int) -> bool:
        if self.once is None:
            return True
        flag = self.once / str(index)
        if flag.exists():
            return False
        flag.touch()
        return True

    def join(self, draft: torch.Tensor) -> NumberBatch:
        rows = len(draft)
        return NumberBatch(key=[str(int(row[0])) for row in draft], label=torch.arange(rows), values=draft)


def maker(**settings) -> BatchMaker:
    """Makes batches of 8 of 80 numbers."""
    order = Order(shard_sizes=(10,) * 8, global_batch=BATCH, seed=1, lanes=1, block=None, shuffle=True)
    return BatchMaker(sampler=Numbers(**settings), order=order)
