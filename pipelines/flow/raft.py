r"""RAFT (Teed and Deng 2020): flow of whole batches from a neural network on their device, with weights from a file.

The networks are torchvision's `raft_small` and `raft_large`. Their published weights are pickles, which are never
loaded here, so convert them once:

    python -c "import sys, torch, safetensors.torch as s; s.save_file(torch.load(sys.argv[1]), sys.argv[2])" \
        raft_small_C_T_V2-01064c6d.pth raft_small.safetensors

On CUDA it computes in half precision (autocast to float16).
"""

from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import xxhash
from torch import Tensor, nn
from torch.nn.functional import interpolate

from maskstream.shards.config import NOT_IDENTITY
from maskstream.shards.limits import PositiveInt

from .base import grid_shape
from .source import BatchFlow

Model = Literal["small", "large"]
LEAST_SIDE, MULTIPLE = 128, 8
"""Minimum and divisor of the frame sides, in pixels, required by torchvision's networks."""
NO_WEIGHTS = (
    "RAFT has no weights; pass flow=Raft(weights='raft_small.safetensors') of maskstream.pipelines.flow, with "
    "weights converted from torchvision's as described in pipelines/flow/raft.py"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Raft(BatchFlow):
    """RAFT flow, averaged over cells. Frames are enlarged to multiples of 8 pixels, at least 128.

    Attributes:
        weights: Safetensors file with the weights of torchvision's `raft_small` or `raft_large`.
        checksum: xxh3_64 of the file; read from it if empty. Part of a run's identity, unlike the path.
        model: "small" or "large".
        updates: Number of refinement iterations.
        cell: Approximate side of a cell in pixels.

    Raises:
        ValueError: The file is missing, does not match the checksum, or does not fit the network.
    """

    weights: str = field(default="", metadata=NOT_IDENTITY)
    checksum: str = ""
    model: Model = "small"
    updates: PositiveInt = 12
    cell: int = 8

    def validate(self) -> None:
        grid_shape(self.cell, self.cell, self.cell)
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
        """Display name."""
        return f"RAFT ({self.model})"

    def unfit(self, profile: str, *, stride: int, align: int) -> str | None:
        """Return whether weights or torchvision are missing, as a message; None if neither is."""
        if not self.weights:
            return NO_WEIGHTS
        return None if find_spec("torchvision") else "RAFT's networks are torchvision's: pip install torchvision"

    def of_clips(self, clips: Tensor) -> Tensor:
        """Compute the backward flow of clips uint8 (B, T, H, W, 3): float32 (B, T-1, 2, h, w), as in `BatchFlow`.

        All pairs of a clip are processed at once, clip by clip, so that a clip's flow is the same in any batch.
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
    """Load the network with the weights of a file onto a device.

    Raises:
        ValueError: The weights do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torchvision.models.optical_flow import raft_large, raft_small

    net: nn.Module = {"small": raft_small, "large": raft_large}[model](weights=None, progress=False)
    try:
        net.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ValueError(f"{weights} contains no weights of torchvision's raft_{model}: {error}") from error
    return net.eval().requires_grad_(False).to(device)
