"""Joint-embedding prediction (JEPA): predicts a teacher's features of hidden parts of a sample from the other parts.

The encoder sees only the context. The predictor reads its output, and mask tokens at the positions of the targets. The
teacher is the moving average of the encoder. It sees the whole sample; its normalised output at the targets is
predicted. No pixels are compared, so a teacher with the same output for every sample would have zero loss: such a run
has collapsed.

I-JEPA (Assran et al., 2023) predicts each block of targets separately: the mask tokens of two blocks do not attend to
each other. Masks without blocks are one block of all their targets.

V-JEPA (Bardes et al., 2024) masks one clip several times, with one mask in each view, and predicts all targets of a
mask at once. So does V-JEPA 2 (Assran et al., 2025), but its tokens have no position vectors: queries and keys of all
blocks are rotated by their positions.

The teacher is part of the model: it is in the checkpoints, covered by their checksums and divided among ranks like all
weights, and in model.safetensors. Features come from the teacher, as in the authors' evaluations.

Shapes: B samples, N tokens, V of them visible, P blocks of K targets, D the encoder's width.
"""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.augment import CenterCrop, SharedCrop
from maskstream.pipelines.masks import BlockMaskBatch, Linear, MaskBatch
from maskstream.pipelines.masks.schedules.progress import ProgressSchedule
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.limits import PositiveFloat, PositiveInt
from maskstream.train.core.distributed import sum_over_ranks, world_size
from maskstream.train.core.model import Grids, Losses, ModelConfig, weighted, widen
from maskstream.train.core.optimiser import move_towards
from maskstream.train.nn.encoder_decoder import TokenDecoder, VisibleEncoder
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.masked_autoencoder import MediaEncoder
from maskstream.train.nn.media_tokens import TokenKind
from maskstream.train.nn.objectives import EPS
from maskstream.train.nn.transformer import BlockSizes, TransformerBlock

Distance = Literal["smooth l1", "l1", "l2"]
"""Distance of a prediction from its target, a mean over channels: Huber's with 1 as the bound, the absolute difference,
or the squared one.
"""
TargetNorm = Literal["channels", "tokens"]
"""Normalisation of targets to mean 0 and variance 1: over the "channels" of each token, as in the papers, or over the
"tokens" of all samples of a batch, channel by channel, as in data2vec (Baevski et al., 2022), which removes the common
part of all tokens.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class JepaConfig(ModelConfig[BatchT]):
    """The sizes of encoder and predictor, by default ViT-B.

    Attributes:
        width: Channels of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        predictor_width: Channels of the predictor.
        predictor_depth: Blocks of the predictor.
        predictor_heads: Attention heads of the predictor.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of all layer norms.
        std: Standard deviation of the initial weights.
        masks: Number of identical views of a sample that differ only in their masks (`augment.SharedCrop`); the teacher
            sees them once.
        momentum: Fraction of the teacher that is kept in each step, as a schedule over the run.
        distance: Distance of predictions from targets.
        target_norm: Normalisation of targets.
    """

    width: PositiveInt = 768
    depth: PositiveInt = 12
    heads: PositiveInt = 12
    predictor_width: PositiveInt = 384
    predictor_depth: PositiveInt = 6
    predictor_heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-6
    std: PositiveFloat = 0.02
    masks: PositiveInt = 1
    momentum: ProgressSchedule = field(default_factory=lambda: Linear(start=0.996, end=1.0))
    distance: Distance = "smooth l1"
    target_norm: TargetNorm = "channels"

    def validate(self) -> None:
        for part in ("", "predictor_"):
            self.need_heads(f"{part}width", f"{part}heads", of=2)

    def check(self, data: DataConfig[BatchT]) -> None:
        """Raise ValueError if `masks` is above 1 but the data do not have as many views that differ only in their
        masks.
        """
        shared = isinstance(getattr(data, "augment", None), SharedCrop | CenterCrop)
        views = getattr(data, "views", 1)
        changed = any(getattr(data, name, None) is not None for name in ("colour", "transform"))
        if self.masks > 1 and (views != self.masks or not shared or changed):
            raise ValueError(
                f"model.masks={self.masks} needs as many views that differ only in their masks, got views={views}; "
                f"set data.views={self.masks}, data.augment.kind=SharedCrop, data.colour=null and data.transform=null"
            )

    @abstractmethod
    def tokens(self, grids: Grids) -> TokenKind[BatchT]:
        """Return the `TokenKind` module for the data's grid."""


