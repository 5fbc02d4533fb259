"""A masked autoencoder of point clouds: Point-MAE (Pang et al., 2022).

A cloud becomes groups of neighbouring points (point_groups.py). A small PointNet makes a token of each visible group;
the encoder reads those, the decoder reads them and a mask token for every hidden group, and predicts the hidden groups'
points relative to their centres. Centres are known: a perceptron of them is every token's position, in all blocks.
The loss is the Chamfer distance of predicted and true points, which have no order.

Shapes: B clouds of N points, G groups of K points, V of them visible, M hidden, D channels.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..evaluate.point_distances import chamfer
from ..tokens.point_groups import group_points
from .masked_autoencoder import Block


@dataclass(frozen=True, kw_only=True, slots=True)
class PointAutoencoderConfig:
    """`groups` groups of `size` points; the defaults are Point-MAE's."""

    groups: int = 64
    size: int = 32
    width: int = 384
    depth: int = 12
    heads: int = 6
    decoder_depth: int = 4
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        least = min(self.groups, self.size, self.depth, self.decoder_depth, self.mlp_ratio, self.heads)
        if least < 1 or self.width < 2 or self.width % self.heads:
            raise ValueError(f"all sizes are at least 1, and width a multiple of heads, got {self}")


class GroupEmbedding(nn.Module):
    """A token of each group of points: (B, V, K, 3) to (B, V, D). Their order does not matter.

    Two perceptrons on each point, the first one's maximum over the group beside what the second one reads.
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


class PointAutoencoder(nn.Module):
    """The model. `seed` alone decides the initial weights."""

    def __init__(self, config: PointAutoencoderConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(config)

    def _build(self, c: PointAutoencoderConfig) -> None:
        self.embed = GroupEmbedding(c.width)
        self.place = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, c.width))
        self.decoder_place = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, c.width))
        self.encoder = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio, 1e-6) for _ in range(c.depth))
        self.encoder_norm = nn.LayerNorm(c.width, eps=1e-6)
        self.mask_token = nn.Parameter(torch.zeros(c.width))
        self.decoder = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio, 1e-6) for _ in range(c.decoder_depth))
        self.decoder_norm = nn.LayerNorm(c.width, eps=1e-6)
        self.head = nn.Linear(c.width, 3 * c.size)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, points: Tensor, visible: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """The loss, a float32 scalar: sum(weight * chamfer) / sum(weight) over the groups `target`.

        points float32 (B, N, 3 or more). visible int64 (B, V), target int64 (B, M), weight float32 (B, M): the fields
        of a MaskBatch over `groups` tokens, in the order in which farthest point sampling finds them.
        """
        centres, groups = self.cut(points)
        predicted = self._predict(centres, groups, visible, target)
        true = groups[_rows(groups), target]
        error = chamfer(predicted.float().flatten(0, 1), true.flatten(0, 1)).view(weight.shape)
        return (error * weight).sum() / weight.sum()

    def cut(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The centres (B, G, 3) and the groups relative to them (B, G, K, 3), float32."""
        with torch.autocast(points.device.type, enabled=False), torch.no_grad():
            return group_points(points[..., :3].float(), self.config.groups, self.config.size)

    def predict(self, points: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        """The points of the groups `target` as the model completes them, in the cloud's own places: (B, M, K, 3)."""
        centres, groups = self.cut(points)
        made = self._predict(centres, groups, visible, target)
        return made.float() + centres[_rows(centres), target][:, :, None]

    def _predict(self, centres: Tensor, groups: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        """(B, M, K, 3), relative to the centres."""
        row = _rows(centres)
        seen, hidden = centres[row, visible], centres[row, target]
        x, place = self.embed(groups[row, visible]), self.place(seen)
        for block in self.encoder:
            x = block(x + place)
        x = self.encoder_norm(x)
        place = self.decoder_place(torch.cat((seen, hidden), dim=1))
        x = torch.cat((x, self.mask_token.to(x.dtype).expand(*target.shape, -1)), dim=1)
        for block in self.decoder:
            x = block(x + place)
        made = self.head(self.decoder_norm(x[:, visible.shape[1] :]))
        return cast(Tensor, made.view(*target.shape, self.config.size, 3))

    def metadata(self) -> dict[str, str]:
        """The kind and the config, as `load_model` reads them."""
        return {"kind": "points", "model": json.dumps(asdict(self.config))}


def _rows(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device)[:, None]
