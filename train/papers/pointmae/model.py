"""A masked autoencoder of point clouds: Point-MAE (Pang et al., 2022).

A cloud is divided into groups of neighbouring points: centres by farthest point sampling, and the points nearest to
each. A small PointNet embeds each visible group as a token. The encoder reads these; the decoder reads them and a mask
token for each hidden group, and predicts the points of the hidden groups relative to their centres. The centres are
known: an MLP maps them to position embeddings, which are added in all blocks. The loss is the Chamfer distance between
predicted and true points.

Shapes: B clouds of N points, G groups of K points, V of them visible, M hidden, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.shards.limits import PositiveInt
from maskstream.train.core.model import Grids, Losses, ModelConfig, TokenFeatures, need_mask, weighted
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.objectives import chamfer, compute_squared_distances
from maskstream.train.nn.transformer import Stack, init_linear


def sample_farthest_points(xyz: Tensor, count: int) -> Tensor:
    """Sample points by farthest point sampling, beginning with point 0.

    Each point is the one farthest from the points chosen before. If a cloud has fewer distinct points, some are
    repeated.

    Args:
        xyz: Clouds (B, N, 3).
        count: Number of points.

    Returns:
        Indices int64 (B, count).
    """
    if not 1 <= count <= xyz.shape[1]:
        raise ValueError(f"count must lie between 1 and the {xyz.shape[1]} points of a cloud, got {count}")
    rows = torch.arange(xyz.shape[0], device=xyz.device)
    chosen = torch.zeros(xyz.shape[0], count, dtype=torch.int64, device=xyz.device)
    nearest = torch.full(xyz.shape[:2], float("inf"), dtype=xyz.dtype, device=xyz.device)
    for i in range(1, count):
        last = xyz[rows, chosen[:, i - 1]]
        nearest = torch.minimum(nearest, (xyz - last[:, None]).square().sum(dim=2))
        chosen[:, i] = nearest.argmax(dim=1)
    return chosen


def group_points(xyz: Tensor, groups: int, size: int) -> tuple[Tensor, Tensor]:
    """Cut clouds into groups of the points nearest to sampled centres.

    Args:
        xyz: Clouds (B, N, 3).
        groups: Number of groups, G.
        size: Points of a group, K.

    Returns:
        The centres (B, G, 3), and the groups relative to them (B, G, K, 3).
    """
    if not 1 <= size <= xyz.shape[1]:
        raise ValueError(f"size must lie between 1 and the {xyz.shape[1]} points of a cloud, got {size}")
    rows = torch.arange(xyz.shape[0], device=xyz.device)
    centres = xyz[rows[:, None], sample_farthest_points(xyz, groups)]
    members = compute_squared_distances(centres, xyz).topk(size, dim=2, largest=False, sorted=False).indices
    return centres, xyz[rows[:, None, None], members] - centres[:, :, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PointAutoencoderConfig(ModelConfig[PointsBatch]):
    """The sizes; the defaults are Point-MAE's."""

    width: PositiveInt = 384
    depth: PositiveInt = 12
    heads: PositiveInt = 6
    decoder_depth: PositiveInt = 4
    mlp_ratio: PositiveInt = 4

    def validate(self) -> None:
        self.need_heads()


