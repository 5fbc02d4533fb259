"""MeshMask: an encoder-processor-decoder on meshes, pre-trained by hiding nodes, then trained to predict the next step.

Masked, the encoder's rounds of messages run on what is left of the graph when the hidden nodes and their edges are
taken out. Then the graph is whole again: hidden nodes come back as a mask token, their edges as their own features plus
an edge token, and the decoder's rounds run over it; fields are predicted at the hidden nodes. Without a mask the same
rounds run on the whole graph and the change to the next step is predicted, by a head of its own.

Source: MeshMask (Garnier et al., 2025) for the masking, MeshGraphNets (Pfaff et al., 2021) for the network and the
prediction of changes. As there, a node's place is known only from its edges.

Shapes: N nodes, E edges, D channels, V visible nodes, M targets, K edges between visible nodes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...shards.config import Config
from ..core.losses import Losses, squared
from ..core.seeding import seeded
from .message_passing import GatedMLP, GraphBlock

Task = Literal["masked", "next"]

N_KINDS = 9
"""Node types are one-hot of this width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshNetworkConfig(Config):
    """Task and sizes. task: "masked" predicts hidden fields, "next" changes to the next step. channels: D. dims: of
    space, 2 or 3. width: of nodes and edges; hidden: of the gated perceptrons. encoder_rounds, decoder_rounds: of
    messages, before and after hidden nodes come back.
    """

    task: Task = "masked"
    channels: int = 3
    dims: int = 2
    width: int = 128
    hidden: int = 128
    encoder_rounds: int = 10
    decoder_rounds: int = 5

    def __post_init__(self) -> None:
        if self.dims not in (2, 3):
            raise ValueError(f"dims is 2 or 3, got {self.dims}")
        if self.task not in get_args(Task):
            raise ValueError(f"task is one of {', '.join(get_args(Task))}, got {self.task!r}")
        sizes = (self.channels, self.width, self.hidden, self.encoder_rounds, self.decoder_rounds)
        if min(sizes) < 1:
            raise ValueError(f"channels, width, hidden and both numbers of rounds are at least 1, got {sizes}")


class MeshNetwork(nn.Module):
    """The network of either task; all but the head and the tokens have the same names and shapes in both. `seed` alone
    decides the initial weights.
    """

    def __init__(self, config: MeshNetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = c = config
        with seeded(seed):
            self.embed_nodes = GatedMLP(c.channels + N_KINDS, c.width, c.hidden)
            self.embed_edges = GatedMLP(c.dims + 1, c.width, c.hidden)
            self.encoder = nn.ModuleList(GraphBlock(c.width, c.hidden) for _ in range(c.encoder_rounds))
            self.decoder = nn.ModuleList(GraphBlock(c.width, c.hidden) for _ in range(c.decoder_rounds))
            if c.task == "masked":
                self.field_head = nn.Linear(c.width, c.channels)
                self.mask_token = nn.Parameter(0.02 * torch.randn(c.width))
                self.edge_token = nn.Parameter(0.02 * torch.randn(c.width))
            else:
                self.change_head = nn.Linear(c.width, c.channels)

    def metadata(self) -> dict[str, str]:
        """What `load_model` rebuilds it from."""
        return {"kind": "mesh", "model": json.dumps(asdict(self.config))}

    def forward(self, *inputs: Tensor) -> Tensor:
        """The loss of a batch, a float32 scalar: of `masked_losses` or `next_losses`, as the task is."""
        losses = self.masked_losses if self.config.task == "masked" else self.next_losses
        return losses(*inputs).loss()

    def masked_losses(
        self,
        fields: Tensor,
        kinds: Tensor,
        edges: Tensor,
        features: Tensor,
        visible: Tensor,
        target: Tensor,
        weight: Tensor,
        visible_edges: Tensor,
        kept_edges: Tensor,
    ) -> Losses:
        """The squared error of fields at hidden nodes, the mean over channels, each node weighted."""
        made = self.predict_masked(fields, kinds, edges, features, visible, target, visible_edges, kept_edges)
        return Losses(parts={"fields": squared(made, fields[target], weight)})

    def next_losses(
        self,
        fields: Tensor,
        next_fields: Tensor,
        kinds: Tensor,
        edges: Tensor,
        features: Tensor,
        change: Tensor,
        counts: Tensor,
    ) -> Losses:
        """The same error of the change to the next step in units of `change`, over all nodes; weighted by counts."""
        made = self.predict_change(fields, kinds, edges, features)
        return Losses(parts={"change": squared(made, (next_fields - fields) / change, counts)})

    def predict_masked(
        self,
        fields: Tensor,
        kinds: Tensor,
        edges: Tensor,
        features: Tensor,
        visible: Tensor,
        target: Tensor,
        visible_edges: Tensor,
        kept_edges: Tensor,
    ) -> Tensor:
        """The fields at the nodes `target` (M,), (M, D), of which only those at `visible` (V,) were looked at."""
        seen = self._nodes(fields[visible], kinds[visible])
        all_edges = self.embed_edges(features)
        between = all_edges[kept_edges]
        for block in self.encoder:
            seen, between = block(seen, between, visible_edges)
        nodes = self.mask_token.expand(fields.shape[0], -1).index_copy(0, visible, seen)
        whole = (all_edges + self.edge_token).index_copy(0, kept_edges, between)
        for block in self.decoder:
            nodes, whole = block(nodes, whole, edges)
        return cast(Tensor, self.field_head(nodes[target]))

    def predict_change(self, fields: Tensor, kinds: Tensor, edges: Tensor, features: Tensor) -> Tensor:
        """The change of the fields to the next step, (N, D), in units of a batch's `change`."""
        nodes, between = self._nodes(fields, kinds), self.embed_edges(features)
        for block in (*self.encoder, *self.decoder):
            nodes, between = block(nodes, between, edges)
        return cast(Tensor, self.change_head(nodes))

    def _nodes(self, fields: Tensor, kinds: Tensor) -> Tensor:
        return cast(Tensor, self.embed_nodes(torch.cat((fields, F.one_hot(kinds, N_KINDS).to(fields.dtype)), dim=1)))
