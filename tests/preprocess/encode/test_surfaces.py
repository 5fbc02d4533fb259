"""Mesh files of five formats, whole and broken."""

import json
import struct
import sys

import numpy as np
import pytest

from maskstream.preprocess.encode.mesh.surfaces import SURFACE_SUFFIXES, check_surface, read_surface
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
        check_surface(np.eye(3), np.array([[0, 1, corner]]))


def test_equal_vertices_become_one_and_unused_ones_go():
    vertices = np.array([[9, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.0, 0, 0], [1, 1, 0]])
    surface = check_surface(vertices, np.array([[1, 2, 3], [4, 2, 5], [1, 4, 2]]))
    assert surface.n_merged == 1
    np.testing.assert_array_equal(surface.vertices, [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(surface.faces, [[0, 1, 2], [0, 1, 3]])


def test_merging_agrees_with_a_dictionary():
    rng = np.random.default_rng(0)
    vertices = rng.integers(-3, 4, (400, 3)) / 4
    faces = rng.integers(0, 400, (300, 3))
    surface = check_surface(vertices, faces)
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
        ({"nodes": lambda f: [{"children": [1]}, {"children": [0]}]}, "the node 0 is its own descendant"),
        ({"accessors": lambda f: 5}, "is not a GLB file, or damaged"),
        ({"nodes": lambda f: [{"children": [n + 1]} for n in range(5000)]}, "is not a GLB file, or damaged"),
    ],
)
def test_a_glb_that_declares_more_than_it_holds_is_not_read(tmp_path, changes, reason):
    assert len(read_surface(glb(tmp_path / "good.glb")).faces) == 1
    with pytest.raises(RejectError, match=reason):
        read_surface(glb(tmp_path / "a.glb", **changes))


def two_parts(path, change=None):
    """A GLB file of a ball and a box, after `change` of its JSON."""
    data = trimesh.Scene({"ball": ball(1), "box": trimesh.creation.box()}).export(file_type="glb")
    size = int.from_bytes(data[12:16], "little")
    about = json.loads(data[20 : 20 + size])
    if change is not None:
        change(about)
    words = json.dumps(about).encode()
    words += b" " * (-len(words) % 4)
    rest = data[20 + size :]
    header = b"glTF" + struct.pack("<IIII", 2, 20 + len(words) + len(rest), len(words), 0x4E4F534A)
    path.write_bytes(header + words + rest)
    return path


def of_ball(file):
    """The primitive of the first mesh, and the accessors of its positions and indices."""
    part = file["meshes"][0]["primitives"][0]
    return part, file["accessors"][part["attributes"]["POSITION"]], file["accessors"][part["indices"]]


def without_data(file, extension):
    part, positions, indices = of_ball(file)
    part["extensions"] = {extension: {"bufferView": 0, "attributes": {"POSITION": 0}}}
    for one in (positions, indices):
        one.pop("bufferView")


def with_camera(file):
    node = next(node for node in file["nodes"] if node.get("mesh") == 0)
    file["cameras"] = [{"type": "perspective", "perspective": {"yfov": 1, "znear": 1, "aspectRatio": 1}}]
    node["camera"] = 0


