"""The settings of the training loop: none of them belongs to a recipe, and a run may be resumed with others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_CPU_INFO = Path("/proc/cpuinfo")


def chosen_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The type in which matrix products are computed; weights, moments and losses stay float32.

    "auto" is bf16 where `bf16_helps`, else float32. "fp16" needs a loss scale (step.py); it is for GPUs that have
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


Compile = Literal["auto", "no", "block", "model"]
Parallel = Literal["ddp", "fsdp"]
OnNaN = Literal["stop", "skip"]


class LoopOptions(TypedDict, total=False):
    """The fields of `LoopSettings`, which a `Trainer` and `train` take as arguments."""

    precision: Precision
    compile: Compile
    parallel: Parallel
    checkpoint_blocks: bool
    on_nan: OnNaN
    most_skips: int
    save_every: int
    keep: int
    resume: bool
    progress: bool
    tensorboard: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """How a run computes, saves and reports.

    precision: see `chosen_precision`. compile: use torch.compile for each "block" or the whole "model"; "auto" is "no"
    on a CPU, where it gains little and takes a minute, and see `compile_parts` for CUDA devices. parallel: what ranks
    share, "ddp" only gradients, "fsdp" also weights and moments. checkpoint_blocks: compute each block again in the
    backward pass instead of keeping its activations. on_nan: what a loss or gradient that is not finite does, end the
    run or skip its step. most_skips: of steps in a row; more end the run. save_every: steps between checkpoints. keep:
    how many of the newest stay. resume: continue from the newest whole checkpoint. progress: show it on stderr.
    tensorboard: also write metrics for TensorBoard, into the folder `tensorboard` of the run.
    """

    precision: Precision = "auto"
    compile: Compile = "auto"
    parallel: Parallel = "ddp"
    checkpoint_blocks: bool = False
    on_nan: OnNaN = "stop"
    most_skips: int = 20
    save_every: int = 500
    keep: int = 2
    resume: bool = True
    progress: bool = True
    tensorboard: bool = False

    def __post_init__(self) -> None:
        choices: dict[str, Any] = {"precision": Precision, "compile": Compile, "parallel": Parallel, "on_nan": OnNaN}
        for name, kind in choices.items():
            if (value := getattr(self, name)) not in get_args(kind):
                raise ValueError(f"{name} is one of {', '.join(get_args(kind))}, got {value!r}")
        if min(self.save_every, self.keep, self.most_skips) < 1:
            raise ValueError(
                f"save_every, keep and most_skips are at least 1, got save_every={self.save_every}, keep={self.keep}, "
                f"most_skips={self.most_skips}"
            )
