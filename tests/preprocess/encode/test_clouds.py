"""Files of points in the formats of scanners and viewers, their named columns, and damaged ones."""

import base64
import io
import struct

import numpy as np
import pytest

from maskstream.preprocess.encode.points.clouds import decompress_lzf
from maskstream.preprocess.encode.points.encoder import PointEncoder, read_points
from maskstream.preprocess.source import RejectError, Source

PYPCD4 = base64.b64decode("""
VkVSU0lPTiAwLjcKRklFTERTIHggeSB6IHJnYiBpbnRlbnNpdHkgbm9ybWFsX3ggbm9ybWFsX3kgbm9ybWFsX3ogbGFiZWwKU0laRSA0IDQgNCA0IDIg
NCA0IDQgNApUWVBFIEYgRiBGIEYgVSBGIEYgRiBJCkNPVU5UIDEgMSAxIDEgMSAxIDEgMSAxCldJRFRIIDYwCkhFSUdIVCAxClZJRVdQT0lOVCAwLjAg
MC4wIDAuMCAxLjAgMC4wIDAuMCAwLjAKUE9JTlRTIDYwCkRBVEEgYmluYXJ5X2NvbXByZXNzZWQKRwEAAPgHAAABAABAAAGAPyAFAEAgAiADAIAgAwCg
IAMAwCADQADgxxvgFABBB+AOA0EH4A8DAMAgM+APA0FX4A8DACAhY+APA0GL4A8DAGAgN+APA0G/4AQDIJvgGwMBwH/gHSfgG0vgcSMNB8gAAAegZAAH
eMgAB1AgCwAoIAsAyCALAKAgCwB4IAsAUCALACggCwDIIAsAoCALAHggCwBQIAsAKCAL4Ko7HwAA6APQB7gLoA+IE3AXWBtAHygjECf4KuAuyDKwNpg6
H4A+aEJQRjhKIE4IUvBV2FnAXahhkGV4aWBtSHEwdRh5HwB96IDQhLiIoIyIkHCUWJhAnCigEKT4p+CryK+ws5i3F4C7aL9QwzjHIMsIz/DS2NbA2qje
kOJ45uIRm+IPs+C3F+MEUyN/4NcD4OkAAAEg8gACIAMAAyADQADg0Q8BAAA=
""")
"""60 points that pypcd4 1.5.1 wrote, compressed by LibLZF; the eleventh has no z."""
NAMES = ("intensity", "red", "green", "blue", "normal_x", "normal_y", "normal_z", "class")


