"""Clouds and meshes on a page: where points, voxels, hidden nodes and edges are drawn, and in which numbers."""

from itertools import product

import numpy as np
import pytest
import torch

from maskstream.modalities import MODALITIES
from maskstream.pages.figures.figures import MaskRow
from maskstream.pages.figures.mesh import MARGIN_PX, NODE, ShownField, draw_graph, draw_mesh
from maskstream.pages.figures.points import ABOVE, SIDE, draw_cloud, draw_voxels
from maskstream.pipelines import GroupTokens, VoxelTokens, masks, mesh_loader
from maskstream.pipelines.masks import mask_batch
from maskstream.pipelines.modalities.mesh.read import MeshStatistics
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.preprocess.encode.mesh.encoder import encode_surface
from maskstream.preprocess.encode.mesh.surfaces import Surface
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member

from ..pipelines.every_modality import write_split
from ..splits import write_samples
from .pages import Page, decode, preview

INK = (10, 20, 30)


# Clouds


@pytest.mark.parametrize("view", [SIDE, ABOVE])
def test_angles_turn_and_do_not_bend(view):
    np.testing.assert_allclose(view @ view.T, np.eye(3), atol=0.02)
    assert np.linalg.det(view) == pytest.approx(-1, abs=0.03) or np.linalg.det(view) == pytest.approx(1, abs=0.03)


def test_the_two_angles_differ_and_y_is_up_in_both():
    assert np.abs(SIDE - ABOVE).max() > 0.5
    low, high = np.array([[0, -0.9, 0]], np.float32), np.array([[0, 0.9, 0]], np.float32)
    for view in (SIDE, ABOVE):
        rows = [np.argwhere(draw_cloud(p, INK, reach=1.0, view=view).sum(-1) < 600)[:, 0].mean() for p in (low, high)]
        assert rows[0] > rows[1] + 20


def test_boxes_have_their_colours():
    corners = np.array([[-1, -1, -1], [0.2, 0.2, 0.2]], np.float32)
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    point = np.zeros((1, 3), np.float32)
    picture = draw_cloud(point, INK, boxes=corners, box_side=0.6, box_colours=colours, reach=1.0).astype(int)
    assert ((picture[..., 0] - picture[..., 2]) > 150).sum() > 30
    assert ((picture[..., 2] - picture[..., 0]) > 150).sum() > 30


def loop_tokens(points, resolution, patch):
    """The token (x, y, z) of each point, by DiT-3D's rule point by point."""
    centred = points - points.astype(np.float64).mean(axis=0)
    reach = np.linalg.norm(centred, axis=1).max()
    found = []
    for point in centred:
        voxel = [min(max(v / (2 * reach) + 0.5, 0) * resolution, resolution - 1) for v in point]
        found.append(tuple(round(v) // patch for v in voxel))
    return found


def test_numbers_of_a_cloud_are_those_of_its_points_and_its_mask():
    rng = np.random.default_rng(3)
    points = (rng.normal(size=(300, 3)) * (1, 0.4, 0.2)).astype(np.float32)
    tokens = VoxelTokens(resolution=16, patch=4)
    masked = rng.random((1, 64)) < 0.6
    mask = MaskRow.of(mask_batch(masked, grid=tokens.grid), 0)
    figures, (with_points, in_visible) = draw_voxels(points, mask, tokens, "k")
    own = loop_tokens(points, 16, 4)
    seen = {(x, y, z) for x, y, z in product(range(4), repeat=3) if not masked[0, x * 16 + y * 4 + z]}
    assert (with_points.value, with_points.of) == (f"{len(set(own))}", f"{len(set(own) & seen)} visible")
    assert (in_visible.value, in_visible.of) == (f"{sum(token in seen for token in own)}", "of 300")
    assert f"{len(set(own))} of 64 tokens contain points" in figures[1].words
    assert f"{len(seen - set(own))} visible tokens without" in figures[2].words
    assert [len(figure.items) for figure in figures] == [2, 2, 2]


def test_hidden_points_are_pale_and_visible_ones_are_not():
    points = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    tokens = VoxelTokens(resolution=16, patch=4)
    orange = []
    for hidden in (True, False):
        mask = MaskRow.of(mask_batch(np.full((1, 64), hidden), grid=tokens.grid), 0)
        picture = decode(draw_voxels(points, mask, tokens, "k")[0][2].items[0].uri).astype(int)
        orange.append(((picture[..., 0] - picture[..., 2]) > 100).sum())
    assert orange[0] == 0
    assert orange[1] > 500


def test_groups_that_the_model_finds_are_counted_not_drawn(tmp_path):
    folder = write_split("points", tmp_path)
    settings = PointsData(tokens=GroupTokens(groups=10, size=8), mask=masks.Random(ratio=0.6))
    page = Page(preview(folder, out=tmp_path / "a.html", samples=2, data=settings).read_text())
    assert page.text.count("Visible tokens 4 of 10") == 2
    assert "10 groups of 8 points, which the model finds" in page.text
    assert "Occupied tokens" not in page.text


def test_points_of_a_page_are_the_loaders(tmp_path):
    folder, modality = write_split("points", tmp_path), MODALITIES["points"]
    settings = modality.chosen(["points=60", "resolution=16"])
    page = Page(preview(folder, out=tmp_path / "a.html", samples=4, seed=2, data=settings).read_text())
    batch = next(iter(settings.loader(folder, batch_size=4, seed=2, device="cpu")))
    for i, article in enumerate(page.articles):
        own = set(loop_tokens(batch.points[i].numpy(), 16, 4))
        seen = {tuple(at) for at in np.argwhere(~batch.mask.masked[i].numpy().reshape(4, 4, 4))}
        assert f"Tokens with points {len(own)} {len(own & seen)} visible" in article.text


# Meshes

SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
EDGES = np.array([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]])


def test_edges_that_are_left_are_drawn_over_those_that_are_gone():
    hidden = np.array([False, False, True, True])
    left = ~(hidden[EDGES[0]] | hidden[EDGES[1]])
    picture = draw_graph(SQUARE, EDGES, hidden, left, side_px=200)
    at, end = slice(MARGIN_PX - 2, MARGIN_PX + 2), slice(198 - MARGIN_PX, 202 - MARGIN_PX)
    darkest = [int(place.min()) for place in (picture[end, 100], picture[at, 100], picture[100, at], picture[100, end])]
    assert darkest[0] < 170
    assert min(darkest[1:]) > 210
    assert (picture[end, at] == NODE).all(-1).any()
    assert not (picture[at, end] == NODE).all(-1).any()


def test_solids_are_seen_from_above():
    """Of two squares, one over the other, the upper one is seen."""
    upper = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], np.float32)
    places = np.concatenate([upper, upper - (0, 0, 0.1)]).astype(np.float32)
    cells = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    colours = np.array([(255, 0, 0)] * 4 + [(0, 0, 255)] * 4, np.uint8)
    picture = draw_mesh(places, cells, colours, side_px=120)
    red, blue = ((picture == colour).all(-1).sum() for colour in ((255, 0, 0), (0, 0, 255)))
    assert red > 3 * blue


