"""Mesh files of five formats, whole and broken."""

import json
import struct

import numpy as np
import pytest

from maskstream.preprocess.encode.mesh.surfaces import SURFACE_SUFFIXES, checked_surface, read_surface
from maskstream.preprocess.source import RejectError

trimesh = pytest.importorskip("trimesh")


def ball(subdivisions=2):
    return trimesh.creation.icosphere(subdivisions=subdivisions)


def written(folder, mesh, suffix, **options):
    path = folder / f"mesh{suffix}"
    data = mesh.export(file_type=suffix[1:], **options)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def text(folder, name, content):
    path = folder / name
    path.write_text(content)
    return path


def corners(vertices, faces):
    """The triangles as sorted tuples of places: what a mesh is, whatever its numbering."""
    return sorted(tuple(sorted(map(tuple, np.float32(vertices)[face].tolist()))) for face in faces)


@pytest.mark.parametrize("suffix", sorted(SURFACE_SUFFIXES))
def test_a_surface_of_every_format_is_the_same(tmp_path, suffix):
    mesh = ball()
    surface = read_surface(written(tmp_path, mesh, suffix))
    assert surface.vertices.dtype == np.float32
    assert surface.faces.dtype == np.int32
    assert (len(surface.vertices), len(surface.faces)) == (162, 320)
    np.testing.assert_allclose(
        np.array(corners(surface.vertices, surface.faces)), np.array(corners(mesh.vertices, mesh.faces)), atol=1e-6
    )


def test_a_soup_of_triangles_becomes_a_mesh(tmp_path):
    surface = read_surface(written(tmp_path, ball(), ".stl"))
    assert surface.n_merged == 3 * 320 - 162


def test_polygons_and_scenes(tmp_path):
    square = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n"
    assert len(read_surface(text(tmp_path, "square.obj", square)).faces) == 2
    parts = trimesh.Scene([ball(1), ball(1).apply_translation([3, 0, 0])])
    surface = read_surface(written(tmp_path, parts, ".glb"))
    assert len(surface.faces) == 160
    assert surface.vertices[:, 0].max() == pytest.approx(4)


def test_a_million_faces(tmp_path):
    surface = read_surface(written(tmp_path, ball(8), ".glb"))
    assert len(surface.faces) == 20 * 4**8 > 1_000_000


@pytest.mark.parametrize("suffix", sorted(SURFACE_SUFFIXES))
@pytest.mark.parametrize("keep", [0, 0.02, 0.6, -12])
def test_cut_files_are_rejected(tmp_path, suffix, keep):
    path = written(tmp_path, ball(), suffix)
    data = path.read_bytes()
    if suffix == ".obj" and keep in (0.6, -12):  # between two lines nothing would be amiss
        keep = data.rindex(b"\nf") + 4
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(RejectError):
        read_surface(path)


@pytest.mark.parametrize("keep", [0.5, -12])
def test_cut_text_of_ply_is_rejected(tmp_path, keep):
    path = written(tmp_path, ball(), ".ply", encoding="ascii")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep > 0 else keep])
    with pytest.raises(RejectError):
        read_surface(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("v 1e39 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "index 8 is out of bounds"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces"),
        ("v 0 0 0\nv 0 0 0\nv 0 1 0\nf 1 2 3\n", "two equal corners"),
        ("nothing of this kind\n", "no faces"),
        ("v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n", r"vertices of the shape \(3, 2\)"),
    ],
)
def test_what_cannot_be_a_mesh_says_why(tmp_path, content, reason):
    with pytest.raises(RejectError, match=reason):
        read_surface(text(tmp_path, "mesh.obj", content))


@pytest.mark.parametrize("corner", [-1, 3])
def test_corners_that_are_no_vertices(corner):
    with pytest.raises(RejectError, match=f"corner {corner}"):
        checked_surface(np.eye(3), np.array([[0, 1, corner]]))


def test_equal_vertices_become_one_and_unused_ones_go():
    vertices = np.array([[9, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.0, 0, 0], [1, 1, 0]])
    surface = checked_surface(vertices, np.array([[1, 2, 3], [4, 2, 5], [1, 4, 2]]))
    assert surface.n_merged == 1
    np.testing.assert_array_equal(surface.vertices, [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(surface.faces, [[0, 1, 2], [0, 1, 3]])


def test_merging_agrees_with_a_dictionary():
    rng = np.random.default_rng(0)
    vertices = rng.integers(-3, 4, (400, 3)) / 4
    faces = rng.integers(0, 400, (300, 3))
    surface = checked_surface(vertices, faces)
    kept = [f for f in faces if len({tuple(vertices[c]) for c in f}) == 3]
    assert corners(surface.vertices, surface.faces) == corners(vertices, kept)
    assert len({tuple(v) for v in surface.vertices.tolist()}) == len(surface.vertices)
    assert surface.n_merged == 400 - len({tuple(v) for v in vertices.tolist()})


def glb(path, **changes):
    """A GLB file of one triangle, with changes of its JSON."""
    data = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]).export(file_type="glb")
    size = int.from_bytes(data[12:16], "little")
    about = json.loads(data[20 : 20 + size])
    about.update({key: change(about) for key, change in changes.items()})
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    header = b"glTF" + struct.pack("<IIII", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    path.write_bytes(header + text + rest)
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"accessors": lambda f: [{"componentType": 5126, "count": 10**8, "type": "VEC3"}, *f["accessors"][1:]]},
            "declares meshes of",
        ),
        ({"nodes": lambda f: [*({"children": [n + 1] * 2} for n in range(40)), {"mesh": 0}]}, "declares meshes of"),
        ({"nodes": lambda f: [{"children": [1]}, {"children": [0]}]}, "the node 0 is below itself"),
        ({"accessors": lambda f: 5}, "is no GLB file, or damaged"),
        ({"nodes": lambda f: [{"children": [n + 1]} for n in range(5000)]}, "is no GLB file, or damaged"),
    ],
)
def test_a_glb_that_declares_more_than_it_holds_is_not_read(tmp_path, changes, reason):
    assert len(read_surface(glb(tmp_path / "good.glb")).faces) == 1
    with pytest.raises(RejectError, match=reason):
        read_surface(glb(tmp_path / "a.glb", **changes))