def of_pypcd4():
    """The points that were written, (59, 11)."""
    i = np.delete(np.arange(60), 10)
    colours = (i % 3 * 100 / 255, (200 - i % 5 * 40) / 255, 0 * i + 7 / 255)
    return np.stack(
        (i % 7, i // 7 * 0.5, 0 * i + 1, i * 1000 / 65535, *colours, 0 * i + 0.6, 0 * i + 0.8, 0 * i, i % 4), 1
    )


def put(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_a_compressed_pcd_file_of_another_program(tmp_path):
    cloud = read_points(put(tmp_path, "a.pcd", PYPCD4))
    assert cloud.columns == ("x", "y", "z", *NAMES)
    assert (cloud.n_invalid, cloud.left_out) == (1, ())
    np.testing.assert_allclose(cloud.points, of_pypcd4(), atol=1e-6)


def test_copies_that_overlap_what_they_make():
    assert decompress_lzf(bytes([0, 65, 7 << 5, 20, 0]), 30) == b"A" * 30
    assert decompress_lzf(bytes([2, 65, 66, 67, 3 << 5, 2]), 8) == b"ABCABCAB"
    with pytest.raises(RejectError, match="ends too early"):
        decompress_lzf(bytes([0, 65, 7 << 5]), 30)


PCD = """# .PCD v0.7
VERSION 0.7
FIELDS x y _ z rgb hist nx ny nz Reflectivity curvature
SIZE 4 4 1 8 4 4 4 4 4 1 4
TYPE F F U F U F F F F U F
COUNT 1 1 3 1 1 2 1 1 1 1 1
WIDTH 3
HEIGHT 1
POINTS 3
DATA {}
"""
ROWS = [
    (1, 2, (0, 0, 0), 3, 0xFF8000, (9, 9), 0, 0, 2, 51, 5),
    (4, 5, (0, 0, 0), 6, 0x000033, (9, 9), np.nan, np.nan, np.nan, 255, 5),
    (7, 8, (0, 0, 0), 9, 0, (9, 9), 3, 4, 0, 0, 5),
]
DTYPE = np.dtype("<f4, <f4, 3u1, <f8, <u4, 2<f4, <f4, <f4, <f4, u1, <f4")
WANT = [
    [1, 2, 3, 0.2, 1, 128 / 255, 0, 0, 0, 1],
    [4, 5, 6, 1, 0, 0, 0.2, 0, 0, 0],
    [7, 8, 9, 0, 0, 0, 0, 0.6, 0.8, 0],
]


@pytest.mark.parametrize("kind", ["ascii", "binary"])
def test_pcd_files_with_fields_of_all_types(tmp_path, kind):
    flat = "\n".join(" ".join(str(n) for one in row for n in np.atleast_1d(one)) for row in ROWS)
    rows = np.array(ROWS, DTYPE).tobytes() if kind == "binary" else flat.encode()
    cloud = read_points(put(tmp_path, "a.pcd", PCD.format(kind).encode() + rows))
    assert cloud.columns == ("x", "y", "z", *NAMES[:7])
    assert {name.split()[0] for name in cloud.left_out} == {"hist", "curvature"}
    np.testing.assert_allclose(cloud.points, WANT, atol=1e-6)


PLY = """ply
format {} 1.0
comment from a scanner
element vertex 3
property float x
property double y
property float z
property ushort intensity
property uchar red
property uchar green
property uchar blue
property uchar alpha
property float nx
property float ny
property float nz
property int label
end_header
"""
PLY_ROWS = [
    (1, 2, 3, 13107, 255, 51, 0, 9, 0, 3, 4, 2),
    (4, 5, 6, 0, 0, 0, 0, 9, 0, 0, 0, -1),
    (7, 8, 9, 65535, 0, 0, 255, 9, 2, 0, 0, 7),
]
PLY_WANT = [
    [1, 2, 3, 0.2, 1, 0.2, 0, 0, 0.6, 0.8, 2],
    [4, 5, 6, 0, 0, 0, 0, 0, 0, 0, -1],
    [7, 8, 9, 1, 0, 0, 1, 1, 0, 0, 7],
]


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_clouds_keep_colours_intensity_normals_and_classes(tmp_path, kind):
    order = ">" if "big" in kind else "<"
    dtype = np.dtype(
        ",".join(order + one for one in ["f4", "f8", "f4", "u2", "u1", "u1", "u1", "u1", "f4", "f4", "f4", "i4"])
    )
    text = "\n".join(" ".join(map(str, row)) for row in PLY_ROWS).encode()
    rows = text if kind == "ascii" else np.array(PLY_ROWS, dtype).tobytes()
    cloud = read_points(put(tmp_path, "a.ply", PLY.format(kind).encode() + rows))
    assert cloud.columns == ("x", "y", "z", *NAMES)
    assert cloud.left_out == ("alpha",)
    np.testing.assert_allclose(cloud.points, PLY_WANT, atol=1e-6)


COLOURED = [[1, 2, 3, 1, 0.2, 0], [4, 5, 6, 0, 0, 1]]
TEXTS = {
    "cloud compare": (
        "a.xyz",
        "//X Y Z R G B\n1 2 3 255 51 0\n4 5 6 0 0 255\n",
        (),
        ("red", "green", "blue"),
        COLOURED,
    ),
    "commas": ("a.xyz", "x,y,z,r,g,b\n1,2,3,1,0.2,0\n4,5,6,0,0,1\n", (), ("red", "green", "blue"), COLOURED),
    "named": ("a.txt", "1 2 3 9 255 51 0\n4 5 6 9 0 0 255\n", (*"xyz_rgb",), ("red", "green", "blue"), COLOURED),
    "own names": ("a.xyz", "1;2;3;8\n4;5;6;9\n", (*"xyz", "dust"), ("dust",), [[1, 2, 3, 8], [4, 5, 6, 9]]),
    "without names": ("a.xyz", "1 2 3 8\n4 5 6 9", (), ("feature 0",), [[1, 2, 3, 8], [4, 5, 6, 9]]),
    "leica": (
        "a.pts",
        "2\n1 2 3 -2048 255 51 0\n4 5 6 2047 0 0 255\n",
        (),
        ("intensity", "red", "green", "blue"),
        [[1, 2, 3, 0, 1, 0.2, 0], [4, 5, 6, 1, 0, 0, 1]],
    ),
    "shapenet's": ("a.pts", "1 2 3\n4 5 6\n", (), (), [[1, 2, 3], [4, 5, 6]]),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_with_and_without_names(tmp_path, kind):
    name, text, names, columns, want = TEXTS[kind]
    cloud = read_points(put(tmp_path, name, text), names=names)
    assert cloud.columns == ("x", "y", "z", *columns)
    np.testing.assert_allclose(cloud.points, want, atol=1e-6)


def e57(folder, scans, **more):
    pye57 = pytest.importorskip("pye57")
    path = folder / "a.e57"
    with pye57.E57(str(path), mode="w") as file:
        for data, place in scans:
            file.write_scan_raw(
                data, rotation=np.array([0.5**0.5, 0, 0, 0.5**0.5]), translation=np.array(place), **more
            )
    return path


def scan(n=50):
    rng = np.random.default_rng(0)
    colours = {f"color{name}": np.arange(n) % 256 for name in ("Red", "Green", "Blue")}
    places = {f"cartesian{axis}": rng.normal(size=n) for axis in "XYZ"}
    return {**places, "intensity": np.linspace(-5, 15, n), **colours, "cartesianInvalidState": (np.arange(n) == 3) * 1}


def test_all_scans_of_an_e57_file_in_its_coordinates(tmp_path):
    one = scan()
    path = e57(tmp_path, [(one, (10.0, 0, 0)), ({k: v for k, v in one.items() if k != "intensity"}, (0, 0, 5.0))])
    cloud = read_points(path)
    assert cloud.columns == ("x", "y", "z", "red", "green", "blue")
    assert (cloud.n_invalid, cloud.left_out) == (2, ("intensity",))
    seen = np.arange(50) != 3
    x, y, z = (one[f"cartesian{axis}"][seen] for axis in "XYZ")
    turned = [np.stack((-y, x, z), 1) + place for place in ((10, 0, 0), (0, 0, 5))]  # by 90 degrees about z
    np.testing.assert_allclose(cloud.points[:, :3], np.concatenate(turned), atol=1e-6)
    np.testing.assert_allclose(cloud.points[:49, 3], np.arange(50)[seen] / 255, atol=1e-6)


def test_the_intensity_of_e57_is_between_its_limits(tmp_path):
    cloud = read_points(e57(tmp_path, [(scan(), (0, 0, 0.0))]))
    assert cloud.columns[3] == "intensity"
    np.testing.assert_allclose(cloud.points[:, 3], np.delete(np.linspace(0, 1, 50), 3), atol=1e-5)


def packed(whole, body, n=60):
    head = PYPCD4[: PYPCD4.index(b"_compressed\n") + 12].replace(b"POINTS 60", b"POINTS %d" % n)
    return head + struct.pack("<II", len(body), whole) + body


XYZ_PLY = PLY[: PLY.index("property ushort")] + "end_header\n"
BODY = PYPCD4[PYPCD4.index(b"_compressed\n") + 20 :]
BAD = {
    "pcd without data": ("a.pcd", PCD[:60], "has no line DATA"),
    "pcd of no type": ("a.pcd", PCD.replace("TYPE F", "TYPE Q").format("ascii"), "malformed PCD header"),
    "pcd of many points": (
        "a.pcd",
        PCD.replace("POINTS 3", "POINTS 9000000000000000").format("binary"),
        "0 of the 9000000",
    ),
    "pcd of many values": ("a.pcd", PCD.replace("1 2 1", "1 999999999999 1").format("binary"), "malformed PCD header"),
    "pcd of fewer points": ("a.pcd", PCD.format("ascii") + "1 " * 14, "1 of the 3 points"),
    "pcd of words": ("a.pcd", PCD.format("ascii") + "1 b " * 14, "not a text file of numbers"),
    "pcd without z": (
        "a.pcd",
        PCD.replace(" z ", " depth ").format("binary").encode() + np.array(ROWS, DTYPE).tobytes(),
        "no column z",
    ),
    "pcd of few numbers": ("a.pcd", PCD.format("ascii") + "1.000000000000 2.000000000 3\n" * 3, "3 numbers in a row"),
    "compressed cut short": ("a.pcd", PYPCD4[:-9], "compressed (bytes|data)"),
    "compressed without sizes": ("a.pcd", packed(0, b"")[:-4], "ends after its header"),
    "compressed into gigabytes": ("a.pcd", packed(4_000_000_000, BODY, 105_263_157), "is truncated: it holds"),
    "compressed too small": ("a.pcd", packed(60 * 34 - 1, BODY), "59 of the 60"),
    "compressed nonsense": ("a.pcd", packed(60 * 34, b"\xff" * 500), "damaged"),
    "compressed ends": ("a.pcd", packed(60 * 34, BODY[:-1]), "to 2039 bytes, but declares 2040"),
    "ply of many points": (
        "a.ply",
        XYZ_PLY.replace("vertex 3", "vertex 9000000000000000").format("ascii") + "1 2 3\n",
        "1 of the 9000",
    ),
    "binary ply of many": (
        "a.ply",
        XYZ_PLY.replace("vertex 3", "vertex 9000000000000000").format("binary_big_endian"),
        "0 of the 9000",
    ),
    "ply without an end": ("a.ply", XYZ_PLY[:-12], "not a PLY file"),
    "ply of lists": ("a.ply", XYZ_PLY.replace("float x", "list uchar int x").format("ascii"), "vertex with lists"),
    "ply of cameras": ("a.ply", XYZ_PLY.replace("vertex", "camera").format("ascii"), "first element is camera"),
    "ply of other colours": (
        "a.ply",
        "\n".join(XYZ_PLY.format("ascii").split("\n")[:-2]) + "\nproperty float red\nend_header\n" + "1 2 3 -4\n" * 3,
        "colours from -4",
    ),
    "ply of half classes": (
        "a.ply",
        "\n".join(XYZ_PLY.format("ascii").split("\n")[:-2]) + "\nproperty float label\nend_header\n" + "1 2 3 .5\n" * 3,
        "not whole numbers",
    ),
    "molecules": ("a.xyz", "2\nwater\nO 0 0 0\nH 1 0 0\n", "not a text file of numbers"),
    "bytes": ("a.xyz", b"\xff\xfe1 2 3", "not a text file of numbers"),
    "pts cut short": ("a.pts", "3\n1 2 3\n4 5 6\n", "2 of the 3 points"),
    "pts of other intensities": ("a.pts", "1\n1 2 3 9999\n", "not -2048 to 2047"),
    "no e57": ("a.e57", b"ASTM-E57" + bytes(200), "pye57 cannot read it"),
}


@pytest.mark.parametrize("kind", BAD)
def test_damaged_and_hostile_files_are_rejected_with_the_reason(tmp_path, kind):
    name, data, reason = BAD[kind]
    if name.endswith(".e57"):
        pytest.importorskip("pye57")
    path = put(tmp_path, name, data)
    with pytest.raises(RejectError, match=reason):
        read_points(path)
    assert path.exists()


def test_an_e57_file_that_is_cut_or_declares_too_much(tmp_path):
    path = e57(tmp_path, [(scan(5000), (0, 0, 0.0))])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RejectError, match="pye57 cannot read it"):
        read_points(path)
    assert path.exists()


def test_names_reach_the_sample_and_the_manifest(tmp_path):
    made = PointEncoder().encode(Source(id="a", path=put(tmp_path, "a.pcd", PYPCD4)))
    member = made.members["points.npy"]
    assert member.words == {"features": ",".join(NAMES)}
    assert made.meta["columns"] == ["x", "y", "z", *NAMES]
    assert made.meta["invalid_dropped"] == 1
    stored = np.load(io.BytesIO(member.data))
    order = np.lexsort(stored.T), np.lexsort(np.float32(of_pypcd4()).T)
    np.testing.assert_allclose(stored[order[0]], of_pypcd4()[order[1]], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"columns": ("x", "y")}, "including x, y and z"), ({"up": "w"}, "up must be 'x', 'y', 'z' or None")],
)
def test_settings_that_name_nothing(settings, words):
    with pytest.raises(ValueError, match=words):
        PointEncoder(**settings)


