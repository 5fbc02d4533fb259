"""The waypoint model: predicts from clips of colour and depth where a trajectory goes next, as ImagineNav's
Where2Imagine.

ImagineNav (Zhao et al., ICLR 2025) lets a vision-language model choose among imagined views; Where2Imagine learns, from
how people walk, the relative waypoint of the next view to imagine. Code and sizes are not published, so this is its
task with a network of this project: a vision transformer whose tokens are cubes of colour and depth together, and a
linear head on a class token. The head predicts the difference from the waypoint of walking straight on: metres to the
right, metres forward, and sine and cosine of the turn. With an odometer, straight on is at the speed of the clip's last
step, and a linear map of the clip's motion is added to the head.

Shapes: B clips, N tokens, V of them visible, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.trajectory.batch import TrajectoryBatch
from maskstream.pipelines.modalities.trajectory.data import TrajectoryData
from maskstream.shards.limits import PositiveInt
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, weighted, widen
from maskstream.train.nn.grid import Positions, build_grid_positions, gather_tokens, to_cells
from maskstream.train.nn.media_tokens import VideoTokens
from maskstream.train.nn.transformer import Stack, init_linear

PACE_M_S = 1.2
"""The pace in metres a second of a walk straight on where the speed is not known, and of the head's outputs."""
_FAR_M = 10.0
_MOTION = (10.0, 10.0, 10.0, 16.0, 16.0, 16.0)
"""Factors of positions in metres and of quaternions' vectors, which bring small steps near 1."""
_MOTION_GAIN = 10.0
"""Factor of the linear map of the motion. It makes the map learn ten times faster than the rest, and the tokens learn
the remainder.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaypointConfig(ModelConfig[TrajectoryBatch]):
    """The sizes of the model, by default ViT-S.

    Attributes:
        width: Number of channels.
        depth: Number of blocks.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of an MLP per channel.
        depths: Whether the model reads depth besides colour.
        motion: Whether the model also reads the poses of the clip's frames, as from an odometer; clips then have two
            frames or more.
        ahead_s: Seconds to the waypoint, as in the data.
    """

    version: ClassVar[int] = 2  # 2: the linear map of the motion is multiplied

    width: PositiveInt = 384
    depth: PositiveInt = 12
    heads: PositiveInt = 6
    mlp_ratio: PositiveInt = 4
    depths: bool = True
    motion: bool = False
    ahead_s: float = 2.0

    def validate(self) -> None:
        self.need_heads(of=4)

    def check(self, data: DataConfig[TrajectoryBatch]) -> None:
        """Raise ValueError unless the data have the depth, frames and waypoints that the model needs."""
        if not isinstance(data, TrajectoryData):
            return
        if self.depths and not data.depth:
            raise ValueError("the model reads depth, but the data have depth=False; set model.depths=False")
        if self.motion and data.clip.frames < 2:
            raise ValueError("model.motion needs clips of two frames or more, got one; set data.clip.frames=2")
        if self.ahead_s != data.ahead_s:
            raise ValueError(
                f"model.ahead_s={self.ahead_s} must equal data.ahead_s={data.ahead_s}; set both to the same value"
            )


class WaypointModel(Model[TrajectoryBatch], config=WaypointConfig):
    """The model, on the grid "video" (t, h, w). Where a batch has a mask, it sees the visible tokens alone."""

    whole_graph = True

    def __init__(self, config: WaypointConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        grid = grids["video"]
        self.tokens = VideoTokens(grid, places="grid")
        self.colour = nn.Linear(self.tokens.n_inputs, config.width)
        self.deep = nn.Linear(2 * self.tokens.n_pixels, config.width) if config.depths else None
        moves = len(_MOTION) * self.tokens.extent[0]
        self.motion = nn.Linear(moves, config.width) if config.motion else None
        self.kept_up = nn.Linear(moves, 4, bias=False) if config.motion else None
        self.positions = Positions([build_grid_positions(grid.shape, config.width)])
        self.class_token = nn.Parameter(torch.empty(config.width).normal_(std=0.02))
        self.stack = Stack(config.depth, config.width, config.heads, config.mlp_ratio)
        self.head = nn.Linear(config.width, 4)
        init_linear(self)
        nn.init.normal_(self.head.weight, std=1e-3)  # so that first predictions are close to walking straight on
        if self.kept_up is not None:
            nn.init.zeros_(self.kept_up.weight)

    def loss(self, batch: TrajectoryBatch) -> Losses:
        """Return the mean distance of predicted and true positions in metres, and the mean angle between the turns in
        radians.
        """
        made, true = self._encode_outputs(batch), widen(batch.waypoint)
        weight = torch.ones_like(true[:, 0]) if batch.weight is None else batch.weight
        place = torch.linalg.vector_norm(made[:, :2] - true[:, :2], dim=1)
        turned = torch.stack([true[:, 2].sin(), true[:, 2].cos()], dim=1)
        unit = nn.functional.normalize(made[:, 2:], dim=1)
        cross = unit[:, 0] * turned[:, 1] - unit[:, 1] * turned[:, 0]
        angle = torch.atan2(cross, (unit * turned).sum(dim=1)).abs()
        return Losses(parts={"place": weighted(place, weight), "turn": weighted(angle, weight)})

    def reconstructed(self, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Return the batch with the predicted waypoints."""
        return replace(batch, waypoint=self.waypoints(batch))

    def waypoints(self, batch: TrajectoryBatch) -> Tensor:
        """Return predicted waypoints, float32 (B, 3), as in `TrajectoryBatch`."""
        made = self._encode_outputs(batch)
        return torch.cat([made[:, :2], torch.atan2(made[:, 2], made[:, 3])[:, None]], dim=1)

    def _encode_outputs(self, batch: TrajectoryBatch) -> Tensor:
        """Return positions in metres, and sines and cosines of the turns, not normalised: float32 (B, 4)."""
        index = None if batch.mask is None else batch.mask.visible
        cubes = self.tokens.split(batch.video)
        x = self.colour(self.tokens.inputs(cubes if index is None else gather_tokens(cubes, index)))
        if self.deep is not None:
            if batch.depth is None:
                raise ValueError("the batch has no depth, but this model reads it; pass depth=True to the loader")
            depths = self._depths(batch.depth)
            x = x + self.deep(depths if index is None else gather_tokens(depths, index))
        positions = self.positions()
        x = x + (positions if index is None else positions[index])
        first = self.class_token.to(x.dtype).expand(len(x), 1, -1)
        if self.motion is not None:
            first = first + self.motion(measure_movement(batch))[:, None]
        out = widen(cast(Tensor, self.head(self.stack(torch.cat([first, x], dim=1))[:, 0])))
        if self.kept_up is not None:
            out = out + _MOTION_GAIN * widen(self.kept_up(measure_movement(batch)))
        reach = PACE_M_S * self.config.ahead_s
        return self._make_straight(batch) + out * out.new_tensor([reach, reach, 1.0, 1.0])

    def _make_straight(self, batch: TrajectoryBatch) -> Tensor:
        """Return the outputs for walking straight on, float32 (B, 4)."""
        pace = measure_speed(batch) if self.config.motion else batch.pose.new_full((len(batch),), PACE_M_S)
        none = torch.zeros_like(pace)
        return torch.stack([none, pace * self.config.ahead_s, none, torch.ones_like(pace)], dim=1)

    def _depths(self, depth: Tensor) -> Tensor:
        """Return cubes of depth (B, N, 2 pixels): nearness, from 0 at 10 m and more to 1, and whether depth is
        known.
        """
        near = 1 - torch.log1p(depth.clamp(max=_FAR_M)) / torch.log1p(depth.new_tensor(_FAR_M))
        known = (depth > 0).to(depth.dtype)
        both = torch.stack([near * known, known], dim=-1)
        cubes = to_cells(both, self.tokens.extent, self.tokens.patch).movedim(-1, 4)
        return cubes.reshape(depth.shape[0], self.tokens.n_tokens, -1)


