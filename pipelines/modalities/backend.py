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


def dali_serves(backend: Backend, device: torch.device, unsuited: Callable[[], str]) -> bool:
    """Whether DALI is to be used; ValueError where it is asked for and cannot be.

    unsuited: says why DALI cannot serve the loader, or "". "auto" uses it on a CUDA device on which `make gpu`
    has passed and found it to be the fastest.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}; legal are 'auto', 'cpu' and 'dali'")
    if backend == "cpu" or (backend == "auto" and device.type != "cuda"):
        return False
    there = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
    lacking = "" if there else "needs DALI: pip install 'maskstream[gpu]' (CUDA 13) or 'maskstream[gpu-cu12]'"
    if backend == "dali":
        if lacking:
            raise ValueError(f"backend='dali' {lacking}")
        return True
    reason = (f"DALI {lacking}" if lacking else "") or unsuited() or not_accepted(device)
    log.info("backend='auto' uses %s on %s%s", "the CPU" if reason else "DALI", device, reason and f": {reason}")
    return not reason
