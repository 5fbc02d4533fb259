"""Which decoder serves a loader: PyAV on the CPU, or DALI on a CUDA device."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from ..video_sample import VideoSampler


def choose_backend(backend: str, sampler: VideoSampler, device: torch.device, threads: int) -> Any:
    """The sampler that the loader runs; "auto" is DALI on a CUDA device where it is installed and no flow is needed."""
    if backend not in ("auto", "cpu", "dali"):
        raise ValueError(f"backend={backend!r}; legal are 'auto', 'cpu' and 'dali'")
    there = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
    if backend == "auto":
        backend = "dali" if device.type == "cuda" and there and sampler.flow is None else "cpu"
    if backend == "cpu":
        return sampler
    if not there:
        raise ValueError("backend='dali' needs DALI: pip install 'maskstream[gpu]' (CUDA 13) or 'maskstream[gpu-cu12]'")
    from .dali import DaliSampler

    return DaliSampler(sampler, device, threads)
