"""A masked diffusion transformer over the voxels of point clouds: it predicts the noise that was added to each point.

Noised points are voxelised, and the cube is split into tokens of p^3 voxels. The encoder, with global attention, reads
only the visible tokens. The decoder, with attention within windows, reads the whole cube, with mask tokens for hidden
ones, and predicts a value for every voxel, which is interpolated at the points. So the deep encoder runs on few tokens,
and only a narrow, local decoder runs on all of them. New clouds are generated without a mask.

Sources: DiT-3D (Mo et al., 2023) for voxels, tokens, positions, conditions and the loss; FastDiT-3D (Mo et al., 2023)
for masks, the windowed decoder and experts by category (its code is not published). This project adds:

- The windows of every second decoder block are shifted by half a window.
- The size of the cube is a condition, like time and category.
- The mean of the encoder's output conditions the decoder, so that windows without a visible token get global context.
- The grid holds velocities v (Salimans and Ho, 2022), and the noise is sqrt(1 - a) x + sqrt(a) v. Voxels are too coarse
  to represent the noise itself, which at late times x determines almost completely.
- With `counts` the encoder reads the number of points in each voxel, since clean points lie where points are dense.

Predicting v = 0 is optimal if only the points' mean 0 and variance 1 are known (see `measure_baseline_loss`).

Shapes: B clouds of N points, T = (R / p)^3 tokens, V of them visible, D and E the widths of encoder and decoder.

The model creates the voxels: points are voxelised after noise has moved them, and at every step during generation. The
loader voxelises only to find the occupied tokens, for masks that use them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.augment.diffusion import CosineNoise, LinearNoise, Noise
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.tokens import (
    Voxels,
    interpolate_voxels,
    number_point_tokens,
    scale_to_voxels,
    voxelise,
)
from maskstream.shards.limits import PositiveInt, PositiveProportion
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, weighted
from maskstream.train.nn.grid import build_axis_sinusoids, from_windows, gather_tokens, put_tokens, rates, to_windows
from maskstream.train.nn.transformer import MLP, Attention, init_linear


class TimeEmbedding(nn.Module):
    """Embeds times int64 (B,) as float (B, width): sines and cosines of 128 frequencies, then an MLP."""

    rate: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("rate", rates(256).float(), persistent=False)
        self.up = nn.Linear(256, width)
        self.down = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        angle = time[:, None].float() * self.rate
        return cast(Tensor, self.down(F.silu(self.up(torch.cat((angle.cos(), angle.sin()), dim=1)))))


class Experts(nn.Module):
    """A mixture of experts: a router chooses one MLP for each cloud by its category, y = share * expert(x).

    All tokens of a cloud use the same expert, so categories can have separate parameters. The router is linear in the
    category's embedding (B, D); the share is its softmax, through which it is trained (Fedus et al., 2021). FastDiT-3D
    also routes by category, in an unpublished way.
    """

    def __init__(self, width: int, mlp_ratio: int, experts: int) -> None:
        super().__init__()
        inner = mlp_ratio * width
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.empty(experts, inner, width))
        self.up_bias = nn.Parameter(torch.zeros(experts, inner))
        self.down = nn.Parameter(torch.empty(experts, width, inner))
        self.down_bias = nn.Parameter(torch.zeros(experts, width))
        for weight in (self.up, self.down):
            for expert in weight:
                nn.init.xavier_uniform_(expert)

    def route(self, category: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expert of each cloud, int64 (B,), and its softmax weight in (0, 1], float32 (B,)."""
        shares = torch.softmax(self.router(category).float(), dim=1)
        share, chosen = shares.max(dim=1)
        return chosen, share

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        chosen, share = self.route(category)
        inner = F.gelu(torch.baddbmm(self.up_bias[chosen][:, None], x, self.up[chosen].transpose(1, 2)))
        out = torch.baddbmm(self.down_bias[chosen][:, None], inner, self.down[chosen].transpose(1, 2))
        return out * share.to(out.dtype)[:, None, None]


