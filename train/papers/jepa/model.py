"""Joint-embedding prediction (JEPA): what a teacher sees in hidden parts of a sample is predicted from the others.

The encoder sees the context alone. The predictor reads what it made of it, and mask tokens at the places of the
targets. The teacher is the moving average of the encoder. It sees the whole sample; its output at the targets,
normalised, is what is predicted. Nothing compares pixels, so a teacher that says the same of every sample
would leave no loss: such a run has collapsed.

I-JEPA (Assran et al., 2023) predicts each block of targets by itself: the mask tokens of two blocks do not see each
other. Masks without blocks are one block of all their targets.

V-JEPA (Bardes et al., 2024) masks one clip several times, with one mask in each view, and predicts all targets of a
mask at once. V-JEPA 2 (Assran et al., 2025) does so too, but its tokens have no position vectors: queries and keys of
all blocks are turned by their places.

The teacher is a part of the model: it lies in its checkpoints, whose sums cover it, divided among ranks as all weights
are, and in model.safetensors. It is the encoder that features come from, as in the authors' evaluations.

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
from maskstream.pipelines.masks.laws.progress import ProgressLaw
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.train.core.distributed import get_local_rows, sum_over_ranks, world_size
from maskstream.train.core.model import Grids, Losses, ModelConfig, weighted, widen
from maskstream.train.nn.encoder_decoder import TokenDecoder, VisibleEncoder
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.masked_autoencoder import MediaEncoder, TokenKind
from maskstream.train.nn.objectives import EPS
from maskstream.train.nn.transformer import BlockSizes, TransformerBlock

Distance = Literal["smooth l1", "l1", "l2"]
"""How far a prediction is from its target, a mean over channels: Huber's with 1 as the bound, the absolute difference,
or the squared one."""
TargetNorm = Literal["channels", "tokens"]
"""Over what targets get mean 0 and variance 1: the "channels" of each token, as the papers do, or the "tokens" of all
samples of a batch, channel by channel, as in data2vec (Baevski et al., 2022): what all of them share is then no target.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class JepaConfig(ModelConfig[BatchT]):
    """The sizes of encoder and predictor; the defaults are those of ViT-B.

    momentum: the share of the teacher that stays in each step, a law of the run's progress. distance: of predictions
    from targets, which are normalised over `target_norm`. eps: of all layer norms. std: the deviation of initial
    weights. masks: how many views of a sample are the same and differ in their masks alone (`augment.SharedCrop`); the
    teacher sees them once.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    predictor_width: int = 384
    predictor_depth: int = 6
    predictor_heads: int = 12
    mlp_ratio: int = 4
    eps: float = 1e-6
    std: float = 0.02
    masks: int = 1
    momentum: ProgressLaw = field(default_factory=lambda: Linear(start=0.996, end=1.0))
    distance: Distance = "smooth l1"
    target_norm: TargetNorm = "channels"

    def validate(self) -> None:
        for part in ("", "predictor_"):
            self.need_heads(f"{part}width", f"{part}heads", of=2)
        self.need_least("depth", "predictor_depth", "mlp_ratio", "masks")
        self.need_choices(distance=Distance, target_norm=TargetNorm)
        if self.std <= 0:
            raise ValueError(f"std is a deviation above 0, got {self.std}")

    def check(self, data: DataConfig[BatchT]) -> None:
        """ValueError where the views that differ in their masks alone are not there."""
        shared = isinstance(getattr(data, "augment", None), SharedCrop | CenterCrop)
        views = getattr(data, "views", 1)
        changed = any(getattr(data, name, None) is not None for name in ("colour", "transform"))
        if self.masks > 1 and (views != self.masks or not shared or changed):
            raise ValueError(
                f"model.masks={self.masks} needs as many views that differ in masks alone, got views={views}; set "
                f"data.views={self.masks}, data.augment.kind=SharedCrop, data.colour=null and data.transform=null"
            )

    @abstractmethod
    def tokens(self, grids: Grids) -> TokenKind[BatchT]:
        """The `TokenKind` module for the data's grid."""


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
        """The teacher, which is called as the encoder is; at first its copy."""
        return deepcopy(self.encoder)

    def _parts(self) -> tuple[nn.Module, nn.Module]:
        """The encoder and the predictor, which are called as a VisibleEncoder and a TokenDecoder are."""
        c, tokens = self.config, self.tokens
        encoder = VisibleEncoder(
            [tokens.n_inputs], [tokens.positions(c.width)], BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps)
        )
        sizes = BlockSizes(c.predictor_depth, c.predictor_heads, c.mlp_ratio, c.eps)
        predictor = TokenDecoder(c.width, [c.width], [tokens.positions(c.predictor_width)], sizes, bias=True)
        nn.init.trunc_normal_(predictor.mask_token, std=c.std)
        return encoder, predictor

    def unused(self, data: DataConfig[BatchT]) -> list[nn.Parameter]:
        """The teacher's parameters, which no gradient moves."""
        return [*self.teacher.parameters()]

    def train(self, mode: bool = True) -> Jepa[BatchT]:
        """See torch. The teacher drops nothing."""
        super().train(mode)
        if hasattr(self, "teacher"):  # an encoder that was taken out has no other parts
            self.teacher.train(mode and not hasattr(self, "predictor"))
        return self

    @torch.no_grad()
    def follow(self, step: int, steps: int) -> None:
        """See Model: moves the teacher towards the encoder."""
        share = 1 - self.config.momentum.at(step / steps)
        teacher, encoder = ([get_local_rows(p) for p in one.parameters()] for one in (self.teacher, self.encoder))
        torch._foreach_lerp_(teacher, encoder, share)

    def loss(self, batch: BatchT) -> Losses:
        """The mean distance of predictions from the teacher's output, over the tokens of a row, then over rows."""
        data, mask = self.tokens.of(batch)
        index, valid, weight = list_block_tokens(mask)
        known = self.known(batch, data).repeat_interleave(self.config.masks, dim=0)
        error = self.distance(self.predict(data, mask), gather_tokens(known, index.flatten(1)))
        counts = (weight * valid).flatten(1).to(error.dtype)
        return Losses(parts={"prediction": weighted(error, counts / of_rows(valid.flatten(1)))})

    def distance(self, made: Tensor, wanted: Tensor) -> Tensor:
        """The distance of each token, float32 (B, M)."""
        made, wanted = widen(made), widen(wanted)
        if self.config.distance == "smooth l1":
            return F.smooth_l1_loss(made, wanted, reduction="none").mean(dim=2)
        apart = made - wanted
        return (apart.abs() if self.config.distance == "l1" else apart.square()).mean(dim=2)

    def known(self, batch: BatchT, data: Tensor) -> Tensor:
        """The targets of all tokens of a batch's samples, whose media are `data`: (B / masks, N, D)."""
        return self.targets(data[:: self.config.masks])

    @torch.no_grad()
    def targets(self, data: Tensor) -> Tensor:
        """What the teacher makes of all tokens, normalised without weights: (B, N, D)."""
        return self.normalised(widen(self._encode(self.teacher, data)))

    def normalised(self, found: Tensor) -> Tensor:
        """Targets (B, N, D) normalised over what `target_norm` says."""
        if self.config.target_norm == "channels":
            return F.layer_norm(found, found.shape[-1:])
        moments = torch.stack((found.mean(dim=(0, 1)), found.square().mean(dim=(0, 1))))
        if self.training and world_size() > 1:
            moments = sum_over_ranks(moments) / world_size()
        mean, square = moments
        return cast(Tensor, (found - mean) * (square - mean.square() + EPS).rsqrt())

    def predict(self, data: Tensor, mask: MaskBatch) -> Tensor:
        """The predictions of the tokens of all blocks, one block after the other: (B, P * K, D)."""
        made = self._predict_blocks(data, mask)[0]
        return made.reshape(len(mask.visible), -1, made.shape[-1])

    def _predict_blocks(self, data: Tensor, mask: MaskBatch) -> list[Tensor]:
        """What the predictor makes of each block: (B * P, K, D) first."""
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
        """The batch with each target token replaced by the token of another sample of it of which the teacher says
        what is nearest to the prediction, by cosine. A batch of one sample stays as it is.
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
        """The teacher's output for all tokens of a batch, none of them hidden: (B, N, D)."""
        return self._encode(self.teacher, self.tokens.media(batch))

    def watched(self, batch: BatchT) -> dict[str, Tensor]:
        """What the encoder, and what the teacher makes of all tokens of each sample: (B / masks, N, D) each."""
        data = self.tokens.media(batch)[:: self.config.masks]
        parts = {"features": self.encoder, "targets": self.teacher}
        return {name: self._encode(one, data).float() for name, one in parts.items()}

    encoder_parts: ClassVar[tuple[str, ...]] = ("tokens", "teacher")
    """What its features are made by."""

    def _encode(self, encoder: nn.Module, data: Tensor) -> Tensor:
        """What an encoder makes of all tokens: (B, N, D)."""
        tokens = self.tokens.split(data)
        index = torch.arange(tokens.shape[1], device=data.device).expand(data.shape[0], -1)
        return cast(Tensor, encoder(self.tokens.inputs(tokens), self.placed(index, data)))

    def placed(self, index: Tensor, data: Tensor) -> Tensor:
        """The numbers on the model's grid of the tokens `index`, int64, of media; by default the same."""
        return index


def of_rows(valid: Tensor) -> Tensor:
    """How many entries of each row of `valid` bool (B, M) are real, at least 1: (B, 1)."""
    return valid.sum(dim=1, keepdim=True).clamp_min(1)


def list_block_tokens(mask: MaskBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens of each block of targets int64 (B, P, K), which of them are real bool (B, P, K), and what each counts
    float32 (B, P, K).
    """
    if not isinstance(mask, BlockMaskBatch):
        return mask.target[:, None], mask.target_valid[:, None], mask.weight[:, None]
    by_token = torch.zeros(mask.masked.shape, device=mask.weight.device)
    by_token = by_token.scatter_reduce(1, mask.target, mask.weight, "amax")
    weight = by_token.gather(1, mask.blocks.flatten(1)).view_as(mask.blocks)
    return mask.blocks, torch.ones_like(mask.blocks, dtype=torch.bool), weight


def _init_weights(part: nn.Module, std: float) -> None:
    """Truncated normal weights and zero biases; the last layer of each branch is divided by the root of twice its
    block's number, counted from 1.
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