UNFIT = {
    "more than a byte": ("U", 1, "300", "uint8 holds whole numbers from 0 to 255"),
    "less than nothing": ("U", 2, "-5", "uint16 holds whole numbers from 0 to 65535"),
    "more bits": ("I", 4, "2147483648", "int32 holds"),
    "the largest of 64 bits, and one": ("I", 8, "9223372036854775808", "int64 holds"),
    "a fraction": ("I", 4, "3.7", "int32 holds"),
    "nan": ("I", 4, "nan", "int32 holds"),
    "inf": ("U", 4, "inf", "uint32 holds"),
    "an exponent": ("U", 1, "1e3", "uint8 holds"),
    "a large float": ("F", 4, "1e39", "float32 holds numbers up to 3.4e.38"),
    "a larger float": ("F", 8, "1e400", "float64 holds numbers up to 1.8e.308"),
}
PLY_NAMES = {("U", 1): "uchar", ("U", 2): "ushort", ("U", 4): "uint", ("I", 4): "int", ("F", 4): "float"}
PLY_NAMES[("F", 8)] = "double"


def typed(folder, form, kind, size, number):
    """A file whose second point, after an empty line, has a number of a type."""
    if form == "xyz":
        return put(folder, "a.xyz", f"x y z own\n# a scan\n1 2 3 4\n\n1 2 4 {number}\n")
    rows = f"1 2 3 4\n\n1 2 4 {number}\n"
    if form == "pcd":
        head = f"FIELDS x y z own\nSIZE 4 4 4 {size}\nTYPE F F F {kind}\nCOUNT 1 1 1 1\nPOINTS 2\nDATA ascii\n"
        return put(folder, "a.pcd", head + rows)
    return put(folder, "a.ply", PLY_TYPED.format(PLY_NAMES[kind, size]) + rows)


