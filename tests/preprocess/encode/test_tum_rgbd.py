"""Sequences in the layout of the TUM RGB-D benchmark: lists matched by time, and walks that come back as they were."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.pipelines import VideoClip, trajectory_loader
from maskstream.preprocess import DATASETS, make_shards
from maskstream.preprocess.encode.trajectory.rgbd import (
    LENSES,
    RgbdEncoder,
    Ticks,
    find_on_clock,
    list_tum_ticks,
    nearest,
    upright,
)
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.media.camera_pose import build_level_pose, seen_from
from maskstream.shards.media.npy import read_npy

from ...pipelines.small_walks import SPEED, TURN

START = 1305031102.175304
WIDTH, HEIGHT = 64, 48


def pose_at(t: float) -> np.ndarray:
    """A walk on a circle to the left, eyes 1.5 m high."""
    place = [SPEED / TURN * np.sin(TURN * t), -SPEED / TURN * np.cos(TURN * t), 1.5]
    return build_level_pose(np.array(place), TURN * t)


def sequence(folder: Path, seconds: float = 4.0, gap: tuple[float, float] = (9e9, 9e9), hz: float = 30.0) -> Path:
    """Colours at `hz` with jitter, depth 7 ms later, poses at 100 Hz. Depth pictures tell their number."""
    rng = np.random.default_rng(1)
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    lists = {"rgb": ["# color images"], "depth": ["# depth maps"]}
    for n, t in enumerate(np.arange(0, seconds, 1 / hz) + rng.uniform(-0.004, 0.004, int(np.ceil(seconds * hz)))):
        if gap[0] < t < gap[1]:
            continue
        colours = np.full((HEIGHT, WIDTH, 3), (20, 90, n % 200), np.uint8)
        for name, off, pixels in (("rgb", 0.0, colours), ("depth", 0.007, depth_picture(n))):
            file = f"{name}/{START + t + off:.6f}.png"
            cv2.imwrite(str(folder / file), pixels)
            lists[name].append(f"{START + t + off:.6f} {file}")
    poses = ["# timestamp tx ty tz qx qy qz qw"]
    for t in np.arange(-0.1, seconds + 0.1, 0.01):
        x, y, z, qw, qx, qy, qz = pose_at(t)
        poses.append(f"{START + t:.4f} {x:.4f} {y:.4f} {z:.4f} {qx:.4f} {qy:.4f} {qz:.4f} {qw:.4f}")
    for name, lines in (*lists.items(), ("groundtruth", poses)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def depth_picture(n: int) -> np.ndarray:
    """16 bits, 5000 a metre: whole millimetres that tell the picture and the pixel; 0 in a corner."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    depth = 5 * (1000 + n + 2 * (WIDTH * rows + columns))
    depth[:2, :2] = 0
    return depth.astype(np.uint16)


def ticks_of(folder: Path) -> Ticks:
    return list_tum_ticks(*(folder / name for name in ("rgb.txt", "depth.txt", "groundtruth.txt")))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tum")
    sequence(root / "rgbd_dataset_freiburg1_desk")
    shutil.copytree(root / "rgbd_dataset_freiburg1_desk", root / "rgbd_dataset_freiburg3_office")
    return root


def test_ticks_have_the_nearest_depth_and_pose(root: Path) -> None:
    ticks = ticks_of(root / "rgbd_dataset_freiburg1_desk")
    assert (ticks.fps, ticks.stretches) == (10, [0, 40])
    times = np.array([float(Path(file).stem) for file in ticks.colours])
    assert np.abs(np.diff(times) - 0.1).max() < 0.04
    offsets = np.array([float(Path(file).stem) for file in ticks.depth]) - times
    assert (np.abs(offsets) <= 0.02).all()
    assert np.isclose(offsets, 0.007, atol=1e-5).all()
    np.testing.assert_allclose(ticks.path, [pose_at(t) for t in times - START], atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(ticks.path[:, 3:], axis=1), 1, atol=1e-12)


