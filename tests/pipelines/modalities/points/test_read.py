"""Which rows of a cloud are read, and what members are refused."""

import io

import numpy as np
import pytest

from maskstream.pipelines.modalities.points.read import PointSelection, PointsError
from maskstream.shards.members.points import points_member
from maskstream.shards.stores.base import Range
from maskstream.shards.stores.local import LocalStore

N = 100


def rows(n=N, columns=4):
    """Row i is (i, i + 0.25, i + 0.5, ...), so that what was read can be told."""
    return np.arange(n, dtype=np.float64)[:, None] + np.arange(columns) / 4


def npy_bytes(points):
    return points_member(points).data


def written(folder, data, before=512):
    path = folder / "shard.tar"
    path.write_bytes(b"\0" * before + data + b"\xff" * 512)
    return Range(path.name, before, len(data))


def read(folder, data, seed=0, **settings):
    got, size = PointSelection(**settings).read(LocalStore(folder), written(folder, data), np.random.default_rng(seed))
    return got, size


def numbers(points):
    np.testing.assert_array_equal(points, points[:, :1] + np.arange(points.shape[1]) / 4)
    return points[:, 0].astype(int).tolist()


def test_a_run_of_rows_is_read_and_nothing_else(tmp_path):
    seen = np.zeros(N, dtype=int)
    for seed in range(300):
        got, size = read(tmp_path, npy_bytes(rows()), seed, points=30, features=1)
        assert got.dtype == np.float32
        assert size == 128 + 30 * 16
        start = numbers(got)[0]
        assert numbers(got) == [(start + i) % N for i in range(30)]
        seen[numbers(got)] += 1
    assert seen.min() > 50
    assert seen.max() < 150


def test_small_clouds_are_repeated_and_all_of_them_is_there(tmp_path):
    got, _ = read(tmp_path, npy_bytes(rows(7)), points=20)
    assert set(numbers(got)) == set(range(7))
    assert sorted(numbers(got)[:7]) == list(range(7))
    one, _ = read(tmp_path, npy_bytes(rows(1)), points=5)
    assert numbers(one) == [0] * 5
    whole, _ = read(tmp_path, npy_bytes(rows(20)), points=20)
    assert sorted(numbers(whole)) == list(range(20))


def test_with_replacement_rows_come_from_all_of_the_cloud(tmp_path):
    got, _ = read(tmp_path, npy_bytes(rows()), points=1000, replace=True)
    counts = np.bincount(numbers(got), minlength=N)
    assert counts.min() >= 1
    assert counts.max() > 12


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("points", [5, 30])
def test_only_the_chosen_rows_count(tmp_path, replace, points):
    got, _ = read(tmp_path, npy_bytes(rows()), points=points, rows=(90, 1000), replace=replace)
    assert set(numbers(got)) <= set(range(90, 100))
    with pytest.raises(PointsError, match="none of the rows"):
        read(tmp_path, npy_bytes(rows()), rows=(100, 200))


def test_a_long_header_is_read_on(tmp_path):
    about = repr({"descr": "<f4", "fortran_order": False, "shape": (N, 4)}).ljust(300 - 11) + "\n"
    data = b"\x93NUMPY\x01\x00" + len(about).to_bytes(2, "little") + about.encode()
    got, _ = read(tmp_path, data + rows().astype("<f4").tobytes(), points=N)
    assert sorted(numbers(got)) == list(range(N))


def array(value, version=(1, 0), allow_pickle=False):
    file = io.BytesIO()
    np.lib.format.write_array(file, value, version=version, allow_pickle=allow_pickle)
    return file.getvalue()


BROKEN = {
    "noise": (np.random.default_rng(0).bytes(2000), "begins with"),
    "nothing": (b"", "begins with"),
    "a header only": (npy_bytes(rows())[:20], "longer than the member"),
    "cut short": (npy_bytes(rows())[:-4], "are not"),
    "objects": (array(np.array([{}] * 4, dtype=object), allow_pickle=True), "cannot be understood|holds"),
    "doubles": (array(rows()), "holds <f8"),
    "columns first": (array(np.asfortranarray(rows().astype("<f4"))), "row by row"),
    "three dimensions": (array(np.zeros((2, 3, 4), dtype="<f4")), "cannot be understood"),
    "two columns": (array(np.zeros((5, 2), dtype="<f4")), "3 or more"),
    "no rows": (array(np.zeros((0, 3), dtype="<f4")), "3 or more"),
    "version 2": (array(np.zeros((5, 3), dtype="<f4"), version=(2, 0)), "not as NPY 1.0"),
    "not finite": (npy_bytes(np.full((9, 3), np.nan)), "not finite"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_members_that_hold_no_points_are_refused(tmp_path, kind):
    data, reason = BROKEN[kind]
    with pytest.raises(PointsError, match=reason):
        read(tmp_path, data, points=4)


def test_features_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(PointsError, match="4 columns"):
        read(tmp_path, npy_bytes(rows()), features=2)


@pytest.mark.parametrize("settings", [{"points": 0}, {"features": -1}, {"rows": (3, 3)}, {"rows": (-1, 3)}])
def test_impossible_selections_are_refused(settings):
    with pytest.raises(ValueError, match="got"):
        PointSelection(**settings)
