"""Walks: depth comes back as it was, explorers keep off walls and turn smoothly, and simulators give what they show."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from maskstream.pipelines.decode.cpu import decode_frames
from maskstream.preprocess.datasets import named_dataset
from maskstream.preprocess.encode.trajectory.encoder import (
    TrajectoryEncoder,
    Walk,
    depth_member,
    in_blocks,
    millimetres,
)
from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.source import RejectError
from maskstream.samples.trajectory import vizdoom, vizdoom_walks
from maskstream.samples.trajectory.explorer import Explorer, StuckError
from maskstream.samples.trajectory.floor_plan import FloorPlan
from maskstream.samples.trajectory.vizdoom import VizdoomWalk
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.camera_pose import heading, seen_from, turned
from maskstream.shards.media.depth import read_depth
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.members.arrays import LENS
from maskstream.shards.members.kinds import KINDS

from ..pipelines.small_walks import small_walk


def test_depth_is_stored_without_loss_and_each_frame_is_a_gop() -> None:
    rng = np.random.default_rng(0)
    depth = [rng.integers(0, 1 << 16, (30, 46)).astype(np.uint16) for _ in range(5)]
    member = depth_member(depth, 7)
    assert not [*KINDS["video"].check(member), *KINDS["video"].decode(member)]
    index = VideoIndex.of(member.facts, member.words, member.lists)
    assert index.first_frame.tolist() == [0, 1, 2, 3, 4]
    spans = [(int(index.offset[n]), int(index.size[n])) for n in (1, 3)]
    data = b"".join(member.data[at : at + size] for at, size in spans)
    assert index.header is not None
    found = decode_frames(index.header, memoryview(data), 0, np.array([1, 0]), size=(46, 30))
    for frame, wanted in zip(found.frames, (depth[3], depth[1]), strict=True):
        np.testing.assert_array_equal(read_depth(frame), wanted)
    np.testing.assert_allclose(found.pts_s, [3 / 7, 1 / 7], atol=1e-4)
    whole = decode_frames(
        index.header, memoryview(member.data)[index.header_size :], 0, np.array([4, 2]), size=(46, 30)
    )
    np.testing.assert_array_equal(read_depth(whole.frames[0]), depth[4])


def test_metres_become_millimetres_and_what_is_far_is_unknown() -> None:
    found = millimetres(np.array([0.0, 0.0004, 1.2345, 65.535, 65.536, np.nan, np.inf, -1.0]))
    assert found.tolist() == [0, 0, 1234, 65535, 0, 0, 0, 0]


def changed(**parts: Any) -> Walk:
    whole = small_walk(8)
    return Walk(**{name: parts.get(name, getattr(whole, name)) for name in Walk.__slots__})


def test_parts_that_do_not_fit_are_rejected() -> None:
    whole = small_walk(8)
    with pytest.raises(RejectError, match="has 8 frames, 7 of depth and 8 poses"):
        TrajectoryEncoder().encoded(changed(depth=whole.depth[:7]))
    with pytest.raises(RejectError, match="no unit quaternion"):
        TrajectoryEncoder().encoded(changed(path=whole.path * 1.01))
    with pytest.raises(RejectError, match="not of one"):
        TrajectoryEncoder().encoded(changed(depth=[*whole.depth[:7], whole.depth[7][:20]]))
    with pytest.raises(ValueError, match="profile 'fps' leaves frames out"):
        TrajectoryEncoder().in_profile(PROFILES["fps"])


def test_the_middle_of_frames_is_stored_with_its_depth_and_lens() -> None:
    whole = small_walk(8)
    low = changed(frames=[one[:40] for one in whole.frames], depth=[one[:40:2, ::2] for one in whole.depth])
    kept = in_blocks(low, 16)
    assert kept.frames[3].tolist() == whole.frames[3][4:36].tolist()
    assert kept.depth[3].tolist() == low.depth[3][2:18].tolist()
    fx, fy, cx, cy = whole.lens
    assert kept.lens == (fx, fy, cx, cy - 4)
    members = TrajectoryEncoder().encoded(low).members
    assert [(members[name].facts["width"], members[name].facts["height"]) for name in ("mp4", "depth.mp4")] == [
        (64, 32),
        (32, 16),
    ]
    assert [members["camera.npy"].facts[name] for name in LENS] == list(kept.lens)
    assert in_blocks(whole, 16) is whole


def rooms() -> FloorPlan:
    """Two rooms of 8 m with a door between, and a column in each; a third room has no door."""
    open_ = np.zeros((80, 260), dtype=np.bool_)
    open_[2:78, 2:79] = open_[2:78, 81:158] = open_[30:46, 79:81] = open_[2:78, 170:255] = True
    open_[36:44, 30:40] = open_[20:30, 110:120] = False
    return FloorPlan.of(open_, 0.1, (-3.0, 5.0), 0.3)


def test_a_route_goes_around_obstacles_through_the_door_and_not_into_closed_rooms() -> None:
    plan = rooms()
    assert not plan.free[:, 165:].any()
    start, goal = plan.place((10, 10)), (70, 150)
    route = plan.route(start, goal, 30.0)
    assert route is not None
    np.testing.assert_allclose(route[[0, -1]], [start, plan.place(goal)])
    dense = np.concatenate([np.linspace(a, b, 60) for a, b in pairwise(route)])
    cells = np.array([plan.cell(place) for place in dense])
    assert plan.free[cells[:, 0], cells[:, 1]].all()
    through = dense[(dense[:, 0] > 4.9) & (dense[:, 0] < 5.1), 1]
    assert len(through)
    assert ((through > 8.2) & (through < 9.4)).all()
    length = np.linalg.norm(np.diff(route, axis=0), axis=1).sum()
    straight = np.linalg.norm(plan.place(goal) - start)
    assert straight <= length < 1.3 * straight
    assert plan.route(start, (40, 200), 30.0) is None


def walked(seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and headings of an explorer whose body does as it decides."""
    explorer = Explorer(plan=rooms(), rng=np.random.Generator(np.random.Philox(seed)), step_s=1 / 7)
    place, angle = explorer.begin()
    places, angles = [], []
    for _ in range(steps):
        places.append(place)
        angles.append(angle)
        speed, turn = explorer.decide(place, angle)
        angle += turn / 7
        place = place + speed / 7 * np.array([np.cos(angle), np.sin(angle)])
    return np.stack(places), np.array(angles)


