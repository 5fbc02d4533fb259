"""Message passing against loops over the edges, in float64."""

import pytest
import torch
import torch.nn.functional as F

from maskstream.train.papers.meshmask.message_passing import GatedMLP, GraphBlock, sum_messages

WIDTH, HIDDEN, NODES, EDGES = 6, 5, 11, 40


def layer_norm(x, norm):
    mean, variance = x.mean(), x.var(unbiased=False)
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def gated(x, weight, bias, tail):
    """act(W1 x) * (W2 x), a layer, a norm: of one vector."""
    gate, value = (weight @ x + bias).chunk(2)
    return layer_norm(tail.out.weight @ (F.gelu(gate) * value) + tail.out.bias, tail.norm)


def of_edge(block, edge, sender, receiver):
    """The edge's perceptron with its first layer in one piece, over [edge, sender, receiver]."""
    of_sender, of_receiver = block.of_ends.weight.chunk(2)
    weight = torch.cat((block.of_edge.weight, of_sender, of_receiver), dim=1)
    return edge + gated(torch.cat((edge, sender, receiver)), weight, block.of_edge.bias, block.edge_tail)


@pytest.fixture
def block():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GraphBlock(WIDTH, HIDDEN).double()


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(1)
    nodes = torch.randn(NODES, WIDTH, generator=generator, dtype=torch.float64)
    edges = torch.randn(EDGES, WIDTH, generator=generator, dtype=torch.float64)
    return nodes, edges, torch.randint(NODES - 1, (2, EDGES), generator=generator)


def test_what_a_node_receives_is_the_sum_over_its_edges(graph):
    _, edges, ends = graph
    found = sum_messages(edges, ends[1], NODES)
    expected = torch.zeros(NODES, WIDTH, dtype=torch.float64)
    for k, receiver in enumerate(ends[1].tolist()):
        expected[receiver] += edges[k]
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    assert not found[NODES - 1].any()


def test_a_round_is_that_of_the_unsplit_layer_edge_by_edge(block, graph):
    nodes, edges, ends = graph
    with torch.no_grad():
        new_nodes, new_edges = block(nodes, edges, ends)
        arrived = torch.zeros(NODES, WIDTH, dtype=torch.float64)
        for k, (sender, receiver) in enumerate(ends.T.tolist()):
            expected = of_edge(block, edges[k], nodes[sender], nodes[receiver])
            torch.testing.assert_close(new_edges[k], expected, rtol=1e-12, atol=1e-12)
            arrived[receiver] += expected
        for i in range(NODES):
            both = torch.cat((nodes[i], arrived[i]))
            expected = nodes[i] + gated(both, block.of_node.weight, block.of_node.bias, block.node_tail)
            torch.testing.assert_close(new_nodes[i], expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences(block, graph):
    nodes, edges, ends = graph
    inputs = (nodes[:4].clone().requires_grad_(), edges[:6].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda n, e: block(n, e, ends[:, :6] % 4), inputs)


def test_the_numbering_of_nodes_and_edges_does_not_matter(block, graph):
    nodes, edges, ends = graph
    generator = torch.Generator().manual_seed(2)
    of_nodes, of_edges = torch.randperm(NODES, generator=generator), torch.randperm(EDGES, generator=generator)
    number = torch.argsort(of_nodes)
    with torch.no_grad():
        plain = block(nodes, edges, ends)
        turned = block(nodes[of_nodes], edges[of_edges], number[ends[:, of_edges]])
    torch.testing.assert_close(turned[0], plain[0][of_nodes], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(turned[1], plain[1][of_edges], rtol=1e-12, atol=1e-12)


def test_a_gated_perceptron():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = GatedMLP(3, WIDTH, HIDDEN).double()
    x = torch.randn(3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), gated(x, mlp.inner.weight, mlp.inner.bias, mlp.tail))


def test_sums_keep_their_precision_under_autocast(block, graph):
    nodes, edges, ends = graph
    block = block.float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        new_nodes, new_edges = block(nodes.float(), edges.float(), ends)
    assert new_nodes.dtype == new_edges.dtype == torch.float32
