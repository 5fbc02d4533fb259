"""The model of MPM (Zhang et al., 2023), which completes poses in 2-D and in 3-D, and lifts 2-D poses.

A frame is a token. Hidden joints of a frame get a learned position; an MLP, whose first layer differs between 2-D and
3-D poses, embeds the frame. A transformer that both share reads the frames that are not completely hidden. A decoder
for each kind of pose reads its output, with mask tokens for the hidden frames, and predicts all joints of all frames.
So a 2-D pose that is passed to the decoder of 3-D poses is lifted.

Shapes: B clips of T frames of J joints, V of the frames visible, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.pose.batch import PoseBatch
from maskstream.pipelines.modalities.pose.data import PoseData
from maskstream.shards.limits import PositiveFloat, PositiveInt
from maskstream.train.core.model import Grids, Losses, LossPart, ModelConfig, TokenFeatures, need_mask, weighted, widen
from maskstream.train.nn.grid import Positions, build_grid_positions, gather_tokens, put_tokens
from maskstream.train.nn.transformer import MLP, Stack, TransformerBlock, init_linear

Task = Literal["masked", "lift"]

UNITS = (0.2, 0.35)
"""Divisors of poses before embedding, unless a model is `published`: about the standard deviation of their joints, in
half widths of the image for 2-D and in metres for 3-D. Otherwise embeddings would be small compared with the positions
of frames.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseModelConfig(ModelConfig[PoseBatch]):
    """The sizes of the model, by default MPM's.

    Attributes:
        width: Number of channels.
        hidden: Hidden channels of the embedding of a pose.
        depth: Blocks of the encoder.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of an MLP per channel.
        decoder_depth: Blocks of a decoder.
        task: "masked" is the pre-training with three tasks, "lift" lifts 2-D poses without a mask to 3-D.
        shares: Weights of the three tasks: masked 2-D poses, masked 3-D poses, masked 2-D poses to 3-D.
        published: Whether blocks have ReLU and norms that divide by the standard deviation, and poses are not scaled,
            as in the authors' code; otherwise blocks have GELU and layer norms, and poses are divided by UNITS.
    """

    width: PositiveInt = 256
    hidden: PositiveInt = 512
    depth: PositiveInt = 4
    heads: PositiveInt = 8
    mlp_ratio: PositiveInt = 2
    decoder_depth: PositiveInt = 1
    task: Task = "masked"
    shares: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (5.0, 5.0, 1.0)
    published: bool = False

    def validate(self) -> None:
        self.need_heads(of=4)

    def check(self, data: DataConfig[PoseBatch]) -> None:
        """Raise ValueError unless there is a mask for the masked tasks and none for lifting."""
        if isinstance(data, PoseData) and (data.mask is None) == (self.task == "masked"):
            wanted = "needs a mask (mask=masks.Joints())" if self.task == "masked" else "takes none (mask=None)"
            raise ValueError(f"the task {self.task!r} {wanted}, got mask={data.mask}")


class DeviationNorm(nn.LayerNorm):
    """A layer norm that divides by the unbiased standard deviation plus epsilon, instead of the root of variance plus
    epsilon.
    """

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(widen(x), dim=-1, keepdim=True)
        return (x - mean) / (deviation + self.eps) * self.weight + self.bias


