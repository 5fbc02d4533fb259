"""CUDA graphs: the thousands of small kernels of a tensor function are launched at once.

A function is captured once for each shape of its inputs. A graph stores addresses, so inputs are copied into its own
tensors, results are copied out, and constants (`constants`, and values cached by `functools.cache`) are never freed.
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
"""Maximum number of graphs per function. Each keeps its inputs and intermediate results in GPU memory; further shapes
are not captured.
"""


@cache
def constants(device: torch.device, *values: float) -> Tensor:
    """Return numbers on a device, float32 (n,), copied at the first call and cached."""
    return torch.tensor(values, dtype=torch.float32, device=device)


@dataclass(frozen=True, slots=True)
class _Graph:
    """A captured graph with its input and output tensors; `done` is the event of the last copy of the output."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor
    done: torch.cuda.Event


class Captured:
    """Tensor function without gradients that runs as a CUDA graph on CUDA devices, and normally elsewhere.

    The function must depend only on its inputs, and must not wait for the device or copy from the host, except for
    constants. If it cannot be captured, it is called normally from then on, with one warning. Threads may share it.
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
        """Capture the graph for inputs of these shapes; other threads may use the device at the same time."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            own = tuple(one.clone() for one in inputs)
            self._function(*own)  # creates constants, and whatever libraries cache
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        back = torch.cuda.stream(current)  # a failed capture does not leave its stream
        with back, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            output = self._function(*own)
        return _Graph(graph, own, output, torch.cuda.Event())  # type: ignore[no-untyped-call]


def is_on_card(x: Tensor) -> bool:
    """Return whether a tensor is on a device that supports graphs."""
    return x.is_cuda


def _replay(found: _Graph, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return the output for other inputs, on the current stream, after the graph's last use on another stream."""
    stream = torch.cuda.current_stream()
    stream.wait_event(found.done)
    for own, given in zip(found.inputs, inputs, strict=True):
        own.copy_(given, non_blocking=True)
    found.graph.replay()
    output = found.output.clone()
    found.done.record(stream)
    return output