def test_the_nearest_time_and_gaps() -> None:
    times, wanted = np.array([0.0, 1.0, 1.5, 4.0]), np.array([-3.0, 0.4, 0.6, 1.25, 1.3, 9.0])
    by_distance = np.abs(wanted[:, None] - times).argmin(axis=1)
    assert nearest(wanted, times).tolist() == by_distance.tolist()
    assert nearest(wanted, times[:1]).tolist() == [0] * 6
    chosen, stretches = find_on_clock(np.array([0.0, 0.1, 0.21, 0.3, 0.48, 2.0, 2.1]), 10)
    assert (chosen.tolist(), stretches) == ([0, 1, 2, 3, 4, 5, 6], [0, 5, 7])
    assert find_on_clock(np.empty(0), 10)[1] == [0]


def test_a_gap_ends_a_sample_and_slower_cameras_keep_their_rate(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    sequence(root / "freiburg2_a", seconds=9, gap=(4.0, 5.2))
    sequence(root / "freiburg2_b", seconds=4, hz=5)
    dataset = DATASETS["tum-rgbd"](root)
    sources = {source.id: source for of in dataset.splits.values() for source in of}
    assert set(sources) == {"freiburg2_a/000", "freiburg2_a/001", "freiburg2_b/000"}
    assert sources["freiburg2_a/001"].window is not None
    first = sources["freiburg2_a/001"].window[0]
    assert float(Path(ticks_of(root / "freiburg2_a").colours[first]).stem) - START > 5.1
    assert ticks_of(root / "freiburg2_b").fps == 5


def test_walks_become_shards_split_by_sequence(root: Path, tmp_path: Path) -> None:
    make_shards("tum-rgbd", root, tmp_path, workers=0)
    for split in ("train", "val"):
        assert not list(verify(tmp_path / split, decode=True).problems)
    train, val = (Manifest.load(tmp_path / split) for split in ("train", "val"))
    names = sorted(manifest.key(0).split("_000-")[0] for manifest in (train, val))
    assert names == ["rgbd_dataset_freiburg1_desk", "rgbd_dataset_freiburg3_office"]
    clip = VideoClip(frames=3, stride=4, size=32)
    loader = trajectory_loader(tmp_path / "train", clip=clip, ahead_s=1.0, batch_size=1, device="cpu", threads=1)
    batch = next(iter(loader))
    loader.close()
    turn, radius = TURN * 1.0, SPEED / TURN
    wanted = [-radius * (1 - np.cos(turn)), radius * np.sin(turn), -turn]  # to the left
    np.testing.assert_allclose(batch.waypoint[0].numpy(), wanted, atol=0.05)
    assert batch.depth is not None
    own = (batch.pts_s[0] * 30).round().long()[:, None, None]  # each frame's number among the pictures
    pixels = (batch.depth[0] * 1000).round().long() - 1000 - own
    assert (pixels == pixels[:1]).all()
    assert (pixels % 2 == 0).all()
    assert 0 <= pixels.min() < pixels.max() < 2 * WIDTH * HEIGHT


def test_sequences_in_archives_count_as_unpacked(root: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for folder in root.iterdir():
        with tarfile.open(tmp_path / f"raw/{folder.name}.tar", "w") as tar:
            tar.add(folder, folder.name)
    make_shards("tum-rgbd", tmp_path / "raw", tmp_path / "packed", workers=0, splits=["val"])
    make_shards("tum-rgbd", root, tmp_path / "open", workers=0, splits=["val"])
    packed, whole = (next((tmp_path / name / "val").glob("*.tar")).read_bytes() for name in ("packed", "open"))
    assert packed == whole


def test_lens_depth_and_world_are_those_of_the_lists(root: Path) -> None:
    dataset = DATASETS["tum-rgbd"](root)
    (source,) = next(of for of in dataset.splits.values() if "freiburg3" in of[0].id)
    made = RgbdEncoder().encode(source)
    camera = made.members["camera.npy"]
    fx, fy, cx, cy = LENSES["freiburg3"]
    assert [camera.facts[name] for name in ("focal_x", "focal_y", "centre_x", "centre_y")] == [
        fx,
        fy,
        cx + 0.5,
        cy + 0.5,
    ]
    np.testing.assert_allclose(read_npy(camera.data), ticks_of(source.path.parent).path)
    assert made.meta["depth_unknown"] == pytest.approx(4 / (WIDTH * HEIGHT), abs=1e-6)
    other = RgbdEncoder(lens=(50.0, 51.0, 31.5, 23.5), up="-y").encode(source)
    assert other.members["camera.npy"].facts["centre_x"] == 32
    path = read_npy(camera.data)
    by_first = seen_from(path, path[0])  # the world is the first camera, as SLAM systems have it
    again = upright(by_first, "-y")
    np.testing.assert_allclose(seen_from(again, again[5]), seen_from(path, path[5]), atol=1e-9)
    assert np.ptp(again[:, 2]) < 1e-3 < np.ptp(again[:, 0]) + np.ptp(again[:, 1])  # a level walk stays level
    down = np.concatenate([by_first[:, :3] * [1, -1, -1], by_first[:, 3:]], axis=1)
    np.testing.assert_allclose(upright(down, "y")[:, :3], again[:, :3], atol=1e-9)


BROKEN = {
    "depth of 8 bits": ("depth", np.zeros((HEIGHT, WIDTH), np.uint8), "decode: the depth .* holds uint8"),
    "depth of colours": ("depth", np.zeros((HEIGHT, WIDTH, 3), np.uint16), "decode: the depth .* holds uint16"),
    "depth of another size": ("depth", np.zeros((24, 32), np.uint16), "check: the depth .* has 32x24 pixels, but its"),
    "colours of another size": (
        "rgb",
        np.zeros((24, 32, 3), np.uint8),
        "check: the depth .* has 64x48 pixels, but its",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_pictures_that_do_not_fit_are_rejected(root: Path, tmp_path: Path, name: str) -> None:
    folder, pixels, why = BROKEN[name]
    raw = tmp_path / "raw"
    shutil.copytree(root / "rgbd_dataset_freiburg1_desk", raw / "freiburg1_a")
    ((source,),) = DATASETS["tum-rgbd"](raw).splits.values()
    depth = source.path.parent / ticks_of(source.path.parent).depth[7]
    cv2.imwrite(str(depth if folder == "depth" else source.parts[9]), pixels)
    with pytest.raises(RejectError, match=why):
        RgbdEncoder().encode(source)


def refused(root: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        DATASETS["tum-rgbd"](root)
    return str(caught.value)


def test_other_layouts_are_refused_by_name(root: Path, tmp_path: Path) -> None:
    one = tmp_path / "raw/a"
    shutil.copytree(root / "rgbd_dataset_freiburg1_desk", one)
    assert "is a sequence itself" in refused(one)
    with pytest.raises(ValueError, match=r"the lens of the sequence 'a' is unknown.*--set lens=\[fx,fy,cx,cy\]"):
        make_shards("tum-rgbd", one.parent, tmp_path / "out", workers=0)
    lists = {name: (one / name).read_text() for name in ("rgb.txt", "depth.txt", "groundtruth.txt")}
    for name, text, why in (
        ("rgb.txt", "1305031102.17\n", "line 1 is '1305031102.17', not `TIME FILE`"),
        ("rgb.txt", "now rgb/1.png\n", "line 1 is 'now rgb/1.png', not numbers"),
        ("groundtruth.txt", "# a\n1 0 0 0 0 0 0\n", "line 2 is '1 0 0 0 0 0 0', not `TIME tx ty tz qx qy qz qw`"),
        ("groundtruth.txt", "1 0 0 0 0 0 0 2\n", "with a quaternion of length 1"),
        ("groundtruth.txt", "1 nan 0 0 0 0 0 1\n", "a number is not finite"),
        ("groundtruth.txt", "1 0 0 0 0 0 0 1\n", "has no usable sequence: a has no 3 s with colours, depth and poses"),
        ("depth.txt", lists["depth.txt"].replace("depth/", "depths/"), "a/000 there is no file"),
    ):
        (one / name).write_text(text)
        assert why in refused(one.parent)
        (one / name).write_text(lists[name])
    (one / "groundtruth.txt").unlink()
    assert "has no usable sequence: a has no groundtruth.txt" in refused(one.parent)


def test_settings_that_mean_nothing_are_refused() -> None:
    for settings, why in (
        ({"lens": (0.0, 1.0, 2.0, 3.0)}, "focal lengths must be above 0"),
        ({"depth_per_m": 0.0}, "depth_per_m must be a number above 0"),
        ({"up": "x"}, "up must be 'z', 'y' or '-y'"),
    ):
        with pytest.raises(ValueError, match=why):
            RgbdEncoder(**settings)  # type: ignore[arg-type]