class ReluMLP(MLP):
    """An MLP with a ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.down(self.dropped(F.relu(self.up(x)))))


class PublishedStack(Stack):
    """A stack with the blocks of the authors' code."""

    def __init__(self, depth: int, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__(depth, width, heads, mlp_ratio)
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            block.norm1.of[0], block.norm2.of[0] = DeviationNorm(width, eps=1e-6), DeviationNorm(width, eps=1e-6)
            block.mlp = ReluMLP(width, mlp_ratio)
        self.norm.of[0] = DeviationNorm(width, eps=1e-6)


def make_stack(c: PoseModelConfig, depth: int) -> Stack:
    """Return blocks and the norm behind them.

    Args:
        c: Sizes of the model.
        depth: Number of blocks.
    """
    return (PublishedStack if c.published else Stack)(depth, c.width, c.heads, c.mlp_ratio)


class PoseTokenEncoder(nn.Module):
    """Embeds the visible frames of 2-D poses (kind 0) or 3-D poses (kind 1) and encodes them with shared blocks."""

    def __init__(self, c: PoseModelConfig, frames: int, joints: int) -> None:
        super().__init__()
        kinds = 2 if c.task == "masked" else 1
        self.places = nn.ParameterList(torch.zeros(2 + kind) for kind in range(kinds) if c.task == "masked")
        self.first = nn.ModuleList(nn.Linear((2 + kind) * joints, c.hidden) for kind in range(kinds))
        self.second = nn.Sequential(nn.GELU(), nn.Linear(c.hidden, c.width))
        self.positions = Positions([build_grid_positions((frames, 1), c.width)])
        self.stack = make_stack(c, c.depth)
        self.units = (1.0, 1.0) if c.published else UNITS

    def forward(self, pose: Tensor, kind: int, hidden: Tensor | None, seen: Tensor) -> Tensor:
        """Encode poses.

        Args:
            pose: Poses (B, T, J, 2 or 3).
            kind: 0 for 2-D, 1 for 3-D.
            hidden: Hidden joints, bool (B, T, J), or None.
            seen: Frames that enter, int64 (B, V).

        Returns:
            (B, V, D).
        """
        pose = pose / self.units[kind]
        if hidden is not None:
            pose = torch.where(hidden[..., None], self.places[kind].to(pose.dtype), pose)
        x = self.second(self.first[kind](gather_tokens(pose.flatten(2), seen)))
        return cast(Tensor, self.stack(x + self.positions()[seen]))


class PoseDecoder(nn.Module):
    """Predicts all joints of all frames, (B, T, J, dims), from encoded visible frames (B, V, D)."""

    def __init__(self, c: PoseModelConfig, frames: int, joints: int, dims: int) -> None:
        super().__init__()
        self.shape = (frames, joints, dims)
        self.positions = Positions([build_grid_positions((frames, 1), c.width)])
        self.mask_token = nn.Parameter(torch.empty(c.width).normal_(std=0.02)) if c.task == "masked" else None
        self.stack = make_stack(c, c.decoder_depth)
        self.head = nn.Linear(c.width, joints * dims)

    def forward(self, encoded: Tensor, seen: Tensor) -> Tensor:
        frames, joints, dims = self.shape
        x = encoded
        if self.mask_token is not None:
            x = put_tokens(self.mask_token.to(x.dtype).expand(x.shape[0], frames, -1), seen, x)
        return cast(Tensor, self.head(self.stack(x + self.positions())).view(len(x), frames, joints, dims))


class PoseModel(TokenFeatures[PoseBatch], config=PoseModelConfig):
    """The model, on the grid "pose" (frame, joint)."""

    whole_graph = True

    def __init__(self, config: PoseModelConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        self.frames, self.joints = grids["pose"].need("frame", "joint", by="a model of poses")
        masked = config.task == "masked"
        self.encoder = PoseTokenEncoder(config, self.frames, self.joints)
        self.decoder_3d = PoseDecoder(config, self.frames, self.joints, dims=3)
        self.decoder_2d = PoseDecoder(config, self.frames, self.joints, dims=2) if masked else None
        init_linear(self)
        for decoder in (self.decoder_3d, self.decoder_2d):
            if decoder is not None:  # so that first predictions are near the pelvis
                nn.init.normal_(decoder.head.weight, std=0.01)

    encoder_parts: ClassVar[tuple[str, ...]] = ("encoder",)
    """Parts that compute the features."""

    def token_features(self, batch: PoseBatch) -> Tensor:
        """Return the encoder's output (B, T, D) for all frames of whole 2-D poses."""
        seen = torch.arange(self.frames, device=batch.pose_2d.device).expand(batch.pose_2d.shape[0], -1)
        return cast(Tensor, self.encoder(batch.pose_2d, 0, None, seen))

    def token_inputs(self, batch: PoseBatch) -> Tensor:
        """Return the 2-D joints of each frame, float32 (B, T, 2 J)."""
        return batch.pose_2d.float().flatten(2)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile only the encoder and the decoders, since visible frames are counted on the host."""
        for part in (self.encoder, self.decoder_3d, self.decoder_2d):
            if part is not None:
                part.compile(*args, **kwargs)

    def loss(self, batch: PoseBatch) -> Losses:
        """Return the mean distance of predicted and true joints, over all joints of all frames, in metres and half
        widths.
        """
        weight = torch.ones_like(batch.focal) if batch.weight is None else batch.weight
        if self.decoder_2d is None:
            return Losses(parts={"lift": distance(self.lifted(batch), batch.pose_3d, weight)})
        flat, solid, lifted = self.completed(batch)
        parts = (("2d", flat, batch.pose_2d), ("3d", solid, batch.pose_3d), ("lift", lifted, batch.pose_3d))
        return Losses(
            parts={
                name: distance(made, true, weight, share)
                for (name, made, true), share in zip(parts, self.config.shares, strict=True)
            }
        )

    def reconstructed(self, batch: PoseBatch) -> PoseBatch:
        """Return the batch with completed 2-D and 3-D poses or, for a model that only lifts, with lifted 3-D poses."""
        if self.decoder_2d is None:
            return replace(batch, pose_3d=self.lifted(batch).float())
        flat, solid, _ = self.completed(batch)
        return replace(batch, pose_2d=flat.float(), pose_3d=solid.float())

    def completed(self, batch: PoseBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Complete masked poses: 2-D poses (B, T, J, 2), 3-D poses (B, T, J, 3), and 3-D poses from the 2-D ones.

        Raises:
            ValueError: The model only lifts.
        """
        if self.decoder_2d is None:
            raise ValueError("this model has task='lift' and does not complete poses; train one with task='masked'")
        (hidden_2d, seen_2d), (hidden_3d, seen_3d) = (self._seen(mask) for mask in (batch.mask_2d, batch.mask_3d))
        flat = self.encoder(batch.pose_2d, 0, hidden_2d, seen_2d)
        solid = self.encoder(batch.pose_3d, 1, hidden_3d, seen_3d)
        made = self.decoder_2d(flat, seen_2d), self.decoder_3d(solid, seen_3d), self.decoder_3d(flat, seen_2d)
        return cast(tuple[Tensor, Tensor, Tensor], made)

    def lifted(self, batch: PoseBatch) -> Tensor:
        """Return the 3-D poses (B, T, J, 3) of whole 2-D poses."""
        seen = torch.arange(self.frames, device=batch.pose_2d.device).expand(batch.pose_2d.shape[0], -1)
        return cast(Tensor, self.decoder_3d(self.token_features(batch), seen))

    def _seen(self, mask: MaskBatch | None) -> tuple[Tensor, Tensor]:
        """Return the hidden joints, bool (B, T, J), and the frames with a visible one, int64 (B, V)."""
        hidden = need_mask(mask).masked.view(-1, self.frames, self.joints)
        whole = hidden.all(dim=2)
        counts = (~whole).sum(dim=1)
        least, most = torch.stack(counts.aminmax()).tolist()
        if least != most or most == 0:
            raise ValueError(
                f"the clips of a batch have {least} to {most} frames with a visible joint; the model needs the same "
                "number in each clip, at least one; use masks.Joints"
            )
        return hidden, torch.argsort(whole.to(torch.uint8), dim=1, stable=True)[:, :most]


def distance(made: Tensor, true: Tensor, weight: Tensor, share: float = 1.0) -> LossPart:
    """Return the mean distance of joints, weighted by clip.

    Args:
        made: Predicted joints (B, T, J, dims).
        true: True joints (B, T, J, dims).
        weight: Weight of each clip (B,).
        share: Factor of the part in the loss.
    """
    error = torch.linalg.vector_norm(widen(made) - widen(true), dim=-1).mean(dim=(1, 2))
    return weighted(error, weight, share)
