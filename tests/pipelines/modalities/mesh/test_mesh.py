"""The mesh loader: the contents of batches, and the bytes that are read."""

import shutil

import numpy as np
import pytest
import torch

from maskstream.pipelines import masks, mesh_loader
from maskstream.pipelines.modalities.mesh.data import MeshData, MeshNoise
from maskstream.pipelines.modalities.mesh.read import MeshStatistics
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.preprocess.encode.mesh.encoder import encode_surface
from maskstream.preprocess.encode.mesh.surfaces import check_surface
from maskstream.shards.errors import SampleError, ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.media.mesh_members import FIELDS
from maskstream.shards.members.text import json_member

from ....splits import write_samples
from ....with_new_checksum import renew_checksum
from .small_simulations import simulation, write_pairs, write_simulations

MADE = [simulation(i, rows=4 + i % 3, columns=5 + i) for i in range(6)]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_simulations(tmp_path_factory.mktemp("mesh"), MADE)


def opened(split, **options):
    return mesh_loader(split, **({"batch_size": 3, "threads": 1, "device": "cpu"} | options))


def statistics_of(folder, **settings):
    return MeshData(**settings).reader(Split.open(folder, "mesh")).statistics


def first(split, **options):
    return next(iter(opened(split, **options)))


def parts(batch):
    """The node and edge ranges of each mesh of a batch, and the number of its simulation."""
    for i, key in enumerate(batch.key):
        nodes = slice(*batch.node_offset[i : i + 2].tolist())
        edges = slice(*batch.edge_offset[i : i + 2].tolist())
        yield i, nodes, edges, MADE[int(key[1:])]


def test_one_of_several_meshes_is_named_and_its_fields_go_with_it(tmp_path):
    left, right = MADE[0], simulation(9, rows=3, columns=4)
    write_pairs(tmp_path, left, right)
    with pytest.raises(ValueError, match=r"2 components are mesh: left\.npz, right\.npz; choose one with component="):
        opened(tmp_path)
    statistics = statistics_of(tmp_path, component="left.npz")
    for name, made in (("left.npz", left), ("right.npz", right)):
        loader = opened(tmp_path, component=name, noise=MeshNoise(deviation=1e-6))
        assert loader.state_dict()["data"]["component"] == name
        (batch,) = loader
        for i in range(3):
            nodes = slice(*batch.node_offset[i : i + 2].tolist())
            np.testing.assert_array_equal(batch.positions[nodes], made.positions)
            stored = batch.next_state[nodes].numpy() * statistics.deviation + statistics.mean
            np.testing.assert_allclose(stored, made.fields[int(batch.step[i]) + 1], atol=1e-5)
    with pytest.raises(ValueError, match=r"component='left\.fields\.npy' is array, not mesh"):
        opened(tmp_path, component="left.fields.npy")


def test_a_batch_holds_two_steps_of_each_mesh(split):
    loader = opened(split, views=2)
    all_fields = np.concatenate([made.fields.reshape(-1, 2) for made in MADE]).astype(np.float64)
    statistics = statistics_of(split)
    np.testing.assert_allclose(statistics.mean, all_fields.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.deviation, all_fields.std(0), rtol=1e-6)
    for batch in loader:
        assert len(batch) == 6
        steps = set()
        for i, nodes, edges, made in parts(batch):
            step = int(batch.step[i])
            steps.add((batch.key[i], step))
            for values, at in ((batch.state, step), (batch.next_state, step + 1)):
                stored = values[nodes].numpy() * statistics.deviation + statistics.mean
                np.testing.assert_allclose(stored, made.fields[at], atol=1e-5)
            np.testing.assert_array_equal(batch.positions[nodes], made.positions)
            np.testing.assert_array_equal(batch.kinds[nodes], made.node_type)
            mine = batch.edges[:, edges] - nodes.start
            assert set(map(tuple, mine.T.tolist())) == {
                (a, b) for c in made.cells.tolist() for a in c for b in c if a != b
            }
            np.testing.assert_array_equal(batch.counts[nodes], np.isin(made.node_type, (0, 5)))
        assert len(steps) > 3
    assert batch.edge_features[:, -1].mean() == pytest.approx(1, abs=0.1)


def test_change_statistics_use_free_nodes_only(split):
    changes = [np.diff(m.fields[:, np.isin(m.node_type, (0, 5))].astype(float), axis=0).reshape(-1, 2) for m in MADE]
    found = statistics_of(split)
    np.testing.assert_allclose(found.change, np.concatenate(changes).std(0), rtol=1e-6)
    batch = first(split)
    np.testing.assert_allclose(batch.change, np.array(found.change) / found.deviation, rtol=1e-5)


def test_only_two_steps_are_read(split):
    loader = opened(split, batch_size=6, shuffle=False)
    next(iter(loader))
    manifest = Manifest.load(split)
    meshes = int(manifest.component("mesh.npz").size.sum())
    pairs = sum(2 * 4 * made.fields[0].size for made in MADE)
    assert loader.stats()["read_bytes"] == meshes + pairs


