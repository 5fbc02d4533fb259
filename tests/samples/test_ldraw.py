"""Parts of LDraw: what they place is where it should be, and they name only files of their library."""

import os

import numpy as np
import pytest

from maskstream.preprocess.encode.points.encoder import PointEncoder
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.points.ldraw import read_ldraw, read_ldraw_surface
from tests.opened_files import opened_files


def text(folder, name, content):
    (folder / name).write_text(content)


def test_parts_of_parts_are_placed(tmp_path):
    parts = tmp_path / "parts"
    (parts / "s").mkdir(parents=True)
    text(parts, "a.dat", "0 Title\n1 16 10 0 0 0 -1 0 1 0 0 0 0 2 s\\b.dat\n3 16 0 0 0 1 0 0 0 1 0\n")
    text(parts / "s", "b.dat", "4 16 0 0 0 1 0 0 1 1 0 0 1 0\n")
    got = read_ldraw(parts / "a.dat")
    assert got.shape == (3, 3, 3)
    square = [[(10, 0, 0), (10, 1, 0), (9, 1, 0)], [(10, 0, 0), (9, 1, 0), (9, 0, 0)]]
    np.testing.assert_array_equal(got, np.array([*square, [(0, 0, 0), (1, 0, 0), (0, 1, 0)]]) * [1, -1, -1])
    for content, reason in (
        ("1 16 0 0 0 1 0 0 0 1 0 0 0 1 c.dat", "no c.dat"),
        ("3 16 0 0", "line 1"),
        ("1 16", "line 1"),
    ):
        text(parts, "d.dat", content + "\n")
        read_ldraw.__globals__["_triangles"].cache_clear()
        with pytest.raises(RejectError, match=reason):
            read_ldraw(parts / "d.dat")
    text(parts, "e.dat", "1 16 0 0 0 1 0 0 0 1 0 0 0 1 e.dat\n")
    with pytest.raises(RejectError, match="includes itself"):
        read_ldraw(parts / "e.dat")


@pytest.mark.parametrize("name", ["{outside}/secret.dat", "../../outside/secret.dat"])
def test_a_part_of_ldraw_names_only_its_library(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.dat").write_text("3 16 0 0 0 1 0 0 0 1 0\n")
    path = tmp_path / "ldraw" / "parts" / "x.dat"
    path.parent.mkdir(parents=True)
    path.write_text(f"1 16 0 0 0 1 0 0 0 1 0 0 0 1 {name.format(outside=outside)}\n")
    with opened_files(outside) as opened, pytest.raises(RejectError, match="the library has no"):
        read_ldraw(path)
    assert opened == []


def test_points_lie_on_a_part(tmp_path):
    pytest.importorskip("trimesh")
    (tmp_path / "parts").mkdir()
    text(tmp_path / "parts", "a.dat", "0 Title\n4 16 0 0 0 1 0 0 1 1 0 0 1 0\n")
    made = PointEncoder(surface_points=50).encode(
        Source(id="a", path=tmp_path / "parts" / "a.dat", made_by=read_ldraw_surface)
    )
    assert (made.meta["n_points"], made.meta["faces"]) == (50, 2)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.dat")
    with pytest.raises(RejectError, match="is not a file but a pipe"):
        read_ldraw_surface(Source(id="x", path=tmp_path / "x.dat"))
