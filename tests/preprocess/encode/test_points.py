"""Clouds and meshes as members of a shard, and what is no cloud."""

import io

import numpy as np
import pytest

from maskstream.preprocess.encode.mesh.surfaces import Surface
from maskstream.preprocess.encode.points.encoder import PUBLISHED_ORDER, PointEncoder, surface_sample
from maskstream.preprocess.source import RejectError, Source

trimesh = pytest.importorskip("trimesh")
laspy = pytest.importorskip("laspy")


def encoded(path, **source):
    made = PointEncoder(surface_points=2000).encode(Source(id=path.name, path=path, **source))
    return np.load(io.BytesIO(made.members["points.npy"].data), allow_pickle=False), made


def cloud(n=300, columns=3):
    return np.random.default_rng(0).normal(size=(n, columns))


def npy(folder, array, **options):
    path = folder / "cloud.npy"
    np.save(path, array, **options)
    return path


def rows(array):
    return sorted(map(tuple, np.float32(array).tolist()))


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "u1"])
def test_arrays_of_numbers_become_float32_rows_in_random_order(tmp_path, dtype):
    array = (cloud(columns=5) * 20 + 50).clip(0, 255).astype(dtype)
    points, made = encoded(npy(tmp_path, array))
    assert points.dtype == np.float32
    assert rows(points) == rows(array)
    assert not np.array_equal(points, np.float32(array))
    assert made.members["points.npy"].facts == {"n_points": 300, "n_columns": 5, "data_offset": 128}
    assert made.meta["columns"] == ["x", "y", "z", "feature 0", "feature 1"]
    again, _ = encoded(npy(tmp_path, array))
    np.testing.assert_array_equal(points, again)


def test_rows_and_order_of_a_publisher_are_kept(tmp_path):
    array = cloud()
    points, _ = encoded(npy(tmp_path, array), window=(10, 50), meta={"rows": PUBLISHED_ORDER})
    np.testing.assert_array_equal(points, np.float32(array[10:50]))


def test_sums_are_those_of_what_is_stored(tmp_path):
    points, made = encoded(npy(tmp_path, cloud()))
    xyz = points.astype(np.float64)
    assert made.sums["points"] == pytest.approx([300, *xyz.sum(axis=0), (xyz**2).sum()])


def test_far_coordinates_keep_their_shape(tmp_path):
    array = cloud() + np.array([6_000_000, 500_000, 100])
    points, made = encoded(npy(tmp_path, array))
    origin = np.array(made.meta["origin"])
    np.testing.assert_allclose(origin, array.min(axis=0))
    want = array - origin
    order, mine = np.argsort(want[:, 0]), np.argsort(points[:, 0])
    np.testing.assert_allclose(points[mine], want[order], atol=1e-5)


def test_points_on_a_mesh_are_uniform_over_its_area(tmp_path):
    sides = trimesh.creation.box(extents=(4, 2, 1))
    path = tmp_path / "box.off"
    path.write_text(sides.export(file_type="off"))
    points, made = encoded(path)
    assert points.shape == (2000, 3)
    half = np.array([2, 1, 0.5])
    on = np.isclose(np.abs(points), half, atol=1e-5)
    assert on.any(axis=1).all()
    assert (np.abs(points) <= half + 1e-5).all()
    np.testing.assert_allclose(on.mean(axis=0), np.array([2, 4, 8]) / 14, atol=0.04)
    other, _ = encoded(path.rename(tmp_path / "other.off"))
    assert not np.array_equal(points, other)
    assert made.meta["faces"] == 12


def test_ply_clouds_with_and_without_colours(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (300, 3), dtype=np.uint8)
    for colour in (None, colours):
        path = tmp_path / "cloud.ply"
        path.write_bytes(trimesh.PointCloud(cloud(), colors=colour).export(file_type="ply"))
        points, made = encoded(path)
        want = cloud() if colour is None else np.concatenate([cloud(), colours / 255], axis=1)
        np.testing.assert_allclose(rows(points), rows(want), atol=1e-6)
        assert len(made.meta["columns"]) == want.shape[1]


def las(folder, suffix=".laz", classes=None):
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.offsets, header.scales = [600_000, 5_000_000, 0], [0.01] * 3
    tile = laspy.LasData(header)
    points = cloud() * 10 + [600_100, 5_000_100, 50]
    tile.x, tile.y, tile.z = points.T
    tile.red = np.full(300, 65535)
    tile.classification = np.zeros(300, dtype=np.uint8) if classes is None else classes
    tile.write(folder / f"tile{suffix}")
    return folder / f"tile{suffix}", points


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_tiles_keep_centimetres_and_lose_noise(tmp_path, suffix):
    path, want = las(tmp_path, suffix, classes=np.arange(300) % 30 // 29 * 7)
    points, made = encoded(path)
    assert made.meta["noise_dropped"] == 10
    assert made.meta["columns"] == ["x", "y", "z", "intensity", "red", "green", "blue", "class"]
    kept = want[np.arange(300) % 30 != 29] - made.meta["origin"]
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(kept[:, 0]), atol=0.006)
    assert (points[:, 4] == 1).all()


