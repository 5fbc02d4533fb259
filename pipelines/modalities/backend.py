"""What serves a loader: PyAV and torch code, or DALI on a CUDA device."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from .audio.log_mel import LogMel
from .audio.sample import AudioSampler
from .video.sample import VideoSampler


def choose_backend(backend: str, sampler: VideoSampler, device: torch.device, threads: int, workers: int = 0) -> Any:
    """The sampler that a loader of videos runs.

    "auto" is DALI on a CUDA device where it is installed and decodes the shards' codecs, where no flow is needed and
    no worker processes are asked for. ValueError where "dali" is asked for and cannot serve.
    """
    if not _dali_serves(backend, device, workers, suits=sampler.flow is None):
        return sampler
    from .video.dali import DaliSampler, undecodable

    if backend == "auto" and undecodable(sampler, device):
        return sampler
    return DaliSampler(sampler, device, threads)


def choose_sound_backend(
    backend: str, sampler: AudioSampler, device: torch.device, threads: int, workers: int = 0
) -> Any:
    """The sampler that a loader of sounds runs.

    "auto" is DALI on a CUDA device where it is installed, for `LogMel` that is left to the device, where no worker
    processes are asked for. ValueError where "dali" is asked for and cannot serve.
    """
    if not _dali_serves(
        backend, device, workers, suits=sampler.on_device and isinstance(sampler.spectrogram.features, LogMel)
    ):
        return sampler
    from .audio.dali import DaliSoundSampler

    return DaliSoundSampler(sampler, device, threads)


def _dali_serves(backend: str, device: torch.device, workers: int, *, suits: bool) -> bool:
    """Whether DALI is to be used; `suits`: whether "auto" may. ValueError where it is asked for and cannot be."""
    if backend not in ("auto", "cpu", "dali"):
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
