"""Seeding of initial weights: the seed of a model alone decides them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which torch's global CPU generator is seeded with `seed`; its state is restored at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