class Jepa(MediaEncoder[BatchT], config=JepaConfig):
    """Encoder, predictor and teacher over any `TokenKind` module."""

    whole_graph = True

    def __init__(self, config: JepaConfig[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.tokens = config.tokens(grids)
        self.encoder, self.predictor = self._parts()
        for part in (self.encoder, self.predictor):
            _init_weights(part, c.std)
        self.teacher = self._teacher()

    def _teacher(self) -> nn.Module:
        """Return the teacher, which is called like the encoder and starts as its copy."""
        return deepcopy(self.encoder)

    def _parts(self) -> tuple[nn.Module, nn.Module]:
        """Return the encoder and the predictor, which are called like a VisibleEncoder and a TokenDecoder."""
        c, tokens = self.config, self.tokens
        encoder = VisibleEncoder(
            [tokens.n_inputs], [tokens.positions(c.width)], BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps)
        )
        sizes = BlockSizes(c.predictor_depth, c.predictor_heads, c.mlp_ratio, c.eps)
        predictor = TokenDecoder(c.width, [c.width], [tokens.positions(c.predictor_width)], sizes, bias=True)
        nn.init.trunc_normal_(predictor.mask_token, std=c.std)
        return encoder, predictor

    def unused(self, data: DataConfig[BatchT]) -> list[nn.Parameter]:
        """Return the teacher's parameters, which get no gradient."""
        return [*self.teacher.parameters()]

    def train(self, mode: bool = True) -> Jepa[BatchT]:
        """See torch. The teacher drops nothing."""
        super().train(mode)
        if hasattr(self, "teacher"):  # an encoder that was extracted has no other parts
            self.teacher.train(mode and not hasattr(self, "predictor"))
        return self

    @torch.no_grad()
    def follow(self, step: int, steps: int) -> None:
        """Move the teacher towards the encoder; see Model.

        Args:
            step: Number of the step, from 0.
            steps: Number of steps of the run.
        """
        move_towards(self.teacher.parameters(), self.encoder.parameters(), self.config.momentum.at(step / steps))

    def loss(self, batch: BatchT) -> Losses:
        """Return the mean distance of predictions from the teacher's output, over the tokens of a row, then over
        rows.
        """
        data, mask = self.tokens.of(batch)
        index, valid, weight = list_block_tokens(mask)
        known = self.known(batch, data).repeat_interleave(self.config.masks, dim=0)
        error = self.distance(self.predict(data, mask), gather_tokens(known, index.flatten(1)))
        counts = (weight * valid).flatten(1).to(error.dtype)
        return Losses(parts={"prediction": weighted(error, counts / of_rows(valid.flatten(1)))})

    def distance(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Return the distance of each token, float32 (B, M).

        Args:
            made: Predictions (B, M, D).
            wanted: Targets (B, M, D).
        """
        made, wanted = widen(made), widen(wanted)
        if self.config.distance == "smooth l1":
            return F.smooth_l1_loss(made, wanted, reduction="none").mean(dim=2)
        apart = made - wanted
        return (apart.abs() if self.config.distance == "l1" else apart.square()).mean(dim=2)

    def known(self, batch: BatchT, data: Tensor) -> Tensor:
        """Return the targets of all tokens of a batch's samples, given their media `data`: (B / masks, N, D).

        Args:
            batch: The batch.
            data: Media with one row for each mask of a sample.
        """
        return self.targets(data[:: self.config.masks])

    @torch.no_grad()
    def targets(self, data: Tensor) -> Tensor:
        """Return the teacher's normalised output (B, N, D) for all tokens."""
        return self.normalised(widen(self._encode(self.teacher, data)))

    def normalised(self, found: Tensor) -> Tensor:
        """Normalise targets (B, N, D) as set by `target_norm`."""
        if self.config.target_norm == "channels":
            return F.layer_norm(found, found.shape[-1:])
        moments = torch.stack((found.mean(dim=(0, 1)), found.square().mean(dim=(0, 1))))
        if self.training and world_size() > 1:
            moments = sum_over_ranks(moments) / world_size()
        mean, square = moments
        return cast(Tensor, (found - mean) * (square - mean.square() + EPS).rsqrt())

    def predict(self, data: Tensor, mask: MaskBatch) -> Tensor:
        """Return the predictions of the tokens of all blocks, concatenated: (B, P * K, D).

        Args:
            data: Media of the batch.
            mask: Masks of the batch.
        """
        made = self._predict_blocks(data, mask)[0]
        return made.reshape(len(mask.visible), -1, made.shape[-1])

    def _predict_blocks(self, data: Tensor, mask: MaskBatch) -> list[Tensor]:
        """Return the predictor's outputs for each block; the first is (B * P, K, D)."""
        index, valid, _ = list_block_tokens(mask)
        seen = gather_tokens(self.tokens.split(data), mask.visible)
        real = None if mask.n_visible is None else mask.visible_valid
        visible, index = self.placed(mask.visible, data), self.placed(index, data)
        encoded = cast(Tensor, self.encoder(self.tokens.inputs(seen), visible, valid=real))
        blocks = index.shape[1]
        encoded, visible = (one.repeat_interleave(blocks, dim=0) for one in (encoded, visible))
        read = None
        if mask.n_visible is not None:
            read = torch.cat((mask.visible_valid.repeat_interleave(blocks, dim=0), valid.flatten(0, 1)), dim=1)
        return cast(list[Tensor], self.predictor([encoded], [visible], [index.flatten(0, 1)], valid=read))

    @torch.no_grad()
    def reconstructed(self, batch: BatchT) -> BatchT:
        """Return the batch with target tokens replaced by tokens of its other samples.

        Each is the token whose teacher features have the highest cosine with the prediction. A batch of one sample is
        returned unchanged.
        """
        data, mask = self.tokens.of(batch)
        if len(data) < 2:
            return batch
        index, valid, _ = list_block_tokens(mask)
        known, made = self.targets(data), self.predict(data, mask)
        predicted = torch.zeros_like(known)
        rows = torch.arange(len(known), device=known.device)[:, None]
        kept = valid.flatten(1)
        at = torch.where(kept, index.flatten(1), known.shape[1])
        predicted = F.pad(predicted, (0, 0, 0, 1)).index_put((rows, at), made.to(predicted), accumulate=True)
        wanted = F.normalize(gather_tokens(predicted, mask.target), dim=2)
        nearest = []
        for i in range(len(known)):
            others = rows[:, 0] != i
            there = F.normalize(known[others], dim=2).flatten(0, 1)
            nearest.append(self.tokens.split(data)[others].flatten(0, 1)[(wanted[i] @ there.T).argmax(dim=1)])
        return self.tokens.completed(batch, self.tokens.inputs(torch.stack(nearest)))

    def token_features(self, batch: BatchT) -> Tensor:
        """Return the teacher's output (B, N, D) for all tokens of a batch, none of them hidden."""
        return self._encode(self.teacher, self.tokens.media(batch))

    def watched(self, batch: BatchT) -> dict[str, Tensor]:
        """Return the outputs of encoder and teacher for all tokens of each sample, (B / masks, N, D), which the guard
        measures.
        """
        data = self.tokens.media(batch)[:: self.config.masks]
        parts = {"features": self.encoder, "targets": self.teacher}
        return {name: self._encode(one, data).float() for name, one in parts.items()}

    encoder_parts: ClassVar[tuple[str, ...]] = ("tokens", "teacher")
    """Parts that compute the features."""

    def _encode(self, encoder: nn.Module, data: Tensor) -> Tensor:
        """Return the output (B, N, D) of an encoder for all tokens."""
        tokens = self.tokens.split(data)
        index = torch.arange(tokens.shape[1], device=data.device).expand(data.shape[0], -1)
        return cast(Tensor, encoder(self.tokens.inputs(tokens), self.placed(index, data)))

    def placed(self, index: Tensor, data: Tensor) -> Tensor:
        """Return the indices, on the model's grid, of the tokens `index`, int64, of media; by default the same.

        Args:
            index: Indices of tokens.
            data: The media.
        """
        return index


def of_rows(valid: Tensor) -> Tensor:
    """Return the number of real entries in each row of `valid` bool (B, M), at least 1: (B, 1)."""
    return valid.sum(dim=1, keepdim=True).clamp_min(1)


def list_block_tokens(mask: MaskBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tokens of each block of targets.

    Args:
        mask: Masks of the batch.

    Returns:
        Tokens int64 (B, P, K), which of them are real bool (B, P, K), and their weights float32 (B, P, K).
    """
    if not isinstance(mask, BlockMaskBatch):
        return mask.target[:, None], mask.target_valid[:, None], mask.weight[:, None]
    by_token = torch.zeros(mask.masked.shape, device=mask.weight.device)
    by_token = by_token.scatter_reduce(1, mask.target, mask.weight, "amax")
    weight = by_token.gather(1, mask.blocks.flatten(1)).view_as(mask.blocks)
    return mask.blocks, torch.ones_like(mask.blocks, dtype=torch.bool), weight


def _init_weights(part: nn.Module, std: float) -> None:
    """Initialise with truncated normal weights and zero biases; the last layer of each branch is divided by the root of
    twice its block's number, counted from 1.
    """
    for module in part.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    blocks = [one for one in part.modules() if isinstance(one, TransformerBlock)]
    for number, block in enumerate(blocks, start=1):
        for last in (block.attention.out, block.mlp.down):
            with torch.no_grad():
                last.weight.div_((2.0 * number) ** 0.5)
