"""Whether DALI on a CUDA device serves a loader, or PyAV and torch code."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

import torch

Backend = Literal["auto", "cpu", "dali"]


def dali_serves(backend: Backend, device: torch.device, workers: int, *, suits: bool) -> bool:
    """Whether DALI is to be used; `suits`: whether "auto" may. ValueError where it is asked for and cannot be."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}; legal are 'auto', 'cpu' and 'dali'")
    there = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
    if backend == "cpu" or (backend == "auto" and not (there and device.type == "cuda" and suits and workers == 0)):
        return False
    if not there:
        raise ValueError("backend='dali' needs DALI: pip install 'maskstream[gpu]' (CUDA 13) or 'maskstream[gpu-cu12]'")
    if workers:
        raise ValueError(
            f"backend='dali' with workers={workers}: it makes whole batches in this process, whose threads read and "
            "draw; use workers=0, or backend='cpu'"
        )
    return True
