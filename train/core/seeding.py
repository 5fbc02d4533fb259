"""The one rule for initial weights: a model's seed alone decides them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the CPU generator that `torch.nn` draws initial weights from stands at `seed`; afterwards it is as it was
    before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
