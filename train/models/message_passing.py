"""Message passing over a graph whose edges are pairs of node numbers: edges learn from their ends, nodes from the sum
of what arrives.

The blocks are MeshGraphNets' (Pfaff et al., 2021, section 3.2), with the gated perceptrons of MeshMask (Garnier et al.,
2025) in place of two-layer ones. The first layer of an edge's perceptron, a product with [edge, sender, receiver], is
done as three: those of the nodes once a node, not once an edge.

Shapes: N nodes, E edges, H the width.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def received(messages: Tensor, receivers: Tensor, n_nodes: int) -> Tensor:
    """The sum of the messages (E, H) that each node receives: (n_nodes, H), 0 at nodes without an edge."""
    sums = messages.new_zeros((n_nodes, *messages.shape[1:]))
    return sums.index_add(0, receivers, messages)


class GatedTail(nn.Module):
    """What follows the first layer of a gated perceptron: GELU of its one half times the other, a layer, a norm. The
    result has the parameters' precision, also under autocast, so that sums over rounds and neighbours keep it.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, both: Tensor) -> Tensor:
        gate, value = both.chunk(2, dim=-1)
        return cast(Tensor, self.norm(self.out(F.gelu(gate) * value).to(self.norm.weight.dtype)))


class GatedMLP(nn.Module):
    """A gated perceptron with a norm at its end: (..., n_inputs) to (..., width)."""

    def __init__(self, n_inputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(n_inputs, 2 * hidden)
        self.tail = GatedTail(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.tail(self.inner(x)))


class GraphBlock(nn.Module):
    """One round of messages: the edges, then the nodes, each added to what it was."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.of_edge = nn.Linear(width, 2 * hidden)
        self.of_ends = nn.Linear(width, 4 * hidden, bias=False)
        self.edge_tail = GatedTail(width, hidden)
        self.of_node = nn.Linear(2 * width, 2 * hidden)
        self.node_tail = GatedTail(width, hidden)

    def forward(self, nodes: Tensor, edges: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (N, H) and edges (E, H) after the round; ends: int64 (2, E), senders and receivers."""
        sent, got = self.of_ends(nodes).chunk(2, dim=1)
        first = self.of_edge(edges).add_(sent.index_select(0, ends[0])).add_(got.index_select(0, ends[1]))
        edges = edges + self.edge_tail(first)
        arrived = received(edges, ends[1], nodes.shape[0])
        return nodes + self.node_tail(self.of_node(torch.cat((nodes, arrived), dim=1))), edges
