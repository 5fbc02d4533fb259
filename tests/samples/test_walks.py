"""Walks: depth comes back as it was, explorers turn to where it is deep, and simulators give what they show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from maskstream.pipelines.decode.cpu import decode_frames
from maskstream.preprocess.datasets import named_dataset
from maskstream.preprocess.encode.trajectory.encoder import (
    TrajectoryEncoder,
    Walk,
    crop_to_blocks,
    make_depth_member,
    millimetres,
)
from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.source import RejectError
from maskstream.samples.trajectory import vizdoom_walks
from maskstream.samples.trajectory.vizdoom_walks import Explorer, VizdoomWalk
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
    member = make_depth_member(depth, 7)
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
    with pytest.raises(RejectError, match="not a unit quaternion"):
        TrajectoryEncoder().encoded(changed(path=whole.path * 1.01))
    with pytest.raises(RejectError, match="all must have one size"):
        TrajectoryEncoder().encoded(changed(depth=[*whole.depth[:7], whole.depth[7][:20]]))
    with pytest.raises(ValueError, match="profile 'fps' drops frames"):
        TrajectoryEncoder().in_profile(PROFILES["fps"])


def test_the_middle_of_frames_is_stored_with_its_depth_and_lens() -> None:
    whole = small_walk(8)
    low = changed(frames=[one[:40] for one in whole.frames], depth=[one[:40:2, ::2] for one in whole.depth])
    kept = crop_to_blocks(low, 16)
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
    assert crop_to_blocks(whole, 16) is whole


def depths(wall: int, *, opening: int = 160) -> npt.NDArray[np.uint8]:
    """Levels of depth of a wall that fills the view, but for 40 columns from `opening` on, which are far."""
    levels = np.full((120, 160), wall, np.uint8)
    levels[:, opening : opening + 40] = 70
    return levels


def explorer(seed: int = 0) -> Explorer:
    return Explorer(np.random.Generator(np.random.Philox(seed)), pace=1.2)


@pytest.mark.parametrize(("opening", "way"), [(0, 1), (120, -1)])
def test_an_explorer_turns_to_where_the_view_is_deep_and_smoothly(opening: int, way: int) -> None:
    for seed in range(8):
        one, before = explorer(seed), 0.0
        for _ in range(8):
            speed, turn = one.choose_speed_and_turn(depths(6, opening=opening))
            assert abs(turn) <= 1.5
            assert abs(turn - before) <= 0.7 + 1e-9
            assert 0.6 < speed <= 1.2
            before = turn
        assert before * way > 0.5


def test_an_explorer_before_a_wall_turns_on_the_spot_and_to_one_side() -> None:
    """Also if the deeper side changes as it turns."""
    one = explorer()
    found = [
        one.choose_speed_and_turn(depths(1, opening=130)),
        *(one.choose_speed_and_turn(depths(1, opening=n)) for n in (0, 130, 0)),
    ]
    assert max(speed for speed, _ in found) < 0.3
    assert [turn < 0 for _, turn in found] == [True] * 4
    assert one.choose_speed_and_turn(depths(60))[0] > 0.6


def test_without_the_package_the_error_says_how_to_install_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vizdoom_walks, "VERSION", "99.0")
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
    walk = VizdoomWalk(wad="freedoom2", map="MAP01", seed=5, frames=24)
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
