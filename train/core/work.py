"""How much a step computes, and how much the device could: floating-point operations and their highest rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

_SIZES = {"cpu": 1024, "cuda": 8192}
_TIMES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a step of this rank computes, in operations, and the highest rate of the device, in operations a second."""

    flops: float
    peak: float


def flops_of(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """The operations of one forward and backward pass, in matrix products, attention and convolutions.

    loss: computes the loss of a batch. The pass is made once more, without compiled code; its gradients are dropped, so
    the parameters must have none. Source: torch's FlopCounterMode, which counts a multiplication and an addition as 2.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if on_cpu:  # the counter does not know the fused attention of CPUs, but the products that it is made of
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        counter = stack.enter_context(FlopCounterMode(display=False))
        loss().backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return int(counter.get_total_flops())


def peak_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The operations per second of a large matrix product in `dtype`, the best of five; torch's threads as they are."""
    size = _SIZES.get(device.type, 1024)
    one = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_TIMES):
        start = time.perf_counter()
        one @ one
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
