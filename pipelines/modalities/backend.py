"""Whether DALI serves a loader, or PyAV and torch code; the log says which and why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from .acceptance import not_accepted

Backend = Literal["auto", "cpu", "dali"]

log = logging.getLogger(__name__)


def dali_serves(
    backend: Backend, device: torch.device, unsuited: Callable[[], str], faster: frozenset[str] | None = None
) -> bool:
    """Whether DALI is to be used; ValueError where it is asked for and cannot be.

    unsuited: says why DALI cannot serve the loader, or "". faster: the formats of the shards that it decodes faster
    than the CPU, as `maskstream bench --decode` measured here; None where nothing was measured. "auto" uses it on a
    CUDA device on which `make gpu` has passed, for these formats, or where nothing was measured if `make gpu` found it
    to be the fastest; without a CUDA device, where it was measured to be faster.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}; legal are 'auto', 'cpu' and 'dali'")
    if backend == "cpu" or (backend == "auto" and device.type != "cuda" and faster is None):
        return False
    there = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
    lacking = "" if there else "needs DALI: pip install 'maskstream[gpu]' (CUDA 13) or 'maskstream[gpu-cu12]'"
    if backend == "dali":
        if lacking:
            raise ValueError(f"backend='dali' {lacking}")
        return True
    reason = (f"DALI {lacking}" if lacking else "") or unsuited()
    if not reason and faster is not None and not faster:
        reason = "`maskstream bench --decode` found it to be the fastest for every format of these shards"
    if not reason and device.type == "cuda":
        reason = not_accepted(device, measured=faster is not None)
    chosen = f" for {', '.join(sorted(faster))}, which it decodes faster here" if faster and not reason else ""
    log.info(
        "backend='auto' uses %s on %s%s", "the CPU" if reason else "DALI", device, (reason and f": {reason}") or chosen
    )
    return not reason
