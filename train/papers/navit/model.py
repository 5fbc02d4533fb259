"""A masked autoencoder over packed rows: concatenated samples of any size, each of which attends to itself.

Shapes: T tokens of S samples, V of them visible and M of them targets; D channels of the encoder, E of the decoder.

Packing, and attention within each sample, follow NaViT (Dehghani et al., 2023, 2.1). The objective follows MAE (He et
al., 2022, 3.1): the encoder sees only the visible tokens; the decoder reads its output and a mask token for each
target, and predicts the targets' pixels, normalised by their mean and standard deviation. Positions are rotations of
queries and keys by time step, row and column, as in V-JEPA 2 (Assran et al., 2025, 2.1). So images of any size and
clips of any length have positions, and an image is a clip of one step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.packed.batch import PackedBatch, PackedMask
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.shards.limits import PositiveInt
from maskstream.train.core.model import LEAST, Grids, Losses, Model, ModelConfig, squared
from maskstream.train.nn.objectives import compute_joint_moments
from maskstream.train.nn.token_layers import Documents, TokenBlock
from maskstream.train.nn.transformer import init_linear

AXES = 3
"""Axes of a position: time step, row and column."""
Equal = Literal["tokens", "samples"]
"""Units with equal weight in the loss: each target token, so that large samples have more weight, or each sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeAutoencoderConfig(ModelConfig[PackedBatch]):
    """The sizes of a masked autoencoder over packed rows.

    Attributes:
        patch: Side of the loader's tokens in pixels.
        tubelet: Frames of the loader's tokens.
        width: Channels of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        decoder_width: Channels of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of the layer norms.
        equal: Units with equal weight in the loss.
    """

    patch: PositiveInt = 16
    tubelet: PositiveInt = 2
    width: PositiveInt = 384
    depth: PositiveInt = 12
    heads: PositiveInt = 6
    decoder_width: PositiveInt = 192
    decoder_depth: PositiveInt = 4
    decoder_heads: PositiveInt = 3
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-6
    equal: Equal = "tokens"

    def validate(self) -> None:
        for part in ("", "decoder_"):
            self.need_heads(f"{part}width", f"{part}heads")
            width, heads = getattr(self, f"{part}width"), getattr(self, f"{part}heads")
            if (channels := width // heads) % 2 or channels < 2 * AXES:
                raise ValueError(
                    f"a head is rotated along {AXES} axes, so it needs an even number of channels, {2 * AXES} or "
                    f"more, got {part}width={width} and {part}heads={heads}, which gives {channels}"
                )

    def check(self, data: DataConfig[PackedBatch]) -> None:
        """See ModelConfig."""
        if not isinstance(data, PackedData):
            raise ValueError(f"a {type(self).__name__} reads packed rows, got {type(data).__name__}; use PackedData")
        for name in ("patch", "tubelet"):
            own, other = getattr(self, name), getattr(data.native, name)
            if own != other:
                raise ValueError(
                    f"the model has a single token embedding, so model.{name}={own} must equal "
                    f"data.native.{name}={other}; set both to the same number"
                )


class NativeAutoencoder(Model[PackedBatch], config=NativeAutoencoderConfig):
    """A masked autoencoder over packed rows."""

    whole_graph = True
    float32_on_cpu = True
    encoder_parts: ClassVar[tuple[str, ...]] = ("embed", "encoder", "norm")

    def __init__(self, config: NativeAutoencoderConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        values = c.tubelet * c.patch**2 * 3
        self.embed = nn.Linear(values, c.width)
        self.encoder = _blocks(c.depth, c.width, c.heads, c)
        self.norm = nn.LayerNorm(c.width, eps=c.eps)
        self.bridge = nn.Linear(c.width, c.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(c.decoder_width))
        self.decoder = _blocks(c.decoder_depth, c.decoder_width, c.decoder_heads, c)
        self.decoder_norm = nn.LayerNorm(c.decoder_width, eps=c.eps)
        self.head = nn.Linear(c.decoder_width, values)
        nn.init.normal_(self.mask_token, std=0.02)
        init_linear(self)

    def forward(self, batch: PackedBatch) -> Losses:
        """Return the loss; see `Model`. A CPU always computes in float32, or the type of the weights, as for texts: its
        bf16 kernels are rebuilt for each length.
        """
        if batch.tokens.is_cuda:
            return self.loss(batch)
        with torch.autocast("cpu", enabled=False):
            return self.loss(batch)

    def loss(self, batch: PackedBatch) -> Losses:
        """Return the mean squared error of the targets' normalised pixels, over tokens or over samples (`Equal`)."""
        mask = _need_mask(batch)
        true, weight = self.targets(batch, mask.target), self.weight(batch)
        return Losses(parts={"reconstruction": squared(self.predict(batch), true, weight)})

    @torch.no_grad()
    def targets(self, batch: PackedBatch, index: Tensor) -> Tensor:
        """Return tokens as the decoder predicts them, each with mean 0 and variance 1, with the colours together.

        Args:
            batch: The batch.
            index: Indices of the tokens (K,).

        Returns:
            (K, tubelet * patch * patch * 3).
        """
        true = self._pixels(batch, index)
        mean, deviation = compute_joint_moments(true)
        return (true - mean) / deviation

    def weight(self, batch: PackedBatch) -> Tensor:
        """Return each target's weight in the loss, (M,).

        With "samples", the weights of a sample's targets sum to 1, or to the sample's weight if it has one.
        """
        mask = _need_mask(batch)
        weight = mask.weight.to(self._dtype)
        if self.config.equal == "tokens":
            return weight
        of = _samples(mask.cu_target, len(mask.target))
        share = weight / weight.new_zeros(len(batch)).index_add(0, of, weight).clamp_min(LEAST)[of]
        return share if batch.weight is None else share * batch.weight[of]

    def predict(self, batch: PackedBatch) -> Tensor:
        """Predict the targets, (M, tubelet * patch * patch * 3); raise ValueError for a batch without masks."""
        mask = _need_mask(batch)
        seen = self.bridge(self._encoded(batch, mask.visible, mask.cu_visible, mask.longest[0]))
        # For each sample, first the visible tokens, then the targets.
        of_seen, of_target = (_samples(ends, n) for ends, n in _ends(mask))
        at_seen = torch.arange(len(of_seen), device=seen.device) + mask.cu_target[of_seen]
        at_target = torch.arange(len(of_target), device=seen.device) + mask.cu_visible[of_target + 1]
        x = self.mask_token.to(seen.dtype).expand(len(at_seen) + len(at_target), -1)
        x = x.index_copy(0, at_seen, seen)
        place = batch.place.new_empty(len(x), AXES)
        place = place.index_copy(0, at_seen, batch.place[mask.visible])
        place = place.index_copy(0, at_target, batch.place[mask.target])
        c = self.config
        documents = _group_documents(
            mask.cu_visible + mask.cu_target, sum(mask.longest), place, c.decoder_width // c.decoder_heads
        )
        for block in self.decoder[:-1]:
            x = block(x, documents)
        if x.is_cuda or not len(at_target):
            x = self.decoder[-1](x, documents)[at_target]
        else:  # on a CPU the last block computes the targets alone
            x = self.decoder[-1](x, documents, documents.asking(at_target))
        return cast(Tensor, self.head(self.decoder_norm(x)))

    def encode(self, batch: PackedBatch) -> Tensor:
        """Return the encoder's output (T, D) for all tokens of a batch, none of them hidden."""
        return self._encoded(batch, None, batch.cu_seqlens, batch.longest)

    def features(self, batch: PackedBatch) -> Tensor:
        """Return the mean of the encoder's output over all tokens of each sample, float32 (S, D)."""
        return torch.segment_reduce(self.encode(batch).float(), "mean", offsets=batch.cu_seqlens.long())

    def reconstructed(self, batch: PackedBatch) -> PackedBatch:
        """Return the batch with its targets replaced by predictions, scaled by the true mean and standard deviation."""
        mask = _need_mask(batch)
        mean, deviation = compute_joint_moments(self._pixels(batch, mask.target))
        made = (self.predict(batch).float() * deviation + mean).view(len(mask.target), -1, 3)
        std, middle = (made.new_tensor(values) for values in (IMAGENET_STD, IMAGENET_MEAN))
        pixels = made.mul(std).add(middle).mul(255).round().clamp(0, 255).flatten(1)
        return replace(batch, tokens=batch.tokens.index_copy(0, mask.target, pixels.to(batch.tokens.dtype)))

    def _encoded(self, batch: PackedBatch, index: Tensor | None, edges: Tensor, longest: int) -> Tensor:
        """Return the encoder's output for the tokens at `index`, or all; `edges` are the boundaries of samples."""
        c = self.config
        if (batch.patch, batch.tubelet) != (c.patch, c.tubelet):
            raise ValueError(
                f"tokens have {batch.tubelet} x {batch.patch} x {batch.patch} pixels, but the model takes {c.tubelet} "
                f"x {c.patch} x {c.patch}; use one patch and one tubelet for the loader and the model"
            )
        place = batch.place if index is None else batch.place[index]
        documents = _group_documents(edges, longest, place, c.width // c.heads)
        x = self.embed(self._pixels(batch, index))
        for block in self.encoder:
            x = block(x, documents)
        return cast(Tensor, self.norm(x))

    def _pixels(self, batch: PackedBatch, index: Tensor | None) -> Tensor:
        """Return the normalised pixels of the tokens at `index`, or of all."""
        if len(batch.tokens) != len(batch.place):
            raise ValueError("the model reads images and clips, but the batch has audio; load splits without audio")
        some = batch if index is None else replace(batch, tokens=batch.tokens[index])
        return some.pixel_values(dtype=self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """The type of pixels and errors: float32, or float64 if the weights are."""
        return torch.float64 if self.embed.weight.dtype == torch.float64 else torch.float32


def _need_mask(batch: PackedBatch) -> PackedMask:
    if batch.mask is None:
        raise ValueError("the batch has no masks, but the model needs them; pass mask= to the loader")
    return batch.mask


def _blocks(depth: int, width: int, heads: int, config: NativeAutoencoderConfig) -> nn.ModuleList:
    hidden = config.mlp_ratio * width
    return nn.ModuleList(
        TokenBlock(width, heads, hidden, norm="pre", gated=False, eps=config.eps) for _ in range(depth)
    )


def _ends(mask: PackedMask) -> tuple[tuple[Tensor, int], tuple[Tensor, int]]:
    return (mask.cu_visible, len(mask.visible)), (mask.cu_target, len(mask.target))


def _samples(edges: Tensor, n: int) -> Tensor:
    """Return the sample of each of n tokens, int64 (n,), given the boundaries of samples."""
    return torch.bucketize(torch.arange(n, device=edges.device), edges[1:].long(), right=True)


def _group_documents(edges: Tensor, longest: int, place: Tensor, channels: int) -> Documents:
    """Return the samples of packed tokens at `place` (K, 3), given their boundaries."""
    number = torch.arange(len(place), device=place.device)
    return Documents(
        edges=edges,
        longest=longest,
        places=number - edges.long()[_samples(edges, len(place))],
        lengths=[] if edges.is_cuda else edges.diff().tolist(),
        turns=rotations(place, channels),
    )


def rotations(place: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of rotary positions.

    Each axis rotates a third of a head's pairs of channels, pair i of n by place / 10,000^(i / n); the remaining pairs
    are not rotated. Channel c is paired with channel c + channels / 2, as in `token_layers`; V-JEPA 2 pairs
    neighbouring channels, which is equivalent up to the order of channels.

    Args:
        place: Positions int (K, 3).
        channels: Channels per head.

    Returns:
        Two tensors float32 (K, 1, channels).
    """
    pairs = channels // 2
    n = pairs // AXES
    rates = torch.pow(10000.0, -torch.arange(n, device=place.device) / n)
    angle = (place.float()[:, :, None] * rates).flatten(1)
    angle = nn.functional.pad(angle, (0, pairs - AXES * n)).repeat(1, 2)[:, None]
    return angle.cos(), angle.sin()
