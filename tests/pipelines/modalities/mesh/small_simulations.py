"""Small simulations for tests: waves on a jittered grid of triangles."""

import numpy as np

from maskstream.preprocess.encode.mesh.encoder import INFLOW, NORMAL, OUTFLOW, WALL, Simulation, encode_simulation
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.media.mesh_members import FIELDS, MESH
from maskstream.shards.members.text import json_member

from ....splits import write_samples


def simulation(seed, *, rows=5, columns=7, steps=12, channels=2, dims=2):
    """A channel with flow from left to right; the fields differ at every node and step."""
    rng = np.random.default_rng(seed)
    y, x = np.divmod(np.arange(rows * columns), columns)
    places = np.stack([x, y, 0 * x], axis=1)[:, :dims] + rng.uniform(-0.2, 0.2, (rows * columns, dims))
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    cells = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + columns], 1),
            np.stack([corner + 1, corner + columns + 1, corner + columns], 1),
        ]
    )
    kinds = np.where(x == 0, INFLOW, np.where(x == columns - 1, OUTFLOW, NORMAL))
    kinds[(y == 0) | (y == rows - 1)] = WALL
    time = np.arange(steps)[:, None, None]
    phase = rng.uniform(0, 6, (1, 1, channels)) + x[None, :, None] + 0.5 * y[None, :, None]
    fields = np.sin(phase + 0.3 * time) * (1 + np.arange(channels)) + 5 * np.arange(channels)
    return Simulation(
        positions=places.astype(np.float32),
        cells=cells.astype(np.int32),
        node_type=kinds.astype(np.int32),
        fields=fields.astype(np.float32),
        field_names=tuple(f"field{i}" for i in range(channels)),
        dt_s=0.1,
    )


def sample(key, made):
    """A simulation as a sample of a shard."""
    encoded = encode_simulation(made)
    members = {**encoded.members, "json": json_member(encoded.meta)}
    return Sample(key=key, members=members, source=key, sums=encoded.sums)


def write_simulations(folder, made, split="train"):
    """Writes a finished split of the simulations, two per shard, with the keys s0, s1, ..."""
    out = folder / split
    out.mkdir(parents=True)
    samples = [sample(f"s{i}", each) for i, each in enumerate(made)]
    shards = [write_shard(out / f"t-{i:06d}.tar", samples[i : i + 2]) for i in range(0, len(samples), 2)]
    finish_split(out, DatasetInfo(dataset="t", split=split, modality="mesh", profile="mesh"), shards, [])
    return out


def write_pairs(folder, left, right):
    """A finished split of three samples, each with the simulations left.npz and right.npz; the left ones normalise."""
    members = {}
    for name, made in (("left", left), ("right", right)):
        encoded = encode_simulation(made).members
        members |= {f"{name}.npz": encoded[MESH], f"{name}.{FIELDS}": encoded[FIELDS]}
    sums = encode_simulation(left).sums
    samples = [Sample(key=f"s{i}", members=members, source=f"{i}", sums=sums) for i in range(3)]
    write_samples(folder, samples, "mesh", profile="mesh")


def mesh_rows(batch):
    """The contents of a MeshBatch per mesh, as values that can be compared between batches."""
    rows = []
    for i, key in enumerate(batch.key):
        nodes, edges = (slice(*offset[i : i + 2].tolist()) for offset in (batch.node_offset, batch.edge_offset))
        kept = (batch.kept_edges >= edges.start) & (batch.kept_edges < edges.stop)
        target = batch.mask.target[0]
        mine = (target >= nodes.start) & (target < nodes.stop)
        of_nodes = (batch.positions, batch.kinds, batch.state, batch.next_state, batch.counts, batch.mask.masked[0])
        values = [each[nodes] for each in of_nodes]
        values += [
            batch.edges[:, edges] - nodes.start,
            batch.edge_features[edges],
            batch.kept_edges[kept] - edges.start,
        ]
        ends = batch.mask.visible[0][batch.visible_edges[:, kept]] - nodes.start
        values += [ends, target[mine] - nodes.start, batch.mask.weight[0][mine], batch.step[i], batch.change]
        rows.append([key, *((tuple(value.shape), value.contiguous().numpy().tobytes()) for value in values)])
    return rows