def test_explorers_keep_off_walls_turn_smoothly_and_go_far() -> None:
    plan = rooms()
    for seed in range(4):
        places, angles = walked(seed, 150)
        cells = np.array([plan.cell(place) for place in places])
        assert plan.free[cells[:, 0], cells[:, 1]].mean() > 0.97  # a corner may be cut by a few centimetres
        speed, turn = np.linalg.norm(np.diff(places, axis=0), axis=1) * 7, np.diff(angles) * 7
        assert 0.6 < speed.mean() < 1.5
        assert np.abs(turn).max() <= 1.5 + 1e-9
        assert np.abs(np.diff(turn)).max() <= 5 / 7 + 1e-9
        assert np.ptp(places, axis=0).max() > 4
        np.testing.assert_array_equal(walked(seed, 20)[0], places[:20])


def test_an_explorer_that_is_held_says_so() -> None:
    explorer = Explorer(plan=rooms(), rng=np.random.Generator(np.random.Philox(1)), step_s=1 / 7)
    place, angle = explorer.begin()
    for _ in range(7):
        explorer.decide(place, angle)
    with pytest.raises(StuckError, match=r"moved less than 0\.2 m in 1\.0 s"):
        explorer.decide(place, angle)


def sector(floor: int, ceiling: int, *corners: tuple[int, int], blocking: frozenset[int] = frozenset()) -> Any:
    """A sector whose side n goes from corner n to the next."""
    ends = zip(corners, (*corners[1:], corners[0]), strict=True)
    lines = [
        SimpleNamespace(x1=a[0], y1=a[1], x2=b[0], y2=b[1], is_blocking=n in blocking) for n, (a, b) in enumerate(ends)
    ]
    return SimpleNamespace(floor_height=floor, ceiling_height=ceiling, lines=lines)