UNREADABLE = {
    "a required extension": (
        lambda file: file.update(extensionsRequired=["EXT_meshopt_compression"]),
        "requires the extension EXT_meshopt_compression",
    ),
    "instances": (
        lambda file: file["nodes"][-1].update(extensions={"EXT_mesh_gpu_instancing": {}}),
        "EXT_mesh_gpu_instancing",
    ),
    "an extension that holds the data": (lambda file: without_data(file, "ACME_packed"), "part 0 .*ACME_packed"),
    "a fan": (lambda file: of_ball(file)[0].update(mode=6), "part 0 of mesh 0 .* fan"),
    "sparse accessors": (lambda file: of_ball(file)[1].update(sparse={"count": 1}), "part 0 .* sparse"),
    "normalised positions": (
        lambda file: of_ball(file)[1].update(componentType=5122, normalized=True),
        "KHR_mesh_quantization",
    ),
    "a node with a camera": (with_camera, "declares 92 triangles, but holds 12"),
    "corners of another part": (lambda file: of_ball(file)[1].update(count=20), "has the corner .* 20 vertices"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_no_part_of_a_glb_is_dropped_without_a_word(tmp_path, kind):
    assert len(read_surface(two_parts(tmp_path / "good.glb")).faces) == 92
    change, reason = UNREADABLE[kind]
    with pytest.raises(RejectError, match=reason):
        read_surface(two_parts(tmp_path / "a.glb", change))


def draco(path, change=lambda data: data):
    """A GLB file of a box as it is and of a ball that Draco has compressed, after `change` of the compressed bytes."""
    library = pytest.importorskip("DracoPy")
    mesh = ball(3)
    packed = change(library.encode(mesh.vertices.astype(np.float32), mesh.faces, preserve_order=True))

    def change_json(file):
        part, positions, indices = of_ball(file)
        for one, count in ((positions, len(mesh.vertices)), (indices, mesh.faces.size)):
            one.pop("bufferView")
            one["count"] = count
        file["bufferViews"].append(
            {"buffer": 0, "byteOffset": file["buffers"][0]["byteLength"], "byteLength": len(packed)}
        )
        file["buffers"][0]["byteLength"] += len(packed) + -len(packed) % 4
        compressed = {"bufferView": len(file["bufferViews"]) - 1, "attributes": {"POSITION": 0}}
        part["extensions"] = {"KHR_draco_mesh_compression": compressed}
        part["attributes"] = {"POSITION": part["attributes"]["POSITION"]}
        file["extensionsRequired"] = ["KHR_draco_mesh_compression"]

    two_parts(path, change_json)
    data = path.read_bytes()
    at = 20 + int.from_bytes(data[12:16], "little")
    body = data[at + 8 :] + packed + bytes(-len(packed) % 4)
    rest = struct.pack("<I", len(body)) + data[at + 4 : at + 8] + body
    path.write_bytes(data[:8] + struct.pack("<I", at + len(rest)) + data[12:at] + rest)
    return path


def test_a_part_that_draco_compressed_is_read(tmp_path):
    surface = read_surface(draco(tmp_path / "a.glb"))
    assert len(surface.faces) == 1280 + 12
    whole = trimesh.Scene({"ball": ball(3), "box": trimesh.creation.box()}).to_mesh()
    assert np.abs(surface.vertices.min(0) - whole.bounds[0]).max() < 1e-3


def test_a_part_that_draco_compressed_names_the_package_without_it(tmp_path, monkeypatch):
    path = draco(tmp_path / "a.glb")
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(RejectError, match=r"part 0 of mesh 0 .*KHR_draco_mesh_compression.*maskstream\[meshes\]"):
        read_surface(path)


@pytest.mark.parametrize("change", [lambda data: data[: len(data) // 2], lambda data: b"DRACO" + bytes(len(data) - 5)])
def test_damaged_bytes_of_draco_are_a_reject(tmp_path, change):
    with pytest.raises(RejectError):
        read_surface(draco(tmp_path / "a.glb", change))


def test_parts_that_are_not_triangles_are_named(tmp_path):
    mesh = trimesh.Scene({"ball": ball(1), "cloud": trimesh.PointCloud(np.eye(3))})
    surface = read_surface(written(tmp_path, mesh, ".glb"))
    assert (len(surface.faces), surface.left_out) == (80, ("part 0 of mesh 1 (cloud): points",))
    hidden = two_parts(tmp_path / "b.glb", lambda file: [node.pop("mesh", None) for node in file["nodes"][-1:]])
    assert read_surface(hidden).left_out == ("mesh 1: in no node of the scene",)
    lines = text(tmp_path, "a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nl 1 2\n")
    assert read_surface(lines).left_out == ("elements l",)


FACES = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n"


@pytest.mark.parametrize("face", ["\tf 1 2 4", "f\t1\t2\t4", "  f 1 2 4", "f 1 2 \\\n4", "f -4 -3 -1"])
def test_faces_in_other_forms_of_obj_are_read(tmp_path, face):
    assert len(read_surface(text(tmp_path, "a.obj", f"{FACES}{face}\n")).faces) == 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.obj", f"{FACES}f 0 1 2\n", "corner 0"),
        ("a.obj", f"{FACES}f 1 2\nf 1 2 4\n", "'f 1 2' has 2 corners"),
        ("a.off", "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n4 0 1 2 3\n2 0 3\n", "face 1 has 2 corners"),
    ],
)
def test_a_face_that_trimesh_would_pass_over_is_a_reject(tmp_path, name, content, reason):
    with pytest.raises(RejectError, match=reason):
        read_surface(text(tmp_path, name, content))


PLY = """ply
format ascii 1.0
element vertex 4
property {vertex} x
property float y
property float z
element face 2
property list uchar {corner} vertex_indices
end_header
0 0 0
{x} 0 0
0 1 0
0 0 1
3 0 1 2
{face}
"""
GOOD = {"vertex": "float", "corner": "int", "x": "1", "face": "3 0 1 3"}
UNFIT = {
    "a fraction of a corner": ({"face": "3 0 1 2.7"}, "line 15: vertex_indices of the face is 2.7, but int32"),
    "a corner of more bits": ({"face": "3 0 1 259", "corner": "uchar"}, "line 15: .* is 259, but uint8"),
    "a corner below 0": ({"face": "3 0 1 -4294967293", "corner": "uint"}, "is -4294967293, but uint32"),
    "a large coordinate": ({"x": "1e39"}, "line 11: x of the vertex is 1e.39, but float32"),
    "a coordinate in bytes": ({"x": "300", "vertex": "uchar"}, "line 11: x of the vertex is 300, but uint8"),
    "two corners": ({"face": "2 0 1"}, "face 1 has 2 corners"),
    "more numbers": ({"face": "3 0 1 3 9"}, "has 21 numbers, but its header declares 20"),
    "a long list": ({"face": "3000 0 1 3"}, "list of 3000 numbers"),
    "words": ({"face": "3 0 1 three"}, "words that are not numbers"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_numbers_of_a_ply_text_that_their_types_cannot_hold(tmp_path, kind):
    assert len(read_surface(text(tmp_path, "good.ply", PLY.format(**GOOD))).faces) == 2
    changes, reason = UNFIT[kind]
    with pytest.raises(RejectError, match=reason):
        read_surface(text(tmp_path, "a.ply", PLY.format(**GOOD | changes)))
