"""MeshMask: a graph network on meshes, pre-trained on masked nodes and then trained to predict the next time step.

With a mask, the encoder's rounds of message passing run on the visible nodes and the edges between them. Then hidden
nodes are added as a mask token and their edges as their features plus an edge token; the decoder's rounds run on the
whole graph, and the fields at the hidden nodes are predicted. Without a mask the same rounds run on the whole graph,
and a second head predicts the change to the next step.

A round of message passing updates edges from their two nodes, and nodes from the sum of the updates of their incoming
edges. The first layer of an edge's MLP, a linear map of [edge, sender, receiver], is computed as three linear maps, so
that the nodes' parts are computed once per node and not once per edge.

Sources: MeshMask (Garnier et al., 2025) for the masking and the gated MLPs, MeshGraphNets (Pfaff et al., 2021, section
3.2) for the blocks and the prediction of changes. As in that paper, positions enter only as features of edges.

Shapes: N nodes, E edges, H the width of a block, D channels, V visible nodes, M targets, K edges between visible nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.mesh.batch import MeshBatch
from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.limits import PositiveInt
from maskstream.shards.media.mesh_members import name_fields_component
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, need_mask, squared

Task = Literal["masked", "next"]
N_KINDS = 9
"""The length of the one-hot vectors of node types."""
NO_MASK = "the batch has no masks, but masked pre-training needs them; pass mask= to the loader"


def sum_messages(messages: Tensor, receivers: Tensor, n_nodes: int) -> Tensor:
    """Sum the messages that each node receives; 0 for nodes without an edge.

    Args:
        messages: Messages (E, H).
        receivers: Receiver of each message, int64 (E,).
        n_nodes: Number of nodes.

    Returns:
        (n_nodes, H).
    """
    sums = messages.new_zeros((n_nodes, *messages.shape[1:]))
    return sums.index_add(0, receivers, messages)


def compute_root_mean_square(squares: Tensor, values: int) -> Tensor:
    """Return the root mean square of `values` numbers from their sums of squares (N,), plus 1e-8: (N, 1).

    Args:
        squares: Sums of squares.
        values: How many numbers each sum has.
    """
    return (squares / values).clamp_min(torch.finfo(squares.dtype).tiny).sqrt()[:, None] + 1e-8


class GatedTail(nn.Module):
    """The part of a gated MLP after its first layer: GELU of one half times the other half, and a linear layer.

    The result has the dtype of the parameters even under autocast, so sums over rounds and neighbours keep precision.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, width)

    def forward(self, both: Tensor) -> Tensor:
        gate, value = both.chunk(2, dim=-1)
        return cast(Tensor, self.out(F.gelu(gate) * value).to(self.out.weight.dtype))


class GatedMLP(nn.Module):
    """A gated MLP with a final layer norm: (..., n_inputs) to (..., width)."""

    def __init__(self, n_inputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(n_inputs, 2 * hidden)
        self.tail = GatedTail(width, hidden)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.tail(self.inner(x))))


class GraphBlock(nn.Module):
    """One round of message passing: updates the edges, then the nodes, each with a residual connection.

    The input of an MLP is divided by its root mean square. Channel factors, which such a norm may have, are part of the
    following linear layer.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.of_edge = nn.Linear(width, 2 * hidden)
        self.of_ends = nn.Linear(width, 4 * hidden, bias=False)
        self.edge_tail = GatedTail(width, hidden)
        self.of_node = nn.Linear(2 * width, 2 * hidden)
        self.node_tail = GatedTail(width, hidden)

    def forward(self, nodes: Tensor, edges: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Return nodes and edges after the round.

        Args:
            nodes: Nodes (N, H).
            edges: Edges (E, H).
            ends: Senders and receivers, int64 (2, E).
        """
        sent, got = self.of_ends(nodes).chunk(2, dim=1)
        first = F.linear(edges, self.of_edge.weight).add_(sent.index_select(0, ends[0]))
        squares = nodes.square().sum(dim=1)
        whole = edges.square().sum(dim=1) + squares.index_select(0, ends[0]) + squares.index_select(0, ends[1])
        first = first.add_(got.index_select(0, ends[1])) / compute_root_mean_square(whole, 3 * nodes.shape[1])
        update = self.edge_tail(first + self.of_edge.bias)
        both = torch.cat((nodes, sum_messages(update, ends[1], nodes.shape[0])), dim=1)
        both = both / compute_root_mean_square(both.square().sum(dim=1), both.shape[1])
        return nodes + self.node_tail(self.of_node(both)), edges + update


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshNetworkConfig(ModelConfig[MeshBatch]):
    """The task and the sizes.

    Attributes:
        task: "masked" predicts the fields at hidden nodes, "next" the change to the next step.
        channels: Number of fields, D.
        dims: Dimensions of space, 2 or 3.
        width: Width of node and edge vectors.
        hidden: Hidden channels of the gated MLPs.
        encoder_rounds: Rounds of message passing before hidden nodes are added.
        decoder_rounds: Rounds of message passing afterwards.
    """

    version: ClassVar[int] = 2

    task: Task = "masked"
    channels: PositiveInt = 3
    dims: Literal[2, 3] = 2
    width: PositiveInt = 128
    hidden: PositiveInt = 384
    encoder_rounds: PositiveInt = 10
    decoder_rounds: PositiveInt = 5

    def check(self, data: DataConfig[MeshBatch]) -> None:
        """Raise ValueError unless the data have a mask exactly if the task is "masked"."""
        if isinstance(data, MeshData) and (data.mask is not None) != (self.task == "masked"):
            raise ValueError(
                f"task='masked' needs a mask and task='next' must not have one, got task={self.task!r}, "
                f"mask={data.mask}"
            )

    def check_split(self, split: Manifest) -> None:
        """Raise ValueError if the split contains surfaces, which have 3 channels in 3 dimensions, and the model has
        different sizes.
        """
        if not any(name_fields_component(name) in split.components for name in split.components):
            self.check_sizes(3, 3)

    def check_sizes(self, channels: int, dims: int) -> None:
        """Raise ValueError if the meshes have a different number of channels or dimensions than the model.

        Args:
            channels: Channels of the meshes.
            dims: Dimensions of the meshes.
        """
        if (channels, dims) != (self.channels, self.dims):
            raise ValueError(
                f"these meshes have {channels} channels in {dims} dimensions, but the model expects {self.channels} "
                f"in {self.dims}; use --set model.channels={channels} --set model.dims={dims}"
            )