STATISTICS = MeshStatistics(mean=(1.0, -2.0, 5.0), deviation=(2.0, 3.0, 0.5), change=(1, 1, 1), edge_length=1.0)


@pytest.mark.parametrize(("channels", "expected"), [((0, 1), [5.0, 13.0]), ((2,), [5.5, 4.0])])
def test_a_field_is_drawn_in_the_units_of_the_data(channels, expected):
    stored = np.array([[3, 4, 5.5], [5, -12, 4.0]])
    normalised = ((stored - STATISTICS.mean) / STATISTICS.deviation).astype(np.float32)
    shown = ShownField(statistics=STATISTICS, name="f", channels=channels)
    np.testing.assert_allclose(shown.values(normalised), expected, rtol=1e-5)
    np.testing.assert_allclose(shown.scale(normalised), np.percentile(expected, (1, 99)), rtol=1e-5)


def test_normals_are_colours_without_a_scale():
    shown, normals = ShownField(statistics=STATISTICS, name="normals", channels=()), np.array([[1, 0, 0], [0, -1, 0]])
    assert shown.scale(normals) is None
    colours = shown.colours(normals.astype(np.float32), None)
    np.testing.assert_array_equal(colours, [[255, 127, 127], [127, 0, 127]])


def test_numbers_of_a_simulation_are_the_batchs(tmp_path):
    folder = write_split("mesh", tmp_path)
    page = Page(preview(folder, out=tmp_path / "a.html", samples=3, seed=1).read_text())
    loader = mesh_loader(folder, mask=masks.MeshNodes(), batch_size=3, seed=1, device="cpu")
    batch = next(iter(loader))
    of_edge = torch.bucketize(batch.edges[0], batch.node_offset, right=True) - 1
    for i, article in enumerate(page.articles):
        nodes = int(batch.node_offset.diff()[i])
        assert f"{nodes} nodes" in article.text
        assert f"step {int(batch.step[i])} of 12" in article.text
        kept = int((of_edge[batch.kept_edges] == i).sum())
        assert f"Remaining edges {kept} of {int((of_edge == i).sum())}" in article.text
        walls = int((batch.kinds[batch.node_offset[i] : batch.node_offset[i + 1]] == 6).sum())
        assert f"{walls} wall" in article.text


def test_surfaces_show_their_normals_and_no_step(tmp_path):
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    made = encode_surface(Surface(vertices=vertices, faces=faces, n_merged=0))
    members = {**made.members, "json": json_member(made.meta)}
    samples = [Sample(key=f"s{i}", members=members, source=f"{i}", sums=made.sums) for i in (0, 1)]
    write_samples(tmp_path, samples, "mesh", profile="mesh")
    page = Page(preview(tmp_path, out=tmp_path / "a.html", samples=2).read_text())
    assert "surfaces: normals are their fields" in page.text
    for article in page.articles:
        assert "4 nodes, 4 cells, a surface" in article.text
        assert "Normals." in article.text
        assert "Nodes by type" not in article.text
        assert "step" not in article.text