def test_the_floor_of_a_map_ends_at_walls_high_steps_and_low_ceilings() -> None:
    square = (0, 0), (512, 0), (512, 512), (0, 512)
    shifted = [[(x + 512 * n, y) for x, y in square] for n in range(4)]
    outer = frozenset({0, 2})
    plan = vizdoom.floor_plan(
        [
            sector(0, 128, *shifted[0], blocking=outer | {3}),
            sector(24, 128, *shifted[1], blocking=outer),  # a step that can be climbed
            sector(56, 128, *shifted[2], blocking=outer),  # one that cannot
            sector(56, 100, *shifted[3], blocking=outer | {1}),  # a low ceiling
        ]
    )
    rows, columns = np.nonzero(plan.free)
    x = plan.corner_m[0] + plan.cell_m * (columns + 0.5)
    y = plan.corner_m[1] + plan.cell_m * (rows + 0.5)
    body = 16 / vizdoom.UNITS  # the game's
    assert body < x.min() < body + 1
    assert 32 - body - 1 < x.max() < 32 - body
    assert body < y.min() < body + 1
    assert 16 - body - 1 < y.max() < 16 - body


def test_without_the_package_the_error_says_how_to_install_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vizdoom, "VERSION", "99.0")
    with pytest.raises(DatasetError, match=r"vizdoom 99\.0, .* is installed: pip install 'maskstream\[walks\]'"):
        named_dataset("vizdoom-walks")(tmp_path)


@pytest.mark.parametrize("name", ["vizdoom-walks", "sample-trajectory"])
def test_no_map_is_in_two_splits(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vizdoom_walks, "check_vizdoom", lambda: None)
    splits = named_dataset(name)(tmp_path).splits
    maps = {split: {source.meta["map"] for source in sources} for split, sources in splits.items()}
    assert not maps["train"] & maps["val"]
    assert len(maps["train"]) > 3 * len(maps["val"]) > 9
    every = [source for sources in splits.values() for source in sources]
    assert len({source.id for source in every}) == len({source.meta["walk"]["seed"] for source in every}) == len(every)


@pytest.fixture
def recorded() -> Iterator[tuple[VizdoomWalk, Walk]]:
    """A trajectory of the simulator; skips where it is not installed."""
    walk = VizdoomWalk(wad="freedoom2", map="MAP01", seed=2, frames=24)
    try:
        yield walk, walk.record()
    except DatasetError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_a_simulator_shows_depth_that_its_poses_explain(recorded: tuple[Any, Walk]) -> None:
    """A walk is the same each time, and a point that one frame shows is where poses, lens and another's depth say."""
    asked, walk = recorded
    assert len(walk.frames) == len(walk.depth) == len(walk.path) == 24
    again = asked.record()
    np.testing.assert_array_equal(walk.path, again.path)
    np.testing.assert_array_equal(np.stack(walk.frames), np.stack(again.frames))
    np.testing.assert_array_equal(np.stack(walk.depth), np.stack(again.depth))
    assert np.stack(walk.frames).std() > 15
    moved = np.linalg.norm(np.diff(walk.path[:, :2], axis=0), axis=1)
    assert 0.05 < moved[8:].mean() < 0.25
    way = np.diff(walk.path[8:, :2], axis=0)
    looks = np.array([heading(pose) for pose in walk.path[8:-1]])
    along = (way * np.stack([np.cos(looks), np.sin(looks)], axis=1)).sum(axis=1)
    assert (along > 0.8 * np.linalg.norm(way, axis=1)).mean() > 0.7  # it walks where it looks
    assert off_by(walk, 10, 14) < 0.5 * off_by(walk, 10, 14, still=True)
    assert off_by(walk, 10, 14) < 0.04


def off_by(walk: Walk, one: int, other: int, *, still: bool = False) -> float:
    """The median difference of the depth of a frame's points as another frame shows them from the depth that it has
    there, as a share of it; still: as if the camera had not moved.
    """
    fx, fy, cx, cy = walk.lens
    rows, columns = (each.ravel() + 0.5 for each in np.indices(walk.depth[one].shape))
    deep = walk.depth[one].ravel() / 1000
    points = np.stack([(columns - cx) / fx * deep, (rows - cy) / fy * deep, deep], axis=1)
    pose = seen_from(walk.path[one : one + 1], walk.path[one if still else other])[0]
    moved = turned(np.broadcast_to(pose[3:], (len(points), 4)), points) + pose[:3]
    near = np.where(moved[:, 2] > 0.3, moved[:, 2], np.inf)
    x, y = np.floor(moved[:, 0] / near * fx + cx), np.floor(moved[:, 1] / near * fy + cy)
    height, width = walk.depth[other].shape
    inside = (deep > 0) & np.isfinite(near) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    there = walk.depth[other][y[inside].astype(int), x[inside].astype(int)] / 1000
    known = there > 0
    return float(np.median(np.abs(moved[inside, 2][known] - there[known]) / there[known]))
