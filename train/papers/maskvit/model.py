"""MaskViT (Gupta et al., 2022): predicts hidden ids of frames, with attention within windows of space and of time.

A frozen quantiser computes ids of the cells of each frame. The first frames are context and are never hidden; a
fraction of the others, which differs from sample to sample, is hidden. Each layer is two blocks: the first attends
within each frame, the second within columns of a few cells through all frames. A mask that hides everything except the
context generates the future: ids are filled in over several rounds (evaluate/hidden_ids.py).

Shapes: B clips of T frames, N = T x h x w cells, M of them predicted, K ids, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.masks import Context, MaskBatch, Padded
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.limits import PositiveInt
from maskstream.train.core.model import Grids, Losses, ModelConfig, TokenFeatures, weighted, widen
from maskstream.train.nn.grid import LearntPositions, from_windows, gather_tokens, to_windows
from maskstream.train.nn.quantiser import FrozenQuantiser, QuantiserConfig, check_cells, check_ids
from maskstream.train.nn.token_layers import TokenHead
from maskstream.train.nn.transformer import TransformerBlock, init_normal


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameIdsConfig(ModelConfig[VideoBatch]):
    """The sizes of the model, and its quantiser.

    Attributes:
        vq: The model.safetensors of a run that trained a quantiser (see FrozenQuantiser).
        quantiser: Sizes of the quantiser.
        width: Number of channels.
        depth: Number of layers, of two blocks each.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of the layer norms.
        window: Side of a window of space and time, in cells.
        context: Number of frames that are never hidden.
    """

    reads_targets: ClassVar[bool] = True

    vq: str | None = "runs/vqframes-tiny/model.safetensors"
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    width: PositiveInt = 768
    depth: PositiveInt = 6
    heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-6
    window: PositiveInt = 4
    context: PositiveInt = 1

    def validate(self) -> None:
        self.need_heads()

    def check(self, data: DataConfig[VideoBatch]) -> None:
        """Raise ValueError if the mask's visible frames differ from the context, or stored ids come from another
        quantiser.
        """
        check_ids(data, self.vq)
        mask = data.mask if isinstance(data, VideoData) else None
        inner = mask.mask if isinstance(mask, Padded) else mask
        if isinstance(inner, Context) and inner.frames != self.context:
            raise ValueError(f"model.context={self.context} and mask.frames={inner.frames} must be the same number")

    def make(self, grids: Grids) -> FrameIdsModel:
        """See ModelConfig."""
        check_cells(self.quantiser, grids, "video")
        frames, *sides = grids["video"].shape
        if frames <= self.context or any(side % self.window for side in sides):
            raise ValueError(
                f"clips need more frames than the context of {self.context}, and sides that are multiples of the "
                f"window of {self.window} cells, got {frames} frames of {' x '.join(map(str, sides))} cells"
            )
        return FrameIdsModel(self, grids)


class FrameIdsModel(TokenFeatures[VideoBatch]):
    """The model; `blank` is the id of a hidden cell."""

    whole_graph = True

    def __init__(self, config: FrameIdsConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.grid = grids["video"].shape
        self.blank = c.quantiser.codes
        self.windows = ((1, *self.grid[1:]), (self.grid[0], c.window, c.window))
        self.vq = FrozenQuantiser(c.quantiser, c.vq)
        self.embed = nn.Embedding(self.blank + 1, c.width)
        self.places = LearntPositions(self.grid, c.width)
        self.blocks = nn.ModuleList(TransformerBlock(c.width, c.heads, c.mlp_ratio, c.eps) for _ in range(2 * c.depth))
        self.norm = nn.LayerNorm(c.width, eps=c.eps)
        self.head = TokenHead(c.width, self.blank, c.eps)
        init_normal(self)

    def loss(self, batch: VideoBatch) -> Losses:
        """Return the cross-entropy of the hidden ids."""
        ids, mask = self.ids(batch), need_mask(batch)
        logits = self.predicted(ids, mask.masked, mask.target)
        errors = F.cross_entropy(widen(logits).transpose(1, 2), ids.gather(1, mask.target), reduction="none")
        return Losses(parts={"hidden ids": weighted(errors, mask.weight)})

    def ids(self, batch: VideoBatch) -> Tensor:
        """Return the ids of the cells of all frames, int64 (B, N)."""
        return self.vq.ids(batch.video, batch.fields).flatten(1)

    def predicted(self, ids: Tensor, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the logits (B, M, K) of cells.

        Args:
            ids: Ids of all cells, int64 (B, N).
            hidden: Cells that are not seen, bool (B, N).
            target: Indices of the cells to predict, int64 (B, M).
        """
        x = gather_tokens(self.encode(ids.masked_fill(hidden, self.blank)), target)
        return cast(Tensor, self.head(self.norm(x), self.embed.weight[: self.blank]))

    def encode(self, ids: Tensor) -> Tensor:
        """Return the output of the blocks (B, N, D) for ids int64 (B, N); `blank` ids are unknown cells."""
        x = self.embed(ids) + self.places()
        for i, block in enumerate(self.blocks):
            window = self.windows[i % 2]
            windows = to_windows(x, self.grid, window)
            x = from_windows(block(windows.flatten(0, 1)).view(windows.shape), self.grid, window)
        return cast(Tensor, x)

    def predict(self, ids: Tensor, hidden: Tensor, m: int) -> Tensor:
        """Return the logits (B, m, K) of hidden cells, in order.

        Args:
            ids: Ids of all cells, int64 (B, N).
            hidden: Hidden cells, bool (B, N), m in each row.
            m: Number of hidden cells of a row.
        """
        return self.predicted(ids, hidden, hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, -m:])

    def future(self, clips: int) -> Tensor:
        """Return the mask of all cells after the context, bool (clips, N)."""
        frames, *sides = self.grid
        after = torch.arange(frames) >= self.config.context
        return after.view(1, -1, 1, 1).expand(clips, -1, *sides).flatten(1)

    def drawn(self, ids: Tensor) -> Tensor:
        """Return the frames uint8 (B, T, H, W, 3) of ids int64 (B, N)."""
        return self.vq.decode(ids.view(len(ids), *self.grid))

    def reconstructed(self, batch: VideoBatch) -> VideoBatch:
        """Return the frames decoded from the ids, with the most probable id in each hidden cell."""
        ids, mask = self.ids(batch), need_mask(batch)
        everywhere = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        likely = self.predicted(ids, mask.masked, everywhere).argmax(dim=2)
        return replace(batch, video=self.drawn(torch.where(mask.masked, likely, ids)))

    def token_inputs(self, batch: VideoBatch) -> Tensor:
        """Return the rounded latent of each cell, float32 (B, N, channels)."""
        latents = self.vq.rounded(batch.video).flatten(2).transpose(1, 2)
        return latents.reshape(batch.video.shape[0], -1, latents.shape[2])

    def token_features(self, batch: VideoBatch) -> Tensor:
        """Return the output of the blocks (B, N, D) for all cells, none of them hidden."""
        return cast(Tensor, self.norm(self.encode(self.ids(batch))))

    encoder_parts: ClassVar[tuple[str, ...]] = ("vq", "embed", "places", "blocks", "norm")
    """Parts that compute the features."""


def need_mask(batch: VideoBatch) -> MaskBatch:
    """Return the masks of a batch; raise ValueError if it has none."""
    if batch.mask is None:
        raise ValueError(
            "the model learns hidden ids, but the batch has no mask; pass the loader "
            "masks.Padded(mask=masks.Context(mask=masks.PerFrame(ratio=masks.Uniform())))"
        )
    return batch.mask
