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

from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipelines.masks.core.batch import MaskBatch
from ...pipelines.modalities.data import DataConfig
from ...pipelines.modalities.mesh.batch import MeshBatch
from ...pipelines.modalities.mesh.data import MeshData
from ..core.losses import Losses, squared
from ..core.model import Grids, Model, ModelConfig
from .message_passing import GatedMLP, GraphBlock

Task = Literal["masked", "next"]

N_KINDS = 9
"""Node types are one-hot of this width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshNetworkConfig(ModelConfig[MeshBatch]):
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

    def check(self, data: DataConfig[MeshBatch]) -> None:
        """ValueError for a mask without the task that needs one, or the other way round."""
        if isinstance(data, MeshData) and (data.mask is not None) != (self.task == "masked"):
            raise ValueError(f"the task 'masked' needs a mask and 'next' has none, got {self.task!r}, {data.mask}")

    def make(self, grids: Grids) -> MeshNetwork:
        """See ModelConfig."""
        return MeshNetwork(self, grids)


class MeshNetwork(Model[MeshBatch]):
    """The network of either task; all but the head and the tokens have the same names and shapes in both."""

    def __init__(self, config: MeshNetworkConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
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

    def loss(self, batch: MeshBatch) -> Losses:
        """Of the task "masked" the squared error of fields at hidden nodes, of "next" that of the change to the next
        step in units of the batch's `change`: the mean over channels, each node weighted.
        """
        self._check(batch)
        if self.config.task == "masked":
            mask = hidden_nodes(batch)
            made = self.predict_masked(batch)
            return Losses(parts={"fields": squared(made, batch.state[mask.target[0]], mask.weight[0])})
        if batch.next_state is None:
            raise ValueError("these meshes are surfaces without steps in time; the next step is of simulations")
        made = self.predict_change(batch.state, batch.kinds, batch.edges, batch.edge_features)
        return Losses(parts={"change": squared(made, (batch.next_state - batch.state) / batch.change, batch.counts)})

    def reconstructed(self, batch: MeshBatch) -> MeshBatch:
        """The batch with the model's fields at the hidden nodes, or with its next step where nodes are free."""
        self._check(batch)
        if self.config.task == "masked":
            made, target = self.predict_masked(batch), hidden_nodes(batch).target[0]
            return replace(batch, state=batch.state.index_copy(0, target, made.to(batch.state.dtype)))
        made = self.predict_change(batch.state, batch.kinds, batch.edges, batch.edge_features)
        made = batch.state + made * batch.change
        given = made if batch.next_state is None else batch.next_state
        return replace(batch, next_state=torch.where((batch.counts > 0)[:, None], made, given))

    def _check(self, batch: MeshBatch) -> None:
        """ValueError for a batch of another kind of mesh than the model is for."""
        found, wanted = (batch.state.shape[1], batch.positions.shape[1]), (self.config.channels, self.config.dims)
        if found != wanted:
            raise ValueError(
                f"these meshes have {found[0]} channels in {found[1]} dimensions, and the model is for {wanted[0]} in "
                f"{wanted[1]}; use a recipe with model.channels={found[0]} and model.dims={found[1]}"
            )

    def predict_masked(self, batch: MeshBatch) -> Tensor:
        """The fields at the target nodes, (M, D), of which only those at visible nodes were looked at."""
        mask = hidden_nodes(batch)
        if batch.visible_edges is None or batch.kept_edges is None:
            raise ValueError(NO_MASK)
        visible, target, kept = mask.visible[0], mask.target[0], batch.kept_edges
        seen = self._nodes(batch.state[visible], batch.kinds[visible])
        all_edges = self.embed_edges(batch.edge_features)
        between = all_edges[kept]
        for block in self.encoder:
            seen, between = block(seen, between, batch.visible_edges)
        nodes = self.mask_token.expand(batch.state.shape[0], -1).index_copy(0, visible, seen)
        whole = (all_edges + self.edge_token).index_copy(0, kept, between)
        for block in self.decoder:
            nodes, whole = block(nodes, whole, batch.edges)
        return cast(Tensor, self.field_head(nodes[target]))

    def predict_change(self, fields: Tensor, kinds: Tensor, edges: Tensor, features: Tensor) -> Tensor:
        """The change of the fields to the next step, (N, D), in units of a batch's `change`."""
        nodes, between = self._nodes(fields, kinds), self.embed_edges(features)
        for block in (*self.encoder, *self.decoder):
            nodes, between = block(nodes, between, edges)
        return cast(Tensor, self.change_head(nodes))

    def _nodes(self, fields: Tensor, kinds: Tensor) -> Tensor:
        return cast(Tensor, self.embed_nodes(torch.cat((fields, F.one_hot(kinds, N_KINDS).to(fields.dtype)), dim=1)))


NO_MASK = "the loader gives no masks, and masked pre-training needs them; build it with mask="


def hidden_nodes(batch: MeshBatch) -> MaskBatch:
    """The mask over a batch's nodes; ValueError where it has none."""
    if batch.mask is None:
        raise ValueError(NO_MASK)
    return batch.mask