PLY_TYPED = XYZ_PLY.format("ascii").replace("vertex 3", "vertex 2").replace("end_header", "property {} own\nend_header")


TYPED = [("xyz", "a larger float"), *(("pcd", number) for number in UNFIT)]
TYPED += [("ply", number) for number, (*typed, _, _) in UNFIT.items() if tuple(typed) in PLY_NAMES]


@pytest.mark.parametrize(("form", "number"), TYPED)
def test_a_number_that_its_type_cannot_hold_is_named_with_its_line(tmp_path, form, number):
    kind, size, text, reason = UNFIT[number]
    name = "number 4" if form == "xyz" else "own"
    line = {"pcd": 9, "ply": 12, "xyz": 5}[form]
    with pytest.raises(RejectError, match=f"line {line}: {name} is {text}, but {reason}"):
        read_points(typed(tmp_path, form, kind, size, text))


@pytest.mark.parametrize("number", ["100", "1e2", "100.000"])
def test_a_number_that_a_type_holds_may_be_written_in_any_way(tmp_path, number):
    assert len(read_points(typed(tmp_path, "pcd", "U", 1, number)).points) == 2


def test_packed_colours_that_are_lost_as_nan_are_a_reject(tmp_path):
    head = "FIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nPOINTS 2\nDATA ascii\n"
    assert read_points(put(tmp_path, "a.pcd", head + "1 2 3 4.2e6\nnan nan nan nan\n")).n_invalid == 1
    with pytest.raises(RejectError, match="rgb as nan"):
        read_points(put(tmp_path, "b.pcd", head + "1 2 3 4.2e6\n4 5 6 nan\n"))


def test_elements_of_ply_besides_the_points_are_named(tmp_path):
    head = XYZ_PLY.format("ascii").replace("end_header", "element tristrips 1\nproperty list int int at\nend_header")
    cloud = read_points(put(tmp_path, "a.ply", head + "1 2 3\n4 5 6\n7 8 9\n3 0 1 2\n"))
    assert (len(cloud.points), cloud.left_out) == (3, ("element tristrips",))
