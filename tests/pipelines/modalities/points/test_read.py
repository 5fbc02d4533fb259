"""The rows of a cloud that are drawn and read, and the members that are refused."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest

from maskstream.pipelines.modalities.points.read import PointSelection, PointsError
from maskstream.shards.members.arrays import decode_problems, find_points_problems, make_points_member
from maskstream.shards.stores.base import Range
from maskstream.shards.stores.local import LocalStore

N = 100


def rows(n=N, columns=4):
    """Rows that identify themselves: row i is (i, i + 0.25, i + 0.5, ...), float64 (n, columns)."""
    return np.arange(n, dtype=np.float64)[:, None] + np.arange(columns) / 4


def written(folder, data, before=512):
    path = folder / "shard.tar"
    path.write_bytes(b"\0" * before + data + b"\xff" * 512)
    return Range(path.name, before, len(data))


def read(folder, data, seed=0, **settings):
    place = written(folder, data.data)
    return PointSelection(**settings).read(LocalStore(folder), place, data.facts, np.random.default_rng(seed))


def numbers(points):
    np.testing.assert_array_equal(points, points[:, :1] + np.arange(points.shape[1]) / 4)
    return points[:, 0].astype(int).tolist()


def test_a_run_of_rows_is_read_and_nothing_else(tmp_path):
    seen = np.zeros(N, dtype=int)
    for seed in range(300):
        got, size = read(tmp_path, make_points_member(rows()), seed, points=30, features=1)
        assert got.dtype == np.float32
        assert size == 30 * 16
        start = numbers(got)[0]
        assert numbers(got) == [(start + i) % N for i in range(30)]
        seen[numbers(got)] += 1
    assert seen.min() > 50
    assert seen.max() < 150


def test_small_clouds_give_all_points_and_repetitions(tmp_path):
    got, _ = read(tmp_path, make_points_member(rows(7)), points=20)
    assert set(numbers(got)) == set(range(7))
    assert sorted(numbers(got)[:7]) == list(range(7))
    one, _ = read(tmp_path, make_points_member(rows(1)), points=5)
    assert numbers(one) == [0] * 5
    whole, _ = read(tmp_path, make_points_member(rows(20)), points=20)
    assert sorted(numbers(whole)) == list(range(20))


def test_replacement_draws_from_the_whole_cloud(tmp_path):
    got, _ = read(tmp_path, make_points_member(rows()), points=1000, replace=True)
    counts = np.bincount(numbers(got), minlength=N)
    assert counts.min() >= 1
    assert counts.max() > 12


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("points", [5, 30])
def test_rows_restricts_the_draw(tmp_path, replace, points):
    got, _ = read(tmp_path, make_points_member(rows()), points=points, rows=(90, 1000), replace=replace)
    assert set(numbers(got)) <= set(range(90, 100))
    with pytest.raises(PointsError, match="none of them in rows="):
        read(tmp_path, make_points_member(rows()), rows=(100, 200))


def array(value, version=(1, 0), allow_pickle=False):
    file = io.BytesIO()
    np.lib.format.write_array(file, value, version=version, allow_pickle=allow_pickle)
    return file.getvalue()


BROKEN = {
    "noise": (np.random.default_rng(0).bytes(1728), "not an NPY"),
    "nothing": (b"", "not an NPY"),
    "a header only": (make_points_member(rows()).data[:20], "no NPY header"),
    "cut short": (make_points_member(rows()).data[:-4], "not an NPY"),
    "objects": (array(np.array([{}] * 4, dtype=object), allow_pickle=True), "no NPY header"),
    "doubles": (array(rows()), "'<f8'"),
    "three dimensions": (array(np.zeros((2, 3, 4), dtype="<f4")), r"\(2, 3, 4\)"),
    "two columns": (array(np.zeros((5, 2), dtype="<f4")), r"\(5, 2\)"),
    "other rows": (make_points_member(rows(N - 1)).data, r"\(99, 4\)"),
    "version 2": (array(rows().astype("<f4"), version=(2, 0)), r"offset\) \(2, "),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_verify_finds_members_that_hold_no_points(kind):
    data, reason = BROKEN[kind]
    assert re.search(reason, " ".join(find_points_problems(replace(make_points_member(rows()), data=data))))


def test_wrong_sizes_and_non_finite_numbers_are_refused(tmp_path):
    short = replace(make_points_member(rows()), data=make_points_member(rows()).data[:-4])
    with pytest.raises(PointsError, match="has 1724 bytes; the manifest lists"):
        read(tmp_path, short, points=4)
    nothing = make_points_member(np.full((9, 3), np.nan))
    assert list(find_points_problems(nothing)) == []
    assert list(decode_problems(nothing)) == ["has 9 rows with a number that is not finite"]
    with pytest.raises(PointsError, match="not finite"):
        read(tmp_path, nothing, points=4)


def test_missing_features_are_refused(tmp_path):
    with pytest.raises(PointsError, match="4 columns"):
        read(tmp_path, make_points_member(rows()), features=2)


@pytest.mark.parametrize("settings", [{"points": 0}, {"features": -1}, {"rows": (3, 3)}, {"rows": (-1, 3)}])
def test_illegal_selections_are_refused(settings):
    with pytest.raises(ValueError, match="got"):
        PointSelection(**settings)