def measure_movement(batch: TrajectoryBatch) -> Tensor:
    """Return the positions and rotations of the camera in each frame, scaled to about 1: float32 (B, 6 T)."""
    poses = torch.cat([batch.pose[:, :, :3], batch.pose[:, :, 4:]], dim=2)
    return (poses * poses.new_tensor(_MOTION)).flatten(1)


def measure_speed(batch: TrajectoryBatch) -> Tensor:
    """Return the speed in the last step of each clip, along the current camera's ground plane: metres per second,
    float32 (B,).

    It is 0 for a clip that repeats its last frame.

    Raises:
        ValueError: Clips have one frame, and so no step.
    """
    took = step_s(batch)
    way: Tensor = torch.linalg.vector_norm(batch.pose[:, -2][:, [0, 2]], dim=1)
    return way / took


def step_s(batch: TrajectoryBatch) -> Tensor:
    """Return the time of the last step of each clip in seconds, float32 (B,); infinite if the clip repeats its last
    frame.

    Raises:
        ValueError: Clips have one frame, and so no step.
    """
    if batch.pose.shape[1] < 2:
        raise ValueError("the last motion needs clips of two frames or more, got one; set data.clip.frames=2")
    found = (batch.pts_s[:, -1] - batch.pts_s[:, -2]).float()
    return torch.where(found > 0, found, torch.inf)
