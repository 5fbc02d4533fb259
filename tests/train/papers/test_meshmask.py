"""The mesh network: message passing against loops over edges, what it sees and learns, how it goes on, and its runs."""

import json
from dataclasses import replace

import pytest
import torch

from maskstream.cli import main
from maskstream.pages.report.rollout_report import compare_rollouts
from maskstream.pipelines import masks, mesh_loader
from maskstream.pipelines.modalities.mesh.data import MeshNoise
from maskstream.shards.config import with_set
from maskstream.shards.format.manifest import Manifest
from maskstream.train import train
from maskstream.train.core.model import squared
from maskstream.train.core.weights import RunFileError, load_matching_weights, load_model, save_model
from maskstream.train.papers.meshmask.evaluate import (
    Trajectories,
    fill_hidden_nodes,
    measure_masked,
    measure_rollout_error,
    measure_steps,
    persist,
    rollout,
)
from maskstream.train.papers.meshmask.model import GatedMLP, GraphBlock, MeshNetworkConfig, sum_messages
from maskstream.train.papers.meshmask.recipe import next_step
from maskstream.train.recipes import named_recipe

from ...pages.pages import write_report
from ...pipelines.modalities.mesh.small_simulations import simulation, write_pairs, write_simulations
from .second_writing import check_parity, normed

WIDTH, HIDDEN, NODES, EDGES = 6, 5, 11, 40
SIZES = {"channels": 2, "width": 16, "hidden": 16, "encoder_rounds": 2, "decoder_rounds": 1}


def gated(x, weight, bias, tail):
    """act(W1 x) * (W2 x), and a layer: of one vector."""
    gate, value = (weight @ x + bias).chunk(2)
    return tail.out.weight @ (gate / 2 * (1 + torch.erf(gate / 2**0.5)) * value) + tail.out.bias


def rms(x):
    return x / (x.square().mean().sqrt() + 1e-8)


def of_edge(block, edge, sender, receiver):
    """The edge's update, with the first layer of its perceptron in one piece, over [edge, sender, receiver]."""
    of_sender, of_receiver = block.of_ends.weight.chunk(2)
    weight = torch.cat((block.of_edge.weight, of_sender, of_receiver), dim=1)
    return gated(rms(torch.cat((edge, sender, receiver))), weight, block.of_edge.bias, block.edge_tail)


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


