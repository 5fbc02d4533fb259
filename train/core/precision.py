"""bf16 where the hardware multiplies it faster than float32, float32 elsewhere."""

from __future__ import annotations

from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")


def bf16_helps(device: torch.device) -> bool:
    """Whether to compute in bf16: on CUDA devices that have it, and on CPUs with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not _CPU_INFO.exists():
        return False
    flags = next((line for line in _CPU_INFO.read_text().splitlines() if line.startswith("flags")), "").split()
    return "amx_bf16" in flags or "avx512_bf16" in flags