def test_a_block_of_a_tile(tmp_path):
    path, want = las(tmp_path)
    block = [600_090, 5_000_090, 600_100, 5_000_100]
    points, made = encoded(path, meta={"block": block})
    inside = ((want[:, :2] >= block[:2]) & (want[:, :2] < block[2:])).all(axis=1)
    assert len(points) == pytest.approx(inside.sum(), abs=2)
    found = points[:, :2] + made.meta["origin"][:2]
    assert (found >= np.array(block[:2]) - 0.01).all()
    assert (found <= np.array(block[2:]) + 0.01).all()


def text(folder, name, content):
    path = folder / name
    path.write_text(content, encoding="latin-1")
    return path


OFF = "OFF\n3 1 0\n0 0 0\n1 0 0\n{} 1 0\n3 0 1 2\n"
PLY = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
BAD = {
    "no rows": (lambda f: npy(f, np.empty((0, 3))), "has no points"),
    "one point": (lambda f: npy(f, np.ones((1, 3))), "has a single point"),
    "one place": (lambda f: npy(f, np.ones((9, 3))), "all 9 points coincide"),
    "nan": (lambda f: npy(f, np.where(np.arange(9)[:, None] == 4, np.nan, cloud(9))), "1 of 9 points"),
    "infinite": (lambda f: npy(f, np.full((9, 3), np.inf)), "9 of 9 points"),
    "too large": (lambda f: npy(f, cloud() * 1e300), "has the extent"),
    "too small": (lambda f: npy(f, cloud() * 1e-30), "has the extent"),
    "objects": (lambda f: npy(f, np.array([[{}, {}, {}]], dtype=object)), "not an NPY file"),
    "complex": (lambda f: npy(f, cloud().astype(complex)), "holds complex128"),
    "text": (lambda f: npy(f, np.array([["a", "b", "c"]])), "real numbers"),
    "flat": (lambda f: npy(f, np.arange(9.0)), r"\(9,\)"),
    "two columns": (lambda f: npy(f, np.zeros((100, 2))), r"\(100, 2\)"),
    "no header": (
        lambda f: text(f, "a.npy", "\x93NUMPY\x01\x00v\x00{'descr': '<f8', m (" + " " * 98),
        "not an NPY file",
    ),
    "no array": (lambda f: text(f, "a.npy", "hello"), "not an NPY file"),
    "false shape": (
        lambda f: text(f, "a.npy", "\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9, 3)}"),
        "not an NPY file",
    ),
    "empty mesh": (lambda f: text(f, "a.obj", ""), "empty"),
    "no faces": (lambda f: text(f, "a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n"), "no faces"),
    "no area": (lambda f: text(f, "a.off", OFF.format("0.5").replace("0.5 1 0", "2 0 0")), "area"),
    "nan vertex": (lambda f: text(f, "a.off", OFF.format("nan")), "not finite"),
    "ply truncated": (lambda f: text(f, "a.ply", PLY + "1 2 3\n"), "1 of the 2 points"),
    "las of nonsense": (lambda f: text(f, "a.las", "LASF" + "x" * 400), "declares"),
    "las truncated": (lambda f: cut(las(f, ".las")[0]), "laspy cannot read|truncated"),
    "laz truncated": (lambda f: cut(las(f, ".laz")[0]), "laspy cannot read|truncated"),
    "laz of too many chunks": (lambda f: many_chunks(las(f, ".laz")[0]), "declares 4278190081 chunks in a file of"),
    "laz with its chunks nowhere": (lambda f: chunks_at(las(f, ".laz")[0], 2**62), "laspy cannot read"),
    "no las": (lambda f: text(f, "a.las", "x" * 400), "begins with b'xxxx'"),
    "las of a header truncated": (lambda f: text(f, "a.las", "LASF" + "x" * 90), "truncated: it has 94 bytes"),
    "no bytes": (lambda f: text(f, "a.ply", ""), "is empty: it has 0 bytes"),
    "another ending": (lambda f: text(f, "a.fls", "1 2 3"), "is not a file of points"),
}


def many_chunks(path):
    data = bytearray(path.read_bytes())
    table = int.from_bytes(data[(at := int.from_bytes(data[96:100], "little")) : at + 8], "little")
    assert data[table + 4 : table + 8] == b"\x01\0\0\0"
    data[table + 7] = 255
    path.write_bytes(data)
    return path


def chunks_at(path, place):
    data = bytearray(path.read_bytes())
    at = int.from_bytes(data[96:100], "little")
    data[at : at + 8] = place.to_bytes(8, "little")
    path.write_bytes(data)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-400])
    return path


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_cloud_is_rejected_with_its_reason(tmp_path, kind):
    make, reason = BAD[kind]
    with pytest.raises(RejectError, match=reason):
        encoded(make(tmp_path))


def test_a_million_faces():
    side = 710
    x, y = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    corner = (x[:-1, :-1] * side + y[:-1, :-1]).ravel()
    squares = [[corner, corner + 1, corner + side], [corner + 1, corner + side + 1, corner + side]]
    faces = np.concatenate([np.stack(corners, axis=1) for corners in squares]).astype(np.int32)
    vertices = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1).astype(np.float32)
    assert len(faces) > 1_000_000
    points = surface_sample(Surface(vertices=vertices, faces=faces, n_merged=0), 5000, np.random.default_rng(0))
    np.testing.assert_allclose(points.mean(axis=0), [(side - 1) / 2] * 2 + [0], atol=0.03 * side)
    assert not points[:, 2].any()


def test_points_are_a_modality():
    settings = PointEncoder().to_dict(defaults=True)
    assert settings == {"kind": "PointEncoder", "surface_points": 8192, "columns": [], "up": None}
