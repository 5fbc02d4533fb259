"""LeJEPA (Balestriero and LeCun, 2025): pulls the views of a sample together, and the distribution of embeddings
towards a Gaussian.

It has no teacher, predictor or stop-gradient. SIGReg, sketched isotropic Gaussian regularisation, keeps the embeddings
apart: along random directions, it compares them with a standard Gaussian by the statistic of Epps and Pulley (1983),
which is smooth and bounded.

Shapes: B samples of V views, D the encoder's width, P the width of an embedding, S directions.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.masks import Padded, Random, Tube
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.limits import AtLeastTwo, OpenProportion, PositiveInt
from maskstream.train.core.distributed import world_size
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.model import Grids, Losses, LossPart, ModelConfig, widen
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.encoder_decoder import VisibleEncoder
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.masked_autoencoder import MediaEncoder
from maskstream.train.nn.media_tokens import ImagePositions, ImageTokens, TokenKind, VideoTokens
from maskstream.train.nn.objectives import rows_of_all_ranks
from maskstream.train.nn.transformer import BlockSizes

FARTHEST, POINTS = 3.0, 17
"""The statistic is an integral over [-FARTHEST, FARTHEST]; POINTS of its integrand, which is even, lie from 0 on."""


def compute_epps_pulley(x: Tensor, farthest: float = FARTHEST, points: int = POINTS) -> Tensor:
    """Return the statistic of Epps and Pulley of N numbers against a standard Gaussian.

    It is N times the integral of |c(t) - g(t)|^2 g(t) by the trapezoid rule, where c is the characteristic function of
    the numbers and g(t) = exp(-t^2 / 2) the Gaussian's. For Gaussian numbers its mean is about 1 for any N.

    Args:
        x: Numbers float (N, ...).
        farthest: Upper end of the integral.
        points: Number of points of the trapezoid rule.

    Returns:
        float (...).
    """
    t = torch.linspace(0, farthest, points, dtype=x.dtype, device=x.device)
    gaussian = (-t.square() / 2).exp()
    angles = x.unsqueeze(-1) * t
    apart = (angles.cos().mean(dim=0) - gaussian).square() + angles.sin().mean(dim=0).square()
    return 2 * len(x) * torch.trapezoid(apart * gaussian, t, dim=-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeJepaSizes(ModelConfig[BatchT]):
    """The sizes of encoder and projector over any `TokenKind` module, by default ViT-B.

    Attributes:
        width: Channels of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of all layer norms.
        hidden: Width of the projector's two hidden layers.
        embedding: Width of the projector's output.
        slices: Number of random directions per step.
        share: Weight of SIGReg in the loss; the distance of views has the rest.
        views: Number of views of a sample that are compared; if the data have a mask, a view is its visible tokens.
    """

    width: PositiveInt = 768
    depth: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-6
    hidden: PositiveInt = 2048
    embedding: PositiveInt = 128
    slices: PositiveInt = 1024
    share: OpenProportion = 0.02
    views: AtLeastTwo = 4

    def validate(self) -> None:
        self.need_heads(of=2)

    @abstractmethod
    def tokens(self, grids: Grids) -> TokenKind[BatchT]:
        """Return the `TokenKind` module for the data's grid."""

    def check(self, data: DataConfig[BatchT]) -> None:
        """Raise ValueError for data with another number of views, or with views of different numbers of visible
        tokens.
        """
        if isinstance(mask := getattr(data, "mask", None), Padded):
            raise ValueError(
                f"views must have the same number of tokens, but {mask} pads them; use a mask with an exact count"
            )
        if (views := getattr(data, "views", 1)) != self.views:
            raise ValueError(
                f"model.views={self.views} must equal data.views, got data.views={views}; set both to the same number"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LeJepaConfig(LeJepaSizes[ImageBatch]):
    """The sizes of a LeJEPA of image patches; for `positions` see ImagePositions."""

    positions: ImagePositions = "columns"

    def tokens(self, grids: Grids) -> TokenKind[ImageBatch]:
        """Return the patches on the grid "image"."""
        return ImageTokens(grids["image"], "pixels", self.positions)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipLeJepaConfig(LeJepaSizes[VideoBatch]):
    """The sizes of a LeJEPA of cubes of video."""

    def tokens(self, grids: Grids) -> TokenKind[VideoBatch]:
        """Return the cubes on the grid "video"."""
        return VideoTokens(grids["video"], "pixels", "grid")


class LeJepa(MediaEncoder[BatchT], config=LeJepaSizes):
    """The encoder, and the projector, which is needed only for training."""

    whole_graph = True

    def __init__(self, config: LeJepaSizes[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.tokens = config.tokens(grids)
        self.encoder = VisibleEncoder(
            [self.tokens.n_inputs], [self.tokens.positions(c.width)], BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps)
        )
        widths = (c.width, c.hidden, c.hidden)
        layers = [
            part
            for before, after in pairwise(widths)
            for part in (nn.Linear(before, after), nn.BatchNorm1d(after, track_running_stats=False), nn.ReLU())
        ]
        self.projector = nn.Sequential(*layers, nn.Linear(c.hidden, c.embedding))

    def loss(self, batch: BatchT) -> Losses:
        """Return the squared distance of each view's embedding from its sample's mean, and SIGReg of each view.

        Both use the samples of all ranks, as do the projector's statistics.
        """
        found, share = self.embeddings(batch), self.config.share
        near = (found - found.mean(dim=1, keepdim=True)).square().mean()
        count = torch.full_like(near, len(batch.key)).detach()
        return Losses(
            parts={
                "views": LossPart(total=near * count, weight=count, share=1 - share),
                "sigreg": LossPart(total=self.sigreg(found) * count, weight=count, share=share),
            }
        )

    def embeddings(self, batch: BatchT) -> Tensor:
        """Return the projector's output for the views of each sample, float32 (B, V, P); in training of all ranks."""
        masked = isinstance(batch, ImageBatch | VideoBatch | AudioBatch) and batch.mask is not None
        rows = self._average_visible_features(batch) if masked else self.features(batch)
        if self.training and world_size() > 1:
            rows = rows_of_all_ranks(rows)
        made = widen(self.projector(rows))
        return made.reshape(-1, self.config.views, made.shape[1])

    def _average_visible_features(self, batch: BatchT) -> Tensor:
        """Return the mean of the encoder's output over the visible tokens of each view, float32 (B * V, D)."""
        data, mask = self.tokens.of(batch)
        inputs = self.tokens.inputs(gather_tokens(self.tokens.split(data), mask.visible))
        return widen(cast(Tensor, self.encoder(inputs, mask.visible))).mean(dim=1)

    def sigreg(self, found: Tensor) -> Tensor:
        """Return the mean of the statistic over views and random directions, of embeddings (B, V, P)."""
        with torch.autocast("cuda" if found.is_cuda else "cpu", enabled=False):
            directions = torch.randn(found.shape[2], self.config.slices, device=found.device).to(found)
            if self.training and world_size() > 1:
                dist.broadcast(directions, 0)
            return compute_epps_pulley(found @ (directions / directions.norm(dim=0))).mean()

    def token_features(self, batch: BatchT) -> Tensor:
        """Return the encoder's output (B * V, N, D) for all tokens of a batch."""
        inputs = self.token_inputs(batch)
        index = torch.arange(self.tokens.n_tokens, device=inputs.device).expand(len(inputs), -1)
        return cast(Tensor, self.encoder(inputs, index))

    def watched(self, batch: BatchT) -> dict[str, Tensor]:
        """Return the encoder's output (B * V, N, D) for all tokens of each view, which the guard measures."""
        return {"features": self.token_features(batch).float()}

    encoder_parts: ClassVar[tuple[str, ...]] = ("tokens", "encoder")
    """Parts that compute the features."""


def lejepa_base() -> Recipe[ImageBatch]:
    """LeJEPA (Balestriero and LeCun, 2025) with ViT-B/16: four views of an image, a projector of 2048, 2048 and 128
    channels, SIGReg along 1024 directions with weight 0.02.

    Drop path 0.1, a rate of 5e-4 that falls to a thousandth, 100 epochs with one of warm-up, 4 ranks form a batch of
    256. Numbers are from the authors' repository, README and small example.

    Differences from the authors' code: all views have 224 pixels and one crop policy, as in their small example (larger
    runs: two views of 224 and six of 98 pixels); no greyscale, blur or solarisation; the projector normalises over the
    batch of all ranks, without running means; warm-up starts at 0 (authors: a hundredth of the peak); bf16 where the
    device supports it (authors: bf16 with loss scaling); no probe during training (see `--probe`).
    """
    return Recipe(
        name="lejepa-base",
        batch_size=64,
        data=ImageData(
            size=224,
            patch=16,
            augment=RandomResizedCrop(scale=(0.08, 1.0), flip=0.5),
            colour=ColourJitter(hue=0.1, saturation=0.2, share=0.8),
            views=4,
        ),
        model=LeJepaConfig(dropout=DropoutConfig(path=0.1)),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05),
        schedule=ScheduleConfig(base_lr=5e-4, min_lr=5e-7, warmup=1 / 100, epochs=100),
    )


def lejepa_tiny() -> Recipe[ImageBatch]:
    """Scaled down to two CPU cores: 64 patches of 4 pixels, an encoder of 0.6 M parameters, 300 steps of 32 images.
    Views are 25 random patches of a crop (not in the paper). SIGReg, which grows with the batch, has weight 0.15.
    """
    return replace(
        lejepa_base(),
        name="lejepa-tiny",
        batch_size=32,
        data=ImageData(size=32, patch=4, mask=Random(ratio=0.6), augment=RandomResizedCrop(scale=(0.6, 1.0)), views=4),
        model=LeJepaConfig(
            width=128, depth=3, heads=4, positions="grid", hidden=256, embedding=32, slices=256, share=0.15
        ),
        schedule=ScheduleConfig(base_lr=8e-3, min_lr=8e-6, warmup=0.1, steps=300),
    )


def videolejepa_tiny() -> Recipe[VideoBatch]:
    """LeJEPA on video (not in the paper): four views of the same 8 frames of 8 clips, each with its own crop, colours
    and a tube mask that leaves 64 of 256 tokens, and the encoder of `videomae-tiny`.
    """
    return Recipe(
        name="videolejepa-tiny",
        batch_size=8,
        data=VideoData(
            clip=VideoClip(frames=8, stride=4, size=64),
            mask=Tube(ratio=0.75),
            augment=RandomResizedCrop(scale=(0.3, 1.0), flip=0.5),
            colour=ColourJitter(saturation=0.8, hue=0.5),
            views=4,
            patch=8,
        ),
        model=ClipLeJepaConfig(width=128, depth=4, heads=4, hidden=256, embedding=32, slices=256, share=0.1),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05),
        schedule=ScheduleConfig(base_lr=16e-3, min_lr=16e-6, warmup=0.1, steps=600),
    )