def test_a_mask_removes_hidden_nodes_and_their_edges(split):
    batch = first(split, mask=masks.MeshNodes(ratio=0.4))
    hidden = batch.mask.masked[0]
    for _, nodes, _, made in parts(batch):
        assert int((~hidden[nodes]).sum()) == len(made.positions) * 6 // 10
    visible = batch.mask.visible[0]
    assert torch.equal(visible, torch.nonzero(~hidden)[:, 0])
    assert torch.equal(batch.mask.target[0], torch.nonzero(hidden)[:, 0])
    assert torch.equal(batch.mask.weight[0], batch.counts[batch.mask.target[0]])
    left = [k for k, (a, b) in enumerate(batch.edges.T.tolist()) if not hidden[a] and not hidden[b]]
    assert batch.kept_edges.tolist() == left
    assert torch.equal(visible[batch.visible_edges], batch.edges[:, left])


def test_masks_get_the_node_types(split):
    batch = first(split, mask=masks.MeshNodes(ratio=0.5, protect=(4, 5, 6)))
    assert batch.mask.masked.any()
    assert set(batch.kinds[batch.mask.target[0]].tolist()) == {0}


def test_noise_is_on_normal_nodes_and_not_on_the_next_step(split):
    plain, noised = first(split, seed=3), first(split, seed=3, noise=MeshNoise(deviation=0.1))
    moved = (noised.state - plain.state)[plain.kinds == 0]
    assert float(moved.std()) == pytest.approx(0.1, rel=0.2)
    assert torch.equal(noised.state[plain.kinds != 0], plain.state[plain.kinds != 0])
    assert torch.equal(noised.next_state, plain.next_state)
    assert not torch.equal(first(split, seed=4, noise=MeshNoise(deviation=0.1)).state, noised.state)


def test_validation_steps_are_evenly_spaced(split):
    batch = first(split, shuffle=False, views=3)
    assert batch.step.tolist() == [1, 5, 9] * 3


def test_padding_samples_have_weight_0(tmp_path):
    options = {"shuffle": False, "batch_size": 5, "views": 2, "mask": masks.MeshNodes(ratio=0.4)}
    (last,) = opened(write_simulations(tmp_path, MADE[:5]), rank=1, world_size=2, **options)
    assert last.weight.tolist() == [1, 1, 1, 1, 0, 0]
    for i, nodes, _, _ in parts(last):
        weighs = bool(last.counts[nodes].any())
        assert weighs == bool(last.weight[i])
        targets = (last.mask.target[0] >= nodes.start) & (last.mask.target[0] < nodes.stop)
        assert bool(last.mask.weight[0][targets].any()) == bool(last.weight[i])


def test_other_splits_are_normalised_like_train(tmp_path):
    train = write_simulations(tmp_path, MADE[:3])
    val = write_simulations(tmp_path, MADE[3:], "val")
    assert statistics_of(val) == statistics_of(train)
    own = MeshStatistics.of_sums(Manifest.load(val).info["sums"])
    assert own != statistics_of(val)


def test_a_constant_channel_has_the_deviation_1():
    statistics = MeshStatistics.of_sums({"edges": [2.0, 3.0], "fields": [4.0, 20.0, 100.0], "changes": [3.0, 0.0, 0.0]})
    assert statistics == MeshStatistics(mean=(5.0,), deviation=(1.0,), change=(1.0,), edge_length=1.5)


def surfaces(folder):
    out = folder / "train"
    out.mkdir()
    rng = np.random.default_rng(0)
    samples = []
    for i in range(4):
        made = encode_surface(check_surface(rng.normal(size=(20, 3)), rng.integers(0, 20, (40, 3))))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"s{i}", sums=made.sums))
    return write_samples(out, samples, "mesh", profile="mesh")


def test_surfaces_have_their_normals_as_fields(tmp_path):
    split = surfaces(tmp_path)
    batch = first(split, batch_size=2, mask=masks.Random(ratio=0.5))
    assert batch.next_state is None
    assert batch.positions.shape[1] == 3
    assert batch.counts.all()
    torch.testing.assert_close(batch.state.norm(dim=1), torch.ones(len(batch.state)))
    assert verify(split, decode=True).problems == []
    with pytest.raises(ValueError, match="contains surfaces"):
        opened(split, noise=MeshNoise())


def test_a_step_that_is_not_finite_is_a_bad_sample(split, tmp_path):
    broken = write_simulations(tmp_path, MADE)
    name, offset, size = Manifest.load(broken).member(2, FIELDS)
    path = broken / name
    with path.open("r+b") as file:
        file.seek(offset + 128)
        file.write(np.full((size - 128) // 4, np.nan, np.float32).tobytes())
    path.with_suffix(".sums").unlink()  # as if it had been written so
    loader = opened(broken, max_bad_fraction=0.5)
    keys = [key for batch in loader for key in batch.key]
    assert loader.stats()["bad"] == 1
    assert "s2" not in keys
    with pytest.raises(SampleError, match=r"fields\.npy.*not finite"):
        batch_of(MeshData().sampler(Split.open(broken, "mesh")), Wanted.of([2]))
    assert any("not finite" in problem for problem in verify(broken, decode=True).problems)


def test_illegal_settings_and_folders_are_refused(split, tmp_path):
    with pytest.raises(ValueError, match="views must be"):
        opened(split, views=0)
    with pytest.raises(ValueError, match=r"deviation must be a number above 0 \(noise=None for no noise\), got 0"):
        MeshNoise(deviation=0)
    other = tmp_path / "bare"
    shutil.copytree(split, other)
    renew_checksum(other, "sums")
    with pytest.raises(ShardError, match="no sums"):
        opened(other)