class GroupEmbedding(nn.Module):
    """Embeds groups of points (B, V, K, 3) as tokens (B, V, D), independent of the points' order (PointNet).

    A first MLP runs on each point; a second one reads its output with its maximum over the group; then the maximum.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(width // 3, 8)
        self.first = nn.Sequential(nn.Linear(3, inner), nn.LayerNorm(inner), nn.GELU(), nn.Linear(inner, 2 * inner))
        self.second = nn.Sequential(
            nn.Linear(4 * inner, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, points: Tensor) -> Tensor:
        each = self.first(points)
        whole = each.amax(dim=2, keepdim=True).expand_as(each)
        return cast(Tensor, self.second(torch.cat((whole, each), dim=3)).amax(dim=2))


class PointAutoencoder(TokenFeatures[PointsBatch], config=PointAutoencoderConfig):
    """The model, on the grid "points": groups of points in the order of farthest point sampling."""

    whole_graph = True

    def __init__(self, config: PointAutoencoderConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        grids["points"].need("group", by="a model of groups of points")
        self.config = c = config
        self.groups, self.size = grids["points"].shape[0], grids["points"].patch[0]
        self.embed = GroupEmbedding(c.width)
        self.place = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, c.width))
        self.decoder_place = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, c.width))
        self.encoder = Stack(c.depth, c.width, c.heads, c.mlp_ratio)
        self.mask_token = nn.Parameter(torch.zeros(c.width))
        self.decoder = Stack(c.decoder_depth, c.width, c.heads, c.mlp_ratio)
        self.head = nn.Linear(c.width, 3 * self.size)
        nn.init.normal_(self.mask_token, std=0.02)
        init_linear(self)

    def loss(self, batch: PointsBatch) -> Losses:
        """Return the mean Chamfer distance of the target groups, weighted by the mask."""
        mask = need_mask(batch.mask)
        centres, groups = self.cut(batch.points)
        predicted = self._predict(centres, groups, mask.visible, mask.target)
        true = gather_tokens(groups, mask.target)
        error = chamfer(predicted.float().flatten(0, 1), true.flatten(0, 1)).view(mask.weight.shape)
        return Losses(parts={"chamfer": weighted(error, mask.weight)})

    def reconstructed(self, batch: PointsBatch) -> PointsBatch:
        """Return clouds of the visible groups' points and the target groups' predicted points."""
        mask = need_mask(batch.mask)
        centres, groups = self.cut(batch.points)
        seen = gather_tokens(groups + centres[:, :, None], mask.visible).flatten(1, 2)
        made = self.predict(batch.points, mask.visible, mask.target).flatten(1, 2)
        return replace(batch, points=torch.cat((seen, made), dim=1))

    def cut(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the centres (B, G, 3) and the groups relative to them (B, G, K, 3), float32."""
        exact = nullcontext() if torch.compiler.is_exporting() else torch.autocast(points.device.type, enabled=False)
        with exact, torch.no_grad():  # a graph that is exported has no autocast, and no node for its absence
            return group_points(points[..., :3].float(), self.groups, self.size)

    encoder_parts: ClassVar[tuple[str, ...]] = ("embed", "place", "encoder")
    """Parts that compute the features."""

    @property
    def feature_width(self) -> int:
        """The width of `features`."""
        return 2 * self.config.width

    def pool(self, tokens: Tensor) -> Tensor:
        """Return the maximum and the mean over tokens (B, G, D), which the authors' classifier reads: float32 (B, 2
        D).
        """
        return torch.cat((tokens.amax(dim=1), tokens.mean(dim=1)), dim=1).float()

    def token_features(self, batch: PointsBatch) -> Tensor:
        """Return the encoder's output (B, G, D) for all groups."""
        return self.compute_block_features(*self.cut(batch.points), (len(self.encoder.blocks),))[0]

    def token_inputs(self, batch: PointsBatch) -> Tensor:
        """Return the points of all groups, float32 (B, G, 3 K); the order of groups and points has no meaning."""
        centres, groups = self.cut(batch.points)
        return (groups + centres[:, :, None]).flatten(2)

    def compute_block_features(self, centres: Tensor, groups: Tensor, after: Sequence[int]) -> list[Tensor]:
        """Return the normalised outputs of all groups after some blocks: (B, G, D) each.

        Args:
            centres: Centres of the groups.
            groups: Groups relative to their centres.
            after: Numbers of blocks.
        """
        x, place = self.embed(groups).float(), self.place(centres).float()
        found = []
        for number, block in enumerate(self.encoder.blocks, start=1):
            x = block(x + place)
            if number in after:
                found.append(self.encoder.norm(x, 0))
        return found

    def predict(self, points: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        """Predict the points of groups in the cloud's coordinates.

        Args:
            points: Clouds.
            visible: Indices of the visible groups (B, V).
            target: Indices of the groups to predict (B, M).

        Returns:
            (B, M, K, 3).
        """
        centres, groups = self.cut(points)
        made = self._predict(centres, groups, visible, target)
        return made.float() + gather_tokens(centres, target)[:, :, None]

    def _predict(self, centres: Tensor, groups: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        """Predict the points relative to the centres: (B, M, K, 3)."""
        seen, hidden = gather_tokens(centres, visible), gather_tokens(centres, target)
        x = self.encoder(self.embed(gather_tokens(groups, visible)).float(), place=self.place(seen).float())
        place = self.decoder_place(torch.cat((seen, hidden), dim=1)).float()
        x = torch.cat((x.float(), self.mask_token.expand(*target.shape, -1)), dim=1)
        made = self.head(self.decoder(x, place=place, last=target.shape[1]))
        return cast(Tensor, made.view(*target.shape, self.size, 3))
