"""Flow of whole batches from the optical-flow engine of NVIDIA GPUs, through DALI's `fn.optical_flow`.

Turing, Ampere, Ada and Hopper GPUs have the engine; its library is part of the driver. DALI passes the later frame of a
pair as input and the earlier one as reference, so the vectors are backward flow. **This has not run on a GPU yet**:
without one, the graph can be defined and serialised (`build_flow_graph`) but not built.
"""

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .base import grid_shape
from .source import BatchFlow

LIBRARY = "libnvidia-opticalflow.so.1"
"""The driver's library of the engine; containers have it only with the capability "video"."""
Preset = Literal["slow", "medium", "fast"]
_PRESETS: dict[Preset, float] = {"slow": 0.0, "medium": 0.5, "fast": 1.0}
Grid = Literal[1, 2, 4]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ofa(BatchFlow):
    """Flow from the GPU's engine, averaged over cells; only on CUDA, and never chosen by "auto".

    Attributes:
        cell: Approximate side of a cell in pixels.
        preset: The engine's preset; "slow" is the most accurate.
        grid: Side in pixels of the blocks for which a vector is computed; 1 and 2 require an Ampere GPU or later.

    Raises:
        ValueError: The loader's device has no usable engine.
    """

    cell: int = 8
    preset: Preset = "slow"
    grid: Grid = 4

    def validate(self) -> None:
        grid_shape(self.cell, self.cell, self.cell)

    @property
    def title(self) -> str:
        """Display name."""
        return "the GPU's optical-flow engine"

    def missing(self, device: torch.device) -> str | None:
        """Return which of a CUDA device, DALI and the driver's library is missing; None if all are present."""
        if device.type != "cuda":
            return f"the optical-flow engine is part of NVIDIA GPUs, but the device is {device.type!r}"
        if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
            return "it needs DALI: pip install 'maskstream[gpu]' (CUDA 13) or 'maskstream[gpu-cu12]'"
        try:
            ctypes.CDLL(LIBRARY)
        except OSError:
            return f"{LIBRARY} cannot be loaded (containers have it with the driver capability 'video')"
        return None

    def of_clips(self, clips: Tensor) -> Tensor:
        """Compute the backward flow of clips uint8 (B, T, H, W, 3): float32 (B, T-1, 2, h, w), as in `BatchFlow`."""
        if reason := self.missing(clips.device):
            raise ValueError(f"flow={self}: {reason}; use flow='lk'")
        height, width = clips.shape[2:4]
        pipeline = flow_pipeline(len(clips), self.preset, self.grid, clips.device.index or 0)
        (output,) = pipeline.run(clips=list(clips.contiguous()))
        dense = _to_torch(output.as_tensor(), clips.device).flatten(0, 1).movedim(3, 1)
        cells = interpolate(dense, grid_shape(height, width, self.cell), mode="area")
        return torch.unflatten(cells, 0, (len(clips), clips.shape[1] - 1))


def build_flow_graph(batch_size: int, preset: Preset, grid: Grid, device_id: int | None) -> Any:
    """Define the DALI pipeline from clips on the GPU, uint8 (T, H, W, 3), to flow in pixels, float32 (T-1, ceil(H /
    grid), ceil(W / grid), 2).

    It is not built; without a `device_id` it can be serialised but not built.
    """
    import nvidia.dali
    import nvidia.dali.fn

    dali: Any = nvidia.dali  # typed as Any, because DALI is only partly annotated
    pipeline = dali.Pipeline(batch_size=batch_size, num_threads=1, device_id=device_id, prefetch_queue_depth=1)
    with pipeline:
        clips = dali.fn.external_source(name="clips", device="gpu", dtype=dali.types.UINT8, ndim=4, layout="FHWC")
        flow = dali.fn.optical_flow(clips, device="gpu", preset=_PRESETS[preset], output_grid=grid)
        pipeline.set_outputs(flow)
    return pipeline


@lru_cache(maxsize=4)
def flow_pipeline(batch_size: int, preset: Preset, grid: Grid, device_id: int) -> Any:
    """Build and cache the graph of `build_flow_graph` for a GPU."""
    pipeline = build_flow_graph(batch_size, preset, grid, device_id)
    pipeline.build()
    return pipeline


def _to_torch(source: Any, device: torch.device) -> Tensor:
    """Copy DALI's floats on the device, after which DALI may reuse its memory."""
    import nvidia.dali.plugin.pytorch

    plugin: Any = nvidia.dali.plugin.pytorch
    made = torch.empty(tuple(source.shape()), dtype=torch.float32, device=device)
    stream = torch.cuda.current_stream(device)
    plugin.feed_ndarray(source, made, cuda_stream=stream)
    stream.synchronize()
    return made
