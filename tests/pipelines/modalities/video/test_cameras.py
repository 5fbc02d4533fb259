"""Several videos of a sample in one batch: the same instants by each one's rate, masks apart, exact resumes."""

import logging
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, augment, masks, mix, video_loader
from maskstream.pipelines.flow import Codec, Dis
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards import (
    ResumeError,
    Sample,
    array_member,
    video_member,
)

from ....conftest import write_moving_texture
from ....splits import write_samples
from ....videos import write_frames
from ...contract import check_order
from ...recording import check_what_is_read, recorded

LEFT, RIGHT, SLOW = CAMERAS = ("left.mp4", "right.mp4", "slow.mp4")
FRAMES, N = 41, 6


def write_levels(path, rate, frames, first):
    """A video of plain pictures, whose grey tells the frame: `first` and three levels more each."""
    levels = (np.full((48, 64, 3), first + 3 * frame, np.uint8) for frame in range(frames))
    return write_frames(path, levels, rate=rate, options={"qp": "10", "preset": "veryfast"})


def split_of(folder, samples):
    return write_samples(folder, samples, "video", dataset="rig")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Left and right are textures of 30 frames a second, slow has half of them, whose grey tells the frame."""
    raw = tmp_path_factory.mktemp("raw")
    left, right = (write_moving_texture(raw / f"{seed}.mp4", seed=seed, frames=FRAMES) for seed in (1, 2))
    paths = {LEFT: left, RIGHT: right, SLOW: write_levels(raw / "slow.mp4", 15, 19, 40)}
    videos = {name: encode_video(path, PROFILES["train"]) for name, path in paths.items()}
    members = {name: video_member(video.data, video.index) for name, video in videos.items()}
    members["action.npy"] = array_member(np.arange(FRAMES, dtype=np.float32)[:, None])
    return [Sample(key=f"s{n}", members=members, source=str(n), label=n) for n in range(N)]


@pytest.fixture(scope="module")
def rig(samples, tmp_path_factory):
    """The folder of the split."""
    return split_of(tmp_path_factory.mktemp("split") / "train", samples)


def opened(folder, component, **options):
    settings = {"clip": VideoClip(frames=4, stride=4, size=32), "mask": masks.Tube(ratio=0.5), "batch_size": 2}
    return video_loader(folder, component=component, patch=8, seed=5, device="cpu", **settings | options)


def parts(batch):
    """All that each row of a batch has of each camera."""
    return [
        {
            name: (one.key[row], *(each[row].numpy().tobytes() for each in (one.video, one.pts_s, one.mask.masked)))
            for name, one in batch.cameras.items()
        }
        for row in range(len(batch))
    ]


def test_cameras_of_one_rate_are_those_of_their_own_loaders(rig):
    both = list(opened(rig, (LEFT, RIGHT), fields=("action",)))
    assert [list(batch.cameras) for batch in both] == [[LEFT, RIGHT]] * (N // 2)
    for name in (LEFT, RIGHT):
        for batch, alone in zip(both, opened(rig, name, fields=("action",)), strict=True):
            own = batch.cameras[name]
            assert own.key == batch.key == alone.key
            assert torch.equal(own.label, alone.label)
            assert torch.equal(own.pts_s, alone.pts_s)
            assert torch.equal(own.video, alone.video), "crops are shared"
            assert torch.equal(own.fields["action"], alone.fields["action"])
            assert alone.cameras == own.cameras == {}
            assert torch.equal(own.mask.masked, alone.mask.masked) == (name == LEFT), "each has masks of its own"
    assert all(batch.video is batch.cameras[LEFT].video for batch in both)


def test_each_camera_has_crops_of_its_own_where_they_are_not_shared(rig):
    for batch, alone in zip(opened(rig, (LEFT, RIGHT), shared_crops=False), opened(rig, RIGHT), strict=True):
        assert torch.equal(batch.cameras[RIGHT].pts_s, alone.pts_s)
        assert not torch.equal(batch.cameras[RIGHT].video, alone.video)


@pytest.mark.parametrize("first", [LEFT, SLOW])
def test_frames_of_all_cameras_are_nearest_in_time_by_the_rate_of_each(rig, first):
    order = (first, SLOW if first == LEFT else LEFT)
    clip = VideoClip(frames=4, stride=3 if first == LEFT else 2, size=32, align=1)
    latest = 0.0
    for batch in islice(opened(rig, order, clip=clip, mask=None).repeat(), 12):
        times = {name: one.pts_s for name, one in batch.cameras.items()}
        number = (batch.cameras[SLOW].video.float().mean((2, 3, 4)) - 40) / 3
        assert (number - times[SLOW] * 15).abs().max() < 0.5, "the pixels are those of the times"
        assert (times[order[1]] - times[order[0]]).abs().max() <= (0.5 / 15 if first == LEFT else 0.5 / 30) + 1e-6
        latest = max(latest, float(times[LEFT].max()))
    assert latest <= 37 / 30, "no instant that the shorter video does not have"


def test_a_clip_that_the_shortest_camera_cannot_show_is_short(rig):
    clip = VideoClip(frames=11, stride=4, size=32, short="error")
    opened(rig, (LEFT, RIGHT), clip=clip, tubelet=1)
    with pytest.raises(ValueError, match=f"{N} of {N} videos of .* are shorter than the clip"):
        opened(rig, (LEFT, SLOW), clip=clip, tubelet=1)
    loader = opened(rig, (LEFT, SLOW), clip=replace(clip, short="repeat"), tubelet=1)
    next(iter(loader))
    assert loader.stats()["short"] in (2, 4, 6), "each sample counts once"


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_saved_position_continues_with_the_same_batches_on_any_ranks(rig, workers):
    state = check_order(partial(opened, rig, (LEFT, SLOW), views=2), parts, batch_size=2, workers=workers)
    for other in ((SLOW, LEFT), (LEFT, RIGHT), LEFT):
        with pytest.raises(ResumeError, match="component"):
            opened(rig, other, views=2).load_state_dict(state)
    with pytest.raises(ResumeError, match="shared_crops"):
        opened(rig, (LEFT, SLOW), views=2, shared_crops=False).load_state_dict(state)


def test_only_the_packets_of_the_clips_are_read(rig):
    split, store = recorded(rig, "video")
    source = VideoData(clip=VideoClip(frames=2, stride=4, size=32), component=(LEFT, SLOW), patch=8).source(split)
    check_what_is_read(source.sampler, store, N)
    sizes = [split.manifest.member(0, name).size for name in (LEFT, SLOW)]
    assert 0 < sum(one.size for one in store.read_ranges) < sum(sizes)
    assert {one.name for one in store.read_ranges} == {"rig-000000.tar"}


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["codec", "lk"])
def test_each_camera_has_its_flow_and_masks_that_follow_it(rig, flow):
    (batch, *_) = opened(rig, (LEFT, RIGHT), mask=masks.MotionGuided(ratio=0.5), flow=flow)
    (alone, *_) = opened(rig, RIGHT, mask=masks.MotionGuided(ratio=0.5), flow=flow)
    right = batch.cameras[RIGHT]
    assert torch.allclose(right.flow.vectors, alone.flow.vectors)
    assert right.mask.masked.sum() == alone.mask.masked.sum()
    assert not torch.equal(right.flow.vectors, batch.flow.vectors)


def test_planes_become_the_pixels_of_each_camera(rig):
    split, _ = recorded(rig, "video")
    data = VideoData(clip=VideoClip(frames=2, stride=4, size=32), component=(LEFT, RIGHT), patch=8)
    made = []
    for device in ("cpu", "cuda"):
        source = data.source(replace(split, device=torch.device(device)))
        host = batch_of(source.sampler, Wanted.of(range(2)))
        made.append(source.finish(host, torch.device("cpu")).cameras)
    for name in (LEFT, RIGHT):
        rgb, yuv = (one[name].video.int() for one in made)
        assert (rgb - yuv).abs().max() <= 4


def test_motion_vectors_of_cameras_of_other_rates_are_no_flow(rig):
    mask = masks.MotionGuided(ratio=0.5)
    with pytest.raises(
        ValueError, match=r"needs frames at a constant stride, but cameras have different rates; use flow='dis'"
    ):
        opened(rig, (LEFT, SLOW), mask=mask, flow="codec")
    split, _ = recorded(rig, "video")
    for cameras, kind in (((LEFT, SLOW), Dis), ((LEFT, RIGHT), Codec)):
        data = VideoData(clip=VideoClip(frames=4, stride=4, size=32), component=cameras, mask=mask, patch=8)
        assert type(data.resolved(split).flow) is kind


def test_samples_that_lack_a_camera_are_left_out_before_training(samples, tmp_path, caplog):
    lame = [
        replace(one, members={k: v for k, v in one.members.items() if k != RIGHT}) if n in (1, 4) else one
        for n, one in enumerate(samples)
    ]
    folder = split_of(tmp_path / "train", lame)
    with caplog.at_level(logging.WARNING):
        loader = opened(folder, (LEFT, RIGHT))
    assert (
        "2 of 6 samples do not have all of left.mp4, right.mp4 and are left out (2 lack right.mp4, such as 's1')"
        in (caplog.text)
    )
    assert sorted(key for batch in loader for key in batch.key) == ["s0", "s2", "s3", "s5"]
    assert loader.stats()["bad"] == 0
    none = split_of(tmp_path / "none", [lame[1]])
    with pytest.raises(ValueError, match=r"does not exist; components that are video: left\.mp4, slow\.mp4"):
        opened(none, (LEFT, RIGHT))
    apart = [
        replace(samples[n], members={k: v for k, v in samples[n].members.items() if k != gone})
        for n, gone in enumerate((LEFT, RIGHT))
    ]
    with pytest.raises(ValueError, match=r"no sample in .* has all of them \(1 lack left\.mp4, 1 lack right\.mp4\)"):
        opened(split_of(tmp_path / "apart", apart), (LEFT, RIGHT))


def test_impossible_cameras_are_refused(rig):
    with pytest.raises(ValueError, match="list each video once"):
        opened(rig, (LEFT, LEFT))
    with pytest.raises(ValueError, match="list each video once"):
        opened(rig, ())
    with pytest.raises(ValueError, match="it decodes one video of a sample, and component="):
        opened(rig, (LEFT, RIGHT), backend="dali")
    with pytest.raises(ValueError, match=r"'up\.mp4' does not exist"):
        opened(rig, (LEFT, "up.mp4"))
    sources = [VideoData(component=names).source(recorded(rig, "video")[0]) for names in ((LEFT, RIGHT), (LEFT, SLOW))]
    with pytest.raises(ValueError, match="component"):
        mix([(one, 1) for one in sources], seed=0)
    (one, *_) = opened(rig, (LEFT,), augment=augment.CenterCrop())
    assert list(one.cameras) == [LEFT]


def test_rows_that_only_pad_have_no_weight_in_any_camera(rig):
    (*_, last) = opened(rig, (LEFT, RIGHT), batch_size=4, shuffle=False)
    weighted = last.weighted(torch.tensor([1.0] * (len(last) - 1) + [0.0]))
    for one in weighted.cameras.values():
        assert one.weight.tolist()[-1] == 0
        assert one.mask.weight is not None
