"""The precision of a step: bf16 where the hardware multiplies it faster than float32, float32 elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_CPU_INFO = Path("/proc/cpuinfo")


def chosen_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The type in which matrix products are computed; weights, moments and losses stay float32.

    "auto" is bf16 where `bf16_helps`, else float32. "fp16" needs a loss scale (loss_scale.py); it is for GPUs that have
    no bf16.
    """
    if precision == "auto":
        return torch.bfloat16 if bf16_helps(device) else torch.float32
    return _TYPES[precision]


def bf16_helps(device: torch.device) -> bool:
    """Whether to compute in bf16: on CUDA devices that have it, and on CPUs with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not _CPU_INFO.exists():
        return False
    flags = next((line for line in _CPU_INFO.read_text().splitlines() if line.startswith("flags")), "").split()
    return "amx_bf16" in flags or "avx512_bf16" in flags
