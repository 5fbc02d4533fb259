"""The flow that is computed: its mesh, its physics, and that it is the same each time."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets import DATASETS, named_dataset
from maskstream.preprocess.encode.mesh.encoder import INFLOW, NORMAL, OUTFLOW, WALL, MeshEncoder
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.mesh.cylinder import CylinderFlow, build_channel_mesh, compute
from maskstream.samples.mesh.cylinder_flow import compute_flow, draw_flow, flows
from maskstream.shards.format.manifest import Manifest

pytest.importorskip("skfem")

SHORT = CylinderFlow(spacing_m=0.06, radius_m=0.06, start_s=0.1, end_s=0.3, frame_s=0.05, step_s=2e-3)


@pytest.fixture(scope="module")
def flow():
    return compute(SHORT)


def boundary_sides(cells):
    """Sides of one triangle only."""
    sides = np.sort(np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]]), axis=1)
    found, counts = np.unique(sides, axis=0, return_counts=True)
    assert counts.max() == 2
    return found[counts == 1]


@pytest.mark.parametrize("radius", [0.045, 0.07])
@pytest.mark.parametrize("spacing", [0.03, 0.04])
def test_the_mesh_covers_the_channel_without_the_cylinder(radius, spacing):
    centre = np.array([0.31, 0.18])
    nodes, cells = build_channel_mesh(tuple(centre), radius, length=1.6, height=0.41, spacing=spacing)
    a, b, c = (nodes[cells[:, i]] for i in range(3))
    areas = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert areas.sum() == pytest.approx(1.6 * 0.41 - np.pi * radius**2, rel=2e-3)
    rim = np.unique(boundary_sides(cells))
    x, y = nodes[rim].T
    walls = np.minimum.reduce([np.abs(x), np.abs(x - 1.6), np.abs(y), np.abs(y - 0.41)])
    assert np.minimum(walls, np.abs(np.hypot(*(nodes[rim] - centre).T) - radius)).max() < 1e-9
    assert set(cells.ravel()) == set(range(len(nodes)))


def test_what_flows_in_flows_out_and_stops_at_the_walls(flow):
    velocity = flow.fields[-1, :, :2]
    kinds, places = flow.node_type, flow.positions
    assert np.abs(velocity[kinds == WALL]).max() == 0
    y = places[kinds == INFLOW, 1]
    parabola = 4 * SHORT.inlet_m_s * y * (0.41 - y) / 0.41**2
    np.testing.assert_allclose(velocity[kinds == INFLOW, 0], parabola, rtol=1e-5)
    flux = 2 / 3 * SHORT.inlet_m_s * 0.41
    out = kinds == OUTFLOW
    order = np.argsort(places[out, 1])
    at = np.concatenate([[0], places[out, 1][order], [0.41]])
    through = np.concatenate([[0], velocity[out, 0][order], [0]])
    assert np.trapezoid(through, at) == pytest.approx(flux, rel=0.08)  # of few points
    assert np.abs(flow.fields[-1, out, 2]).max() == 0


def test_it_goes_faster_beside_the_cylinder_and_presses_on_its_front(flow):
    _, inlet, last = flow.positions, SHORT.inlet_m_s, flow.fields[-1]
    assert last[:, 0].max() > 1.2 * inlet
    front = np.argmin(np.hypot(*(flow.positions - [SHORT.x_m - SHORT.radius_m, SHORT.y_m]).T))
    back = np.argmin(np.hypot(*(flow.positions - [SHORT.x_m + SHORT.radius_m, SHORT.y_m]).T))
    assert last[front, 2] > last[back, 2] + 0.3 * inlet**2
    assert (flow.node_type == NORMAL).sum() > len(flow.node_type) / 2


def test_smaller_steps_come_closer_to_one_flow():
    frames = [compute(replace(SHORT, step_s=step)).fields[1:] for step in (2e-3, 1e-3, 2.5e-4)]
    coarse, fine = (np.sqrt(np.square(each - frames[-1]).mean(axis=(0, 1))) for each in frames[:2])
    assert (fine < 0.5 * coarse).all()
    assert (coarse < 0.01 * frames[-1].std(axis=(0, 1))).all()


def test_frames_and_repetition(flow):
    assert flow.fields.shape == (4, len(flow.positions), 3)
    again = compute(SHORT)
    assert again.fields.tobytes() == flow.fields.tobytes()
    assert again.positions.tobytes() == flow.positions.tobytes()


def test_a_flow_that_diverges_is_rejected():
    with pytest.raises(RejectError, match=r"diverged by 0\.\d+ s"):
        compute(CylinderFlow(spacing_m=0.06, radius_m=0.06, step_s=0.02, frame_s=0.02, start_s=0, end_s=2, inlet_m_s=5))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"y_m": 0.05}, "one spacing"),
        ({"radius_m": 0.0}, "radius_m must be a number above 0"),
        ({"inlet_m_s": 0.0}, "inlet_m_s must be a number above 0"),
        ({"frame_s": 5.0}, "step_s <= frame_s"),
    ],
)
def test_flows_that_cannot_be(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        CylinderFlow(**wrong)


def test_every_trajectory_has_its_own_flow_always_the_same(tmp_path):
    for name in ("cylinder-flow", "sample-mesh"):
        dataset = named_dataset(name)(tmp_path / "nothing")
        sources = [source for split in dataset.splits.values() for source in split]
        flows = [CylinderFlow(**source.meta["flow"]) for source in sources]
        assert len(set(flows)) == len(flows)
        assert dataset == named_dataset(name)(tmp_path / "nothing")
        assert set(dataset.splits) >= {"train", "val"}
        assert all(1 <= flow.inlet_m_s <= 1.6 and 0.045 <= flow.radius_m <= 0.07 for flow in flows)
    assert draw_flow("a", SHORT) != draw_flow("b", SHORT)


def test_computed_flows_are_the_same_bytes_at_any_number_of_workers(tmp_path, monkeypatch):
    tiny = CylinderFlow(spacing_m=0.08, radius_m=0.06, step_s=1e-3, start_s=0, end_s=0.1, frame_s=0.02)
    monkeypatch.setitem(DATASETS, "tiny", lambda root: flows("tiny", root, {"train": 3, "val": 1}, tiny))
    for workers in (0, 2):
        make_shards("tiny", tmp_path, tmp_path / str(workers), workers=workers, samples_per_shard=1)
    files = sorted(path.relative_to(tmp_path / "0") for path in (tmp_path / "0").rglob("*") if path.is_file())
    assert len([path for path in files if path.suffix == ".tar"]) == 4
    for path in (path for path in files if ".records" not in path.parts):  # records say how long things took
        assert (tmp_path / "0" / path).read_bytes() == (tmp_path / "2" / path).read_bytes(), path
    manifest = Manifest.load(tmp_path / "0" / "val")
    about = json.loads(manifest.store.read(*manifest.member(manifest.sources().to_pylist().index("val/0000"), "json")))
    assert about["flow"]["spacing_m"] == 0.08
    diverging = replace(tiny, step_s=0.02, inlet_m_s=9, end_s=2)
    with pytest.raises(RejectError, match="diverged"):
        MeshEncoder().encode(Source(id="a", path=tmp_path, meta={"flow": asdict(diverging)}, made_by=compute_flow))
