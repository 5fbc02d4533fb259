"""Message passing over a graph: edges are updated from their two nodes, nodes from the sum of their incoming edges.

The blocks are those of MeshGraphNets (Pfaff et al., 2021, section 3.2) with the gated MLPs of MeshMask (Garnier et al.,
2025). The first layer of an edge's MLP, a linear map of [edge, sender, receiver], is computed as three linear maps, so
that those of the nodes are computed once per node and not once per edge.

Shapes: N nodes, E edges, H the width.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sum_messages(messages: Tensor, receivers: Tensor, n_nodes: int) -> Tensor:
    """The sum of the messages (E, H) that each node receives: (n_nodes, H); 0 for nodes without an edge."""
    sums = messages.new_zeros((n_nodes, *messages.shape[1:]))
    return sums.index_add(0, receivers, messages)


class GatedTail(nn.Module):
    """The part of a gated MLP after its first layer: GELU of one half times the other half, a linear layer, a norm.

    The result has the dtype of the parameters even under autocast, so sums over rounds and neighbours keep precision.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, both: Tensor) -> Tensor:
        gate, value = both.chunk(2, dim=-1)
        return cast(Tensor, self.norm(self.out(F.gelu(gate) * value).to(self.norm.weight.dtype)))


class GatedMLP(nn.Module):
    """A gated MLP with a final layer norm: (..., n_inputs) to (..., width)."""

    def __init__(self, n_inputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(n_inputs, 2 * hidden)
        self.tail = GatedTail(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.tail(self.inner(x)))


class GraphBlock(nn.Module):
    """One round of message passing: updates the edges, then the nodes, each with a residual connection."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.of_edge = nn.Linear(width, 2 * hidden)
        self.of_ends = nn.Linear(width, 4 * hidden, bias=False)
        self.edge_tail = GatedTail(width, hidden)
        self.of_node = nn.Linear(2 * width, 2 * hidden)
        self.node_tail = GatedTail(width, hidden)

    def forward(self, nodes: Tensor, edges: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Returns nodes (N, H) and edges (E, H) after the round. ends: int64 (2, E), senders and receivers."""
        sent, got = self.of_ends(nodes).chunk(2, dim=1)
        first = self.of_edge(edges).add_(sent.index_select(0, ends[0])).add_(got.index_select(0, ends[1]))
        edges = edges + self.edge_tail(first)
        arrived = sum_messages(edges, ends[1], nodes.shape[0])
        return nodes + self.node_tail(self.of_node(torch.cat((nodes, arrived), dim=1))), edges