class ConditionedBlock(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by a condition (B, C).

    This is DiT's adaLN (Peebles and Xie, 2022), but its gates start at 1, not at 0: the block starts as one without a
    condition and learns from the first step, which matters in short runs. The feed-forward part is an `MLP`, or
    `Experts` if there are several.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int, condition: int, experts: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Experts(width, mlp_ratio, experts) if experts > 1 else MLP(width, mlp_ratio)
        self.modulation = nn.Linear(condition, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, category: Tensor, window: int = 0, moved: bool = False) -> Tensor:
        """Run the block.

        Args:
            x: Tokens.
            condition: Embedding of the conditions.
            category: Embedding of the category, for experts.
            window: Tokens along an edge of the attention windows of a whole cube x; 0 for global attention.
            moved: Whether windows are shifted by half a window and wrap around the faces of the cube.
        """
        parts = self.modulation(F.silu(condition))[:, None].chunk(6, dim=2)
        move1, scale1, gate1, move2, scale2, gate2 = parts
        y = self.norm1(x) * (1 + scale1) + move1
        y = self.apply_window_attention(y, window, moved) if window else self.attention(y)
        x = x + (1 + gate1) * y
        y = self.norm2(x) * (1 + scale2) + move2
        y = self.mlp(y, category) if isinstance(self.mlp, Experts) else self.mlp(y)
        return cast(Tensor, x + (1 + gate2) * y)

    def apply_window_attention(self, x: Tensor, window: int, moved: bool) -> Tensor:
        """Apply attention within windows of window^3 tokens of cubes (B, S^3, D).

        Args:
            x: Tokens of the cubes.
            window: Tokens along an edge of a window.
            moved: Whether windows are shifted by half a window.
        """
        cube, edges, shift = (round(x.shape[1] ** (1 / 3)),) * 3, (window,) * 3, window // 2
        if moved:
            x = x.reshape(len(x), *cube, -1).roll((-shift,) * 3, dims=(1, 2, 3)).flatten(1, 3)
        windows = to_windows(x, cube, edges)
        x = from_windows(self.attention(windows.flatten(0, 1)).view(windows.shape), cube, edges)
        return x.view(len(x), *cube, -1).roll((shift,) * 3, dims=(1, 2, 3)).flatten(1, 3) if moved else x


Schedule = Literal["linear", "cosine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelDiffusionConfig(ModelConfig[PointsBatch]):
    """The sizes and the noise schedule, by default DiT-3D's S/4, with a decoder of this project's size.

    Attributes:
        categories: Number of categories; labels are 0 to categories - 1, or -1 for none.
        width: Channels of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        experts: Experts of every second block of the encoder, chosen by category.
        decoder_width: Channels of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        window: Tokens along an edge of the decoder's windows.
        mlp_ratio: Hidden channels of an MLP per channel.
        counts: Whether a voxel also has the feature log(1 + density relative to the whole cube), besides its points'
            mean.
        shown: Fraction of tokens, those with the most points, that the encoder sees without a mask, as in generation.
        schedule: "linear" is `LinearNoise(times, first, last)`, "cosine" is `CosineNoise(times)`.
        times: Number of diffusion times.
        first: First variance of the linear schedule.
        last: Last variance of the linear schedule.
    """

    categories: PositiveInt = 64
    width: PositiveInt = 384
    depth: PositiveInt = 12
    heads: PositiveInt = 6
    experts: PositiveInt = 4
    decoder_width: PositiveInt = 192
    decoder_depth: PositiveInt = 4
    decoder_heads: PositiveInt = 3
    window: PositiveInt = 4
    mlp_ratio: PositiveInt = 4
    counts: bool = False
    shown: PositiveProportion = 1.0
    schedule: Schedule = "linear"
    times: int = 1000
    first: float = 1e-4
    last: float = 0.02

    def validate(self) -> None:
        for part in ("", "decoder_"):
            self.need_heads(f"{part}width", f"{part}heads", of=6)
        self.noise()

    @property
    def most_labels(self) -> int:
        """The number of categories."""
        return self.categories

    def check(self, data: DataConfig[PointsBatch]) -> None:
        """Raise ValueError if the data have another noise schedule than the model."""
        if isinstance(data, PointsData) and data.noise != self.noise():
            raise ValueError(
                f"the model expects the noise {self.noise()}, but the loader adds {data.noise}; set both to the same"
            )

    def noise(self) -> Noise:
        """Return the noise schedule of the loader and the model."""
        if self.schedule == "cosine":
            return CosineNoise(times=self.times)
        return LinearNoise(times=self.times, first=self.first, last=self.last)


class VoxelDiffusion(Model[PointsBatch], config=VoxelDiffusionConfig):
    """The model, on the grid "points": tokens of patch^3 voxels. With initial weights all velocities are 0."""

    whole_graph = True

    positions: Tensor
    decoder_positions: Tensor

    def __init__(self, config: VoxelDiffusionConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        shape = grids["points"].need("x", "y", "z", by="a model of voxels")
        self.config = config
        self.side, self.patch = shape[0], grids["points"].patch[0]
        self.resolution = self.side * self.patch
        if self.side % config.window:
            raise ValueError(
                f"window={config.window} does not divide the {self.side} tokens along an edge of the cube; choose one "
                "that does"
            )
        if config.shown * self.side**3 < 1:
            raise ValueError(f"shown={config.shown} of {self.side**3} tokens is less than one token; raise it")
        self.noise = config.noise()
        self._build(config)
        for name, width in (("positions", config.width), ("decoder_positions", config.decoder_width)):
            self.register_buffer(name, build_axis_sinusoids((self.side,) * 3, width), persistent=False)

    def _build(self, c: VoxelDiffusionConfig) -> None:
        values = 3 * self.patch**3
        self.embed = nn.Linear((3 + c.counts) * self.patch**3, c.width)
        self.time = TimeEmbedding(c.width)
        self.reach = nn.Linear(1, c.width)
        self.category = nn.Embedding(c.categories + 1, c.width)
        self.encoder = nn.ModuleList(
            ConditionedBlock(c.width, c.heads, c.mlp_ratio, c.width, c.experts if number % 2 else 1)
            for number in range(c.depth)
        )
        self.encoder_norm = nn.LayerNorm(c.width, eps=1e-6)
        self.bridge = nn.Linear(c.width, c.decoder_width)
        self.whole = nn.Linear(c.width, c.width)
        self.mask_token = nn.Parameter(torch.zeros(c.decoder_width))
        self.decoder = nn.ModuleList(
            ConditionedBlock(c.decoder_width, c.decoder_heads, c.mlp_ratio, c.width) for _ in range(c.decoder_depth)
        )
        self.norm = nn.LayerNorm(c.decoder_width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(c.width, 2 * c.decoder_width)
        self.head = nn.Linear(c.decoder_width, values)
        nn.init.normal_(self.mask_token, std=0.02)
        init_linear(self)
        nn.init.normal_(self.category.weight, std=0.02)
        for block in (*self.encoder, *self.decoder):
            nn.init.zeros_(cast(ConditionedBlock, block).modulation.weight)
        for last in (self.modulation, self.head):
            nn.init.zeros_(last.weight)

    def loss(self, batch: PointsBatch) -> Losses:
        """Return the mean squared error of the noise over clouds, weighted by the batch's weights.

        A cloud's error is the average of two means, over the points in visible tokens and over the others. So the few
        points that the encoder sees have the same weight as all others together; in generation it sees nearly all of
        them.
        """
        noise, time, visible = need_noise(batch)
        weight = torch.ones_like(batch.points[:, 0, 0]) if batch.weight is None else batch.weight
        noised = self.noise.noised(batch.points[..., :3], noise, time)
        predicted = self.predict(noised, time, batch.label, visible)
        error = F.mse_loss(predicted.float(), noise, reduction="none").mean(dim=2)
        seen = self._mark_inside(noised, visible)
        shares = [part.sum(dim=1).clamp_min(1) for part in (seen, 1 - seen)]
        halves = [(error * part).sum(dim=1) / n for part, n in zip((seen, 1 - seen), shares, strict=True)]
        whole = error.mean(dim=1)
        both = (seen.amax(dim=1) > 0) & (seen.amin(dim=1) < 1)
        loss = torch.where(both, (halves[0] + halves[1]) / 2, whole)
        return Losses(parts={"noise": weighted(loss, weight)})

    def reconstructed(self, batch: PointsBatch) -> PointsBatch:
        """Return the clouds denoised in one step by the predicted noise."""
        noise, time, visible = need_noise(batch)
        noised = self.noise.noised(batch.points[..., :3], noise, time)
        kept = self.noise.kept().to(noised.device)[time, None, None].float()
        made = (noised - (1 - kept).sqrt() * self.predict(noised, time, batch.label, visible)) / kept.sqrt()
        return replace(batch, points=torch.cat((made, batch.points[..., 3:]), dim=2))

    def _mark_inside(self, noised: Tensor, visible: Tensor) -> Tensor:
        """Return 1 for each point in one of the tokens `visible` (B, V), 0 for the others: float32 (B, N)."""
        tokens = number_point_tokens(scale_to_voxels(noised, self.resolution), self.resolution, self.patch)
        chosen = torch.zeros(len(noised), self.side**3, device=noised.device).scatter(1, visible, 1.0)
        return chosen.gather(1, tokens)

    def predict(self, noised: Tensor, time: Tensor, label: Tensor, visible: Tensor | None = None) -> Tensor:
        """Predict the noise in points.

        Args:
            noised: Noised points float32 (B, N, 3).
            time: Diffusion times int64 (B,).
            label: Categories int64 (B,).
            visible: Tokens that the encoder reads, int64 (B, V); defaults to the fraction `shown` with the most points.

        Returns:
            float32 (B, N, 3).
        """
        voxels = voxelise(noised, self.resolution)
        tokens = self.split(self._features(voxels))
        visible = self._select_fullest(voxels) if visible is None else visible
        category = self.category(label + 1)
        reach = voxels.reach.clamp_min(1e-6).log()[:, None]
        condition = self.time(time) + category + self.reach(reach)
        seen = self._encode(gather_tokens(tokens, visible), visible, condition, category)
        values = self._decode(seen, visible, condition, category)
        velocity = interpolate_voxels(self.join(values), voxels.places)
        kept = self.noise.kept().to(noised.device)[time, None, None]
        return (1 - kept).sqrt().float() * noised + kept.sqrt().float() * velocity.float()

    def _features(self, voxels: Voxels) -> Tensor:
        """Return the features of the voxels: (B, 3, R, R, R), or (B, 4, R, R, R) with the density of their points."""
        if not self.config.counts:
            return voxels.features
        density = voxels.counts * (self.resolution**3 / voxels.places.shape[1])
        return torch.cat((voxels.features, density.float().log1p()[:, None]), dim=1)

    def _select_fullest(self, voxels: Voxels) -> Tensor:
        """Return the fraction `shown` of tokens with the most points, ascending: int64 (B, V)."""
        points = self.split(voxels.counts[:, None]).sum(dim=2)
        order = points.sort(dim=1, descending=True, stable=True).indices
        return order[:, : int(self.config.shown * self.side**3)].sort(dim=1).values

    def measure_baseline_loss(self, time: Tensor) -> Tensor:
        """Return the loss at each time of a predictor that only uses the points' mean 0 and variance 1: a, float32
        (B,).
        """
        return self.noise.kept().to(time.device)[time].float()

    def _encode(self, tokens: Tensor, visible: Tensor, condition: Tensor, category: Tensor) -> Tensor:
        """Return the encoded visible tokens: (B, V, D)."""
        x = self.embed(tokens) + self.positions[visible]
        for block in self.encoder:
            x = block(x, condition, category)
        return cast(Tensor, self.encoder_norm(x))

    def _decode(self, seen: Tensor, visible: Tensor, condition: Tensor, category: Tensor) -> Tensor:
        """Return the predicted velocities of all voxels, by token: (B, T, 3 p^3)."""
        condition = condition + self.whole(seen.mean(dim=1))
        start = self.mask_token.expand(len(seen), self.side**3, -1)
        known = self.bridge(seen)
        x = put_tokens(start.to(known.dtype), visible, known) + self.decoder_positions
        for number, block in enumerate(self.decoder):
            x = block(x, condition, category, self.config.window, number % 2 == 1 and self.side > self.config.window)
        move, scale = self.modulation(F.silu(condition))[:, None].chunk(2, dim=2)
        return cast(Tensor, self.head(self.norm(x) * (1 + scale) + move))

    def split(self, grid: Tensor) -> Tensor:
        """Split a grid (B, C, R, R, R) into tokens (B, T, C p^3), with values in C order of (x, y, z, channel)."""
        return to_windows(grid.movedim(1, -1), (self.resolution,) * 3, (self.patch,) * 3).flatten(2)

    def join(self, tokens: Tensor) -> Tensor:
        """Join tokens (B, T, 3 p^3) to a grid (B, R, R, R, 3)."""
        edges = (self.resolution,) * 3
        cells = tokens.reshape(*tokens.shape[:2], -1, 3)
        return from_windows(cells, edges, (self.patch,) * 3).reshape(len(tokens), *edges, 3)


def need_noise(batch: PointsBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the noise of a batch, its times, and the visible tokens; raise ValueError if one is missing."""
    if batch.noise is None or batch.time is None or batch.mask is None:
        raise ValueError(
            "the batch has no noise or no masks, and a diffusion model needs both; pass noise= and mask= to the loader"
        )
    return batch.noise, batch.time, batch.mask.visible
