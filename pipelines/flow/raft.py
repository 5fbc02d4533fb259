"""RAFT (Teed and Deng 2020): a network's flow of whole batches, on their device, from a file of weights.

The networks are torchvision's `raft_small` and `raft_large`, whose published weights are pickles; a pickle is never
read here, so they are converted once:

    python -c "import sys, torch, safetensors.torch as s; s.save_file(torch.load(sys.argv[1]), sys.argv[2])" \\
        raft_small_C_T_V2-01064c6d.pth raft_small.safetensors

On CUDA it computes in half precision (autocast to float16).
"""

from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import torch
import xxhash
from torch import Tensor, nn
from torch.nn.functional import interpolate

from maskstream.shards.config import NOT_IDENTITY

from .base import grid_shape
from .source import BatchFlow

Model = Literal["small", "large"]
LEAST_SIDE, MULTIPLE = 128, 8
"""What torchvision's networks ask of the sides of frames, in pixels."""
NO_WEIGHTS = (
    "RAFT has no weights; give flow=Raft(weights='raft_small.safetensors') of maskstream.pipelines.flow, made of "
    "torchvision's as pipelines/flow/raft.py says"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Raft(BatchFlow):
    """RAFT's flow, averaged over cells of about `cell` x `cell` pixels.

    weights: a safetensors file of torchvision's `raft_small` or `raft_large`, as `model` says. checksum: xxh3_64 of the
    file, read from it if it is empty; it belongs to a run's identity, and the path does not. updates: the refinements.
    Frames are enlarged to multiples of 8 pixels, of at least 128. Raises ValueError for a file that is not there, is
    another than the checksum says, or does not fit the network.
    """

    weights: str = field(default="", metadata=NOT_IDENTITY)
    checksum: str = ""
    model: Model = "small"
    updates: int = 12
    cell: int = 8

    def __post_init__(self) -> None:
        grid_shape(self.cell, self.cell, self.cell)
        if self.model not in get_args(Model):
            raise ValueError(f"model is one of {', '.join(get_args(Model))}, got {self.model!r}")
        if self.updates < 1:
            raise ValueError(f"updates is at least 1 refinement, got {self.updates}")
        if not self.weights:
            return
        try:
            found = xxhash.xxh3_64_hexdigest(Path(self.weights).read_bytes())
        except OSError as error:
            raise ValueError(f"RAFT's weights {self.weights} cannot be read: {error}") from error
        if self.checksum not in ("", found):
            raise ValueError(f"RAFT's weights {self.weights} have the checksum {found}, not {self.checksum}")
        object.__setattr__(self, "checksum", found)

    @property
    def title(self) -> str:
        """Its name on pages."""
        return f"RAFT ({self.model})"

    def unfit(self, profile: str, *, stride: int, align: int) -> str | None:
        """It needs weights, and torchvision."""
        if not self.weights:
            return NO_WEIGHTS
        return None if find_spec("torchvision") else "RAFT's networks are torchvision's: pip install torchvision"

    def of_clips(self, clips: Tensor) -> Tensor:
        """The backward flow of clips uint8 (B, T, H, W, 3): float32 (B, T-1, 2, h, w), as in `BatchFlow`.

        All pairs of a clip go through the network at once, clip by clip, so that a clip's flow is the same in any
        batch.
        """
        if not self.weights:
            raise ValueError(NO_WEIGHTS)
        net = network(self.weights, self.checksum, self.model, clips.device)
        with torch.autocast(clips.device.type, torch.float16, enabled=clips.device.type == "cuda"):
            return torch.stack([self._of_clip(net, clip) for clip in clips])

    def _of_clip(self, net: nn.Module, clip: Tensor) -> Tensor:
        height, width = clip.shape[1:3]
        work = tuple(max(-(-side // MULTIPLE) * MULTIPLE, LEAST_SIDE) for side in (height, width))
        frames = clip.movedim(3, 1).float() / 127.5 - 1
        if work != (height, width):
            frames = interpolate(frames, work, mode="bilinear", align_corners=False)
        flow: Tensor = net(frames[1:], frames[:-1], num_flow_updates=self.updates)[-1].float()
        cells = interpolate(flow, grid_shape(height, width, self.cell), mode="area")
        return cells * cells.new_tensor((width / work[1], height / work[0]))[:, None, None]


@lru_cache(maxsize=4)
def network(weights: str, checksum: str, model: Model, device: torch.device) -> nn.Module:
    """The network with the weights of a file, on a device; raises ValueError where they do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torchvision.models.optical_flow import raft_large, raft_small

    net: nn.Module = {"small": raft_small, "large": raft_large}[model](weights=None, progress=False)
    try:
        net.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ValueError(f"{weights} holds no weights of torchvision's raft_{model}: {error}") from error
    return net.eval().requires_grad_(False).to(device)