class MeshNetwork(Model[MeshBatch], config=MeshNetworkConfig):
    """The network. Both tasks have the same names and shapes of weights except for the head and the mask tokens."""

    whole_graph = True

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
        """Return the mean squared error over nodes and channels, with the batch's node weights.

        The task "masked" compares the fields at hidden nodes, "next" the change to the next step in units of the
        batch's `change`.
        """
        self.config.check_sizes(batch.state.shape[1], batch.positions.shape[1])
        if self.config.task == "masked":
            mask = need_mask(batch.mask)
            made = self.predict_masked(batch)
            return Losses(parts={"fields": squared(made, batch.state[mask.target[0]], mask.weight[0])})
        if batch.next_state is None:
            raise ValueError("the meshes have no next step (they are surfaces); task='next' needs simulations")
        made = self.predict_change(batch.state, batch.kinds, batch.edges, batch.edge_features)
        return Losses(parts={"change": squared(made, (batch.next_state - batch.state) / batch.change, batch.counts)})

    def reconstructed(self, batch: MeshBatch) -> MeshBatch:
        """Return the batch with the predicted fields at hidden nodes (task "masked"), or at free nodes (task
        "next").
        """
        self.config.check_sizes(batch.state.shape[1], batch.positions.shape[1])
        if self.config.task == "masked":
            made, target = self.predict_masked(batch), need_mask(batch.mask).target[0]
            return replace(batch, state=batch.state.index_copy(0, target, made.to(batch.state.dtype)))
        made = self.predict_change(batch.state, batch.kinds, batch.edges, batch.edge_features)
        made = batch.state + made * batch.change
        given = made if batch.next_state is None else batch.next_state
        return replace(batch, next_state=torch.where((batch.counts > 0)[:, None], made, given))

    encoder_parts: ClassVar[tuple[str, ...]] = ("embed_nodes", "embed_edges", "encoder")
    """Parts that compute the features."""

    @property
    def feature_width(self) -> int:
        """The width of `features`."""
        return 2 * self.config.width

    def features(self, batch: MeshBatch) -> Tensor:
        """Return the maximum and the mean of the encoder's nodes over each mesh, none hidden: float32 (B, 2 H)."""
        self.config.check_sizes(batch.state.shape[1], batch.positions.shape[1])
        nodes, between = self._embed_all_nodes(batch.state, batch.kinds), self.embed_edges(batch.edge_features)
        for block in self.encoder:
            nodes, between = block(nodes, between, batch.edges)
        offset = batch.node_offset
        return torch.cat([torch.segment_reduce(nodes.float(), how, offsets=offset) for how in ("max", "mean")], dim=1)

    def predict_masked(self, batch: MeshBatch) -> Tensor:
        """Predict the fields at the target nodes, (M, D), from the visible nodes."""
        mask = need_mask(batch.mask)
        if batch.visible_edges is None or batch.kept_edges is None:
            raise ValueError(NO_MASK)
        visible, target, kept = mask.visible[0], mask.target[0], batch.kept_edges
        seen = self._embed_all_nodes(batch.state[visible], batch.kinds[visible])
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
        """Predict the change of the fields to the next step, in units of a batch's `change`.

        Args:
            fields: Fields (N, D).
            kinds: Kinds of the nodes.
            edges: Senders and receivers, int64 (2, E).
            features: Features of the edges.

        Returns:
            (N, D).
        """
        nodes, between = self._embed_all_nodes(fields, kinds), self.embed_edges(features)
        for block in (*self.encoder, *self.decoder):
            nodes, between = block(nodes, between, edges)
        return cast(Tensor, self.change_head(nodes))

    def _embed_all_nodes(self, fields: Tensor, kinds: Tensor) -> Tensor:
        return cast(Tensor, self.embed_nodes(torch.cat((fields, F.one_hot(kinds, N_KINDS).to(fields.dtype)), dim=1)))
