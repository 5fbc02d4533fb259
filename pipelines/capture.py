"""CUDA graphs: what a function of tensors launches, some thousand small kernels, is launched at once.

A function is captured once for each shape of its inputs. Its graph keeps addresses: so inputs are copied into tensors
of its own, results are copied out, and constants (`constants`, and what `functools.cache` keeps) are never freed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

from maskstream.pipelines.stream.tensors import torch

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

MOST = 8
"""The graphs of a function. Each keeps its inputs and what it computes in the card's memory; further shapes have none.
"""


@cache
def constants(device: torch.device, *values: float) -> Tensor:
    """These numbers on a device, float32 (n,), copied to it at the first call and kept."""
    return torch.tensor(values, dtype=torch.float32, device=device)


@dataclass(frozen=True, slots=True)
class _Graph:
    """graph: what is launched. inputs, output: its tensors. done: when the output was last copied."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor
    done: torch.cuda.Event


class Captured:
    """A function of tensors, without gradients, which is a CUDA graph on CUDA devices and is called as it is elsewhere.

    The function depends on its inputs alone, and must not wait for the device or copy from the host, but for constants.
    If it cannot be captured, it is called as it is from then on, with one warning. Threads may share it.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._graphs: dict[tuple[tuple[torch.Size, torch.dtype, torch.device], ...], _Graph] = {}
        self._lock, self._works = Lock(), True

    def __call__(self, *inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return self._call_function(inputs)

    def _call_function(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if not (self._works and is_on_card(inputs[0])):
            return self._function(*inputs)
        key = tuple((one.shape, one.dtype, one.device) for one in inputs)
        with self._lock, torch.cuda.device(inputs[0].device):
            if key not in self._graphs and len(self._graphs) < MOST:
                try:
                    self._graphs[key] = self._capture_graph(inputs)
                except RuntimeError as error:
                    self._works = False
                    log.warning("no CUDA graph, so each kernel is launched by itself: %s", str(error).splitlines()[0])
            found = self._graphs.get(key)
            return self._function(*inputs) if found is None else _replay(found, inputs)

    def _capture_graph(self, inputs: tuple[Tensor, ...]) -> _Graph:
        """The graph of inputs of these shapes. Other threads may use the device meanwhile."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            own = tuple(one.clone() for one in inputs)
            self._function(*own)  # which makes constants, and what libraries keep
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        back = torch.cuda.stream(current)  # a capture that fails does not leave its stream
        with back, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            output = self._function(*own)
        return _Graph(graph, own, output, torch.cuda.Event())  # type: ignore[no-untyped-call]


def is_on_card(x: Tensor) -> bool:
    """Whether a tensor is on a device that has graphs."""
    return x.is_cuda


def _replay(found: _Graph, inputs: tuple[Tensor, ...]) -> Tensor:
    """The output for other inputs, on the current stream, after what another stream last asked of the graph."""
    stream = torch.cuda.current_stream()
    stream.wait_event(found.done)
    for own, given in zip(found.inputs, inputs, strict=True):
        own.copy_(given, non_blocking=True)
    found.graph.replay()
    output = found.output.clone()
    found.done.record(stream)
    return output
