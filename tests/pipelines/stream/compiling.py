"""A sampler of numbers that compiles a kernel for long; worker processes import it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from numba.core import event
from numbered import NumberRequest, Numbers, maker

from maskstream.pipelines.stream.produce import BatchMaker
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards import jit

LONG_S = 4.0
assert jit.watch  # a worker watches what is imported when it begins


@dataclass(frozen=True, kw_only=True)
class Compiled(Numbers):
    """The first row of a process is begun with what numba says of a kernel that takes long."""

    def fill(self, request: NumberRequest, draft: torch.Tensor, rows: Sequence[int], stats: Stats) -> None:
        if request.wanted.first.step == 0 and rows[0] == 0:
            with event.trigger_event("numba:compile"):
                time.sleep(LONG_S)
        super().fill(request, draft, rows, stats)


def compiling() -> BatchMaker:
    """The same batches as those of `numbered.maker`."""
    return replace(maker(), sampler=Compiled())