def test_a_round_sums_the_updates_of_edges_and_has_norms_before_its_gated_perceptrons(block, graph):
    """MeshGraphNets (Pfaff et al., 2021, section 3.2) with MeshMask's gated MLPs, edge by edge.

    Checked with copied weights against the authors' code (DonsetPG/graph-physics e4ac523, GraphNetBlock) in float64:
    nodes and edges differ by 2e-14, gradients by 9e-16.
    """
    nodes, edges, ends = (one.requires_grad_() if one.is_floating_point() else one for one in graph)
    new_nodes, new_edges = block(nodes, edges, ends)
    updates = [of_edge(block, edges[k], nodes[i], nodes[j]) for k, (i, j) in enumerate(ends.T.tolist())]
    arrived = [sum((updates[k] for k in (ends[1] == i).nonzero()[:, 0].tolist()), 0 * nodes[i]) for i in range(NODES)]
    of_node = (block.of_node.weight, block.of_node.bias, block.node_tail)
    wanted = [nodes[i] + gated(rms(torch.cat((nodes[i], arrived[i]))), *of_node) for i in range(NODES)]
    torch.testing.assert_close(new_nodes, torch.stack(wanted), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(new_edges, edges + torch.stack(updates), rtol=1e-12, atol=1e-12)
    weight = torch.randn(EDGES, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def loss(nodes, edges):
        return nodes[:, 0].square().sum() + (edges * weight).sum()

    check_parity(block, loss(new_nodes, new_edges), loss(torch.stack(wanted), edges + torch.stack(updates)))


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
        found = gated(x, mlp.inner.weight, mlp.inner.bias, mlp.tail)
        torch.testing.assert_close(mlp(x), normed(found, mlp.norm))


def test_sums_keep_their_precision_under_autocast(block, graph):
    nodes, edges, ends = graph
    block = block.float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        new_nodes, new_edges = block(nodes.float(), edges.float(), ends)
    assert new_nodes.dtype == new_edges.dtype == torch.float32


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mesh")
    write_simulations(folder, [simulation(i, columns=6 + i % 2) for i in range(4)])
    write_simulations(folder, [simulation(10 + i, steps=8 + i) for i in range(3)], "val")
    return folder


@pytest.fixture(scope="module")
def batch(data):
    return next(iter(opened(data)))


def opened(data, **options):
    settings = {"mask": masks.MeshNodes(ratio=0.4), "batch_size": 2, "threads": 1, "device": "cpu"}
    return mesh_loader(data / "train", **(settings | options))


def recipe(steps=30):
    tiny = named_recipe("meshmask-tiny")
    schedule = replace(tiny.schedule, steps=steps)
    return replace(tiny, model=MeshNetworkConfig(**SIZES), schedule=schedule)


def changed_fields(batch, nodes):
    fields = batch.state.clone()
    fields[nodes] += 100
    return replace(batch, state=fields)


def test_hidden_nodes_are_not_seen_and_visible_ones_are(batch):
    model = MeshNetworkConfig(**SIZES).build({})
    target, visible = batch.mask.target[0], batch.mask.visible[0]

    def predicted(of):
        with torch.no_grad():
            return model.predict_masked(of)

    plain = predicted(batch)
    assert plain.shape == (len(target), 2)
    assert torch.equal(predicted(changed_fields(batch, target)), plain)
    other_kinds = batch.kinds.clone()
    other_kinds[target] = 3
    assert torch.equal(predicted(replace(batch, kinds=other_kinds)), plain)
    assert not torch.equal(predicted(changed_fields(batch, visible[:1])), plain)


def test_meshes_of_a_batch_do_not_mix(batch):
    model = MeshNetworkConfig(task="next", **SIZES).build({})
    half = int(batch.node_offset[1])
    with torch.no_grad():
        plain = model.predict_change(batch.state, batch.kinds, batch.edges, batch.edge_features)
        other = changed_fields(batch, slice(half, None))
        moved = model.predict_change(other.state, batch.kinds, batch.edges, batch.edge_features)
    assert torch.equal(moved[:half], plain[:half])
    assert not torch.equal(moved[half:], plain[half:])


def test_losses_are_weighted_means(batch):
    next_model = MeshNetworkConfig(task="next", **SIZES).build({})
    with torch.no_grad():
        made = next_model.predict_change(batch.state, batch.kinds, batch.edges, batch.edge_features)
        loss = next_model(batch).loss()
    free = batch.counts > 0
    wanted = (batch.next_state - batch.state) / batch.change
    torch.testing.assert_close(loss, (made - wanted)[free].square().mean())
    assert float(squared(made, wanted, torch.zeros(len(made))).mean()) == 0


def test_the_seed_alone_decides_the_weights():
    models = [MeshNetworkConfig(**SIZES).build({}, seed=seed) for seed in (0, 0, 1)]
    states = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_all_parameters_take_part(batch):
    for task in ("masked", "next"):
        model = MeshNetworkConfig(task=task, **SIZES).build({})
        model(batch).loss().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_a_pre_training_carries_over_by_name(tmp_path):
    masked = MeshNetworkConfig(**SIZES).build({}, seed=1)
    save_model(masked, tmp_path / "masked.safetensors")
    assert torch.equal(load_model(tmp_path / "masked.safetensors").mask_token, masked.mask_token)
    then = MeshNetworkConfig(task="next", **SIZES).build({}, seed=2)
    assert load_matching_weights(then, tmp_path / "masked.safetensors") == ["change_head.weight", "change_head.bias"]
    mine, theirs = then.state_dict(), masked.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine if name in theirs)
    wider = MeshNetworkConfig(**SIZES | {"width": 2 * SIZES["width"]}).build({})
    for other in (wider, torch.nn.Linear(2, 2)):
        with pytest.raises(ValueError, match=r"\d+ of \d+ tensors in .* fit a .* at least half must"):
            load_matching_weights(other, tmp_path / "masked.safetensors")
    with pytest.raises(RunFileError, match="is missing"):
        load_matching_weights(then, tmp_path / "nothing.safetensors")


def test_what_spreads_is_the_mean_of_the_neighbours(batch):
    hidden = batch.mask.masked[0]
    values = fill_hidden_nodes(batch.state, hidden, batch.edges)
    assert torch.equal(values[~hidden], batch.state[~hidden])
    for node in torch.nonzero(hidden)[:, 0].tolist():
        around = batch.edges[0][batch.edges[1] == node]
        torch.testing.assert_close(values[node], values[around].mean(0), rtol=1e-3, atol=1e-4)


def test_a_rollout_of_one_who_knows_the_changes_is_the_truth(data):
    trajectories = Trajectories.open(data / "val")
    start, fields = trajectories.start, trajectories.fields
    assert len(fields) == 8
    known = iter((fields[1:] - fields[:-1]) / start.change)

    class Knows(torch.nn.Module):
        def predict_change(self, *graph):
            return next(known)

    made = rollout(Knows(), trajectories)
    assert measure_rollout_error(made, trajectories).max() < 1e-5
    still = measure_rollout_error(persist(trajectories), trajectories)
    free = start.counts > 0
    torch.testing.assert_close(torch.tensor(still[2]), (fields[3] - fields[0])[free].square().mean().sqrt())
    given = persist(trajectories)[:, ~free]
    assert torch.equal(given, fields[:, ~free])
    with pytest.raises(ValueError, match="steps=9"):
        Trajectories.open(data / "val", steps=9)


def test_a_rollout_of_one_of_several_meshes(tmp_path):
    made = {"left.npz": simulation(0), "right.npz": simulation(1, rows=3, columns=4, steps=8)}
    write_pairs(tmp_path, *made.values())
    with pytest.raises(ValueError, match="choose one with component="):
        Trajectories.open(tmp_path)
    for name, each in made.items():
        trajectories = Trajectories.open(tmp_path, 1, component=name)
        assert trajectories.fields.shape == torch.Size(each.fields.shape)
        assert torch.equal(trajectories.start.positions, torch.from_numpy(each.positions))


@pytest.mark.slow
def test_masked_then_next_step_beats_the_trivial_predictors(data, tmp_path, monkeypatch, capsys):
    masked, then = recipe(120), next_step(recipe(120))
    train(masked, data / "train", tmp_path / "masked", threads=1, device="cpu", progress=False)
    losses, _ = measure_masked(
        masked.data, load_model(tmp_path / "masked" / "model.safetensors"), Manifest.load(data / "val")
    )
    assert losses["model"] < 0.8 * losses["mean field"]
    weights = tmp_path / "masked" / "model.safetensors"
    train(then, data / "train", tmp_path / "next", threads=1, device="cpu", progress=False, initial=weights)
    assert json.loads((tmp_path / "next" / "run.json").read_text())["initial"] == str(weights)
    own, guessed = measure_steps(load_model(tmp_path / "next" / "model.safetensors"), Trajectories.open(data / "val"))
    assert own < 0.5 * guessed
    result = compare_rollouts([tmp_path / "next"], data / "val", tmp_path / "page.html", steps=4)
    assert result["trajectories"] == 3
    errors = result["errors"]
    assert errors[str(tmp_path / "next")]["step 1"] < errors["persistence"]["step 1"]
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 2 * 2 * 3
    words = ["paper", "meshmask", str(tmp_path / "next"), "--data", str(data / "val"), "--steps", "4"]
    monkeypatch.setattr("sys.argv", ["maskstream", *words])
    with pytest.raises(SystemExit):
        main()
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("  ")[-1] == "mean of 4"
    assert [row.split()[0] for row in rows] == list(errors)
    for row, values in zip(rows, errors.values(), strict=True):
        assert [float(word) for word in row.split()[1:]] == pytest.approx(list(values.values()), abs=1e-3)
    for run, chosen, word in (("masked", masked, "The encoder saw"), ("next", then, "Rollout")):
        report = write_report(tmp_path / run, data / "val", recipe=chosen, clips=2).read_text()
        assert word in report
        assert "data:image" in report
    with pytest.raises(ValueError, match="task='next'"):
        compare_rollouts([tmp_path / "masked"], data / "val")


def test_settings_that_do_not_fit_are_refused(data, batch):
    with pytest.raises(ValueError, match="task must be 'masked'"):
        MeshNetworkConfig(task="both")
    with pytest.raises(ValueError, match="dims must be 2 or 3, got 4"):
        MeshNetworkConfig(dims=4)
    with pytest.raises(ValueError, match="width must be an integer of at least 1"):
        MeshNetworkConfig(width=0)
    with pytest.raises(ValueError, match="needs a mask"):
        with_set(recipe(), ["data.mask=null"])
    with pytest.raises(ValueError, match="2 channels in 2 dimensions"):
        named_recipe("meshmask-tiny").build()(batch)
    with pytest.raises(ValueError, match="no masks"):
        recipe().build()(replace(batch, mask=None))
    with pytest.raises(ValueError, match="they are surfaces"):
        next_step(recipe()).build()(replace(batch, next_state=None))
    assert named_recipe("meshmask-small-next").data.noise == MeshNoise(deviation=0.04)
