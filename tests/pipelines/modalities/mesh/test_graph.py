"""The graph of a mesh equals a set of node pairs, and normals equal trimesh's."""

import numpy as np
import pytest

from maskstream.pipelines.modalities.mesh.batch import build_graph, compute_surface_normals

from .small_simulations import simulation


def pairs_of(cells):
    return {(int(a), int(b)) for cell in cells for a in cell for b in cell if a != b}


def random_mesh(seed, corners, n_nodes=50, n_cells=120, dims=3):
    rng = np.random.default_rng(seed)
    cells = np.stack([rng.permutation(n_nodes)[:corners] for _ in range(n_cells)]).astype(np.int32)
    return rng.normal(size=(n_nodes, dims)).astype(np.float32), cells


@pytest.mark.parametrize("corners", [3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_each_edge_is_there_once_in_both_directions(seed, corners):
    places, cells = random_mesh(seed, corners)
    graph = build_graph(places, cells)
    found = list(map(tuple, graph.edges.T.tolist()))
    assert len(set(found)) == len(found)
    assert set(found) == pairs_of(cells)
    half = len(found) // 2
    assert found[:half] == sorted(found[:half]) == [(a, b) for b, a in found[half:]]
    assert all(a < b for a, b in graph.sides.T.tolist())


def test_features_point_from_receiver_to_sender_in_units_of_length():
    places, cells = random_mesh(1, 3)
    graph = build_graph(places, cells, length=0.5)
    sender, receiver = graph.edges
    difference = (places[sender] - places[receiver]) * 2
    np.testing.assert_allclose(graph.features[:, :3], difference, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(graph.features[:, 3], np.linalg.norm(difference, axis=1), rtol=1e-5)


def test_a_hub_with_many_neighbours_and_nodes_without_any():
    rim = np.random.default_rng(0).permutation(np.arange(1, 500))
    cells = np.stack([np.zeros(498, int), rim[:-1], rim[1:]], axis=1)
    graph = build_graph(np.zeros((600, 2), np.float32), cells)
    assert set(map(tuple, graph.edges.T.tolist())) == pairs_of(cells)


@pytest.mark.parametrize("corner", [-1, 35])
def test_cells_with_unknown_nodes_are_refused(corner):
    mesh = simulation(0)
    cells = mesh.cells.copy()
    cells[3, 1] = corner
    with pytest.raises(ValueError, match=rf"{corner}.*expected 0 to 34"):
        build_graph(mesh.positions, cells)


def test_normals_agree_with_the_areas_of_the_faces():
    places, faces = random_mesh(3, 3, n_cells=200)
    sums = np.zeros((len(places), 3))
    for a, b, c in faces:
        sums[[a, b, c]] += np.cross(places[b].astype(float) - places[a], places[c].astype(float) - places[a])
    expected = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    np.testing.assert_allclose(compute_surface_normals(places, faces), expected, atol=1e-6)


def test_a_flat_vertex_has_no_normal():
    places = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], np.float32)
    np.testing.assert_array_equal(compute_surface_normals(places, np.array([[0, 1, 2]], np.int32)), np.zeros((3, 3)))


@pytest.mark.parametrize("wrong", [-1, 50, 2**31 - 1])
def test_no_kernel_gets_a_node_that_does_not_exist(wrong):
    places, cells = random_mesh(2, 3)
    cells[7, 1] = wrong
    for made in (build_graph, compute_surface_normals):
        with pytest.raises(ValueError, match="expected 0 to 49"):
            made(places, cells)


def test_no_kernel_gets_other_shapes():
    places, cells = random_mesh(3, 4)
    for of_vertices, of_faces in ((places, cells), (places[:, :2], cells[:, :3]), (places[0], cells)):
        with pytest.raises(ValueError, match=r"\(V, "):
            compute_surface_normals(of_vertices, of_faces)
