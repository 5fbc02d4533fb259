"""Which decoder serves a loader: PyAV on the CPU, or DALI on a CUDA device."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from ..video.sample import VideoSampler


def choose_backend(backend: str, sampler: VideoSampler, device: torch.device, threads: int, workers: int = 0) -> Any:
    """The sampler that the loader runs.

    "auto" is DALI on a CUDA device where it is installed and decodes the shards' codecs, where no flow is needed and
    no worker processes are asked for. ValueError where "dali" is asked for and cannot serve.
    """
    if backend not in ("auto", "cpu", "dali"):
        raise ValueError(f"backend={backend!r}; legal are 'auto', 'cpu' and 'dali'")
    there = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
    suits = there and device.type == "cuda" and sampler.flow is None and workers == 0
    if backend == "cpu" or (backend == "auto" and not suits):
        return sampler
    if not there:
        raise ValueError("backend='dali' needs DALI: pip install 'maskstream[gpu]' (CUDA 13) or 'maskstream[gpu-cu12]'")
    if workers:
        raise ValueError(
            f"backend='dali' with workers={workers}: it decodes whole batches in this process, whose threads read and "
            "draw; use workers=0, or backend='cpu'"
        )
    from .dali import DaliSampler, undecodable

    if backend == "auto" and undecodable(sampler, device):
        return sampler
    return DaliSampler(sampler, device, threads)
