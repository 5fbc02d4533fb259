"""The frames of a clip, and random generators that depend on their key alone."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from maskstream.pipelines import masks, video_loader
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.shards.errors import ResumeError


@given(
    n=st.integers(1, 200),
    frames=st.integers(1, 16),
    stride=st.integers(1, 6),
    align=st.sampled_from([None, 1, 4]),
    seed=st.integers(0, 9),
)
def test_frame_numbers_advance_by_the_stride_and_repeat_only_the_last(n, frames, stride, align, seed):
    clip = VideoClip(frames=frames, stride=stride, align=align)
    numbers = clip.numbers(n, np.random.default_rng(seed), fps=25)
    assert numbers.shape == (frames,)
    assert numbers[0] >= 0
    assert numbers[-1] < n
    assert numbers[0] % (align or 1) == 0
    steps = np.diff(numbers)
    assert set(steps.tolist()) <= {0, stride}
    assert (np.diff((steps == 0).astype(int)) >= 0).all()
    if n >= clip.span(25) + (align or 1):
        assert (steps == stride).all()


def test_every_start_is_drawn_equally_often():
    clip = VideoClip(frames=4, stride=2)
    rng = np.random.default_rng(0)
    starts = np.bincount([clip.numbers(16, rng, fps=25)[0] for _ in range(5000)])
    assert len(starts) == 10
    assert ((starts - 500) ** 2 / 500).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001


@given(n=st.integers(1, 200), frames=st.integers(1, 16), gop=st.integers(1, 40), seed=st.integers(0, 9))
def test_clips_that_start_on_gops(n, frames, gop, seed):
    clip, gops = VideoClip(frames=frames, align="gop"), np.arange(0, n, gop)
    numbers = clip.numbers(n, np.random.default_rng(seed), gops, fps=25)
    assert numbers[0] in gops
    assert numbers[-1] < n
    steps = np.diff(numbers)
    assert set(steps.tolist()) <= {0, 4}
    if n >= clip.span(25):
        assert (steps == 4).all()


def test_every_gop_that_holds_a_clip_is_drawn_equally_often():
    clip, gops, rng = VideoClip(frames=4, align="gop"), np.array([0, 12, 24, 40, 52]), np.random.default_rng(0)
    starts = [int(clip.numbers(54, rng, gops, fps=25)[0]) for _ in range(4000)]
    assert sorted(set(starts)) == [0, 12, 24, 40]
    counts = np.unique(starts, return_counts=True)[1]
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.3  # chi-square, 3 degrees of freedom, p = 0.001
    centre = VideoClip(frames=4, align="gop", start="center")
    assert centre.numbers(54, rng, gops, fps=25).tolist() == [12, 16, 20, 24]
    with pytest.raises(ValueError, match="needs the first frames"):
        clip.numbers(54, rng, fps=25)


def test_the_centre_clip_is_not_random():
    clip = VideoClip(frames=4, stride=2, start="center")
    assert clip.numbers(17, np.random.default_rng(0), fps=25).tolist() == [5, 7, 9, 11]


@pytest.mark.parametrize(
    "bad", [{"frames": 0}, {"stride": 0}, {"size": 0}, {"align": 0}, {"align": "gops"}, {"start": "end"}]
)
def test_illegal_clips_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        VideoClip(**bad)


def test_a_generator_depends_on_each_part_of_its_key_and_on_nothing_else():
    state = np.random.get_state()[1].copy()
    base = (0, 0, "a", 0, "mask")
    draws = {base: sample_rng(*base).random(4).tolist()}
    for other in [
        (1, 0, "a", 0, "mask"),
        (0, 1, "a", 0, "mask"),
        (0, 0, "b", 0, "mask"),
        (0, 0, "a", 1, "mask"),
        (0, 0, "a", 0, "crop"),
    ]:
        draws[other] = sample_rng(*other).random(4).tolist()
    assert len({tuple(d) for d in draws.values()}) == len(draws)
    assert sample_rng(*base).random(4).tolist() == draws[base]
    assert np.array_equal(np.random.get_state()[1], state)


@example(n=92, frames=10, source=25.0, spacing={"fps": 2.5}, align=4, seed=0)  # the last rounds up beyond the end
@given(
    n=st.integers(1, 400),
    frames=st.integers(1, 16),
    source=st.sampled_from([10.0, 24000 / 1001, 25.0, 30.0, 60.0]),
    spacing=st.sampled_from([{"fps": 8}, {"fps": 2.5}, {"fps": 30}, {"seconds": 2}, {"seconds": 0.5}]),
    align=st.sampled_from([None, 1, 4]),
    seed=st.integers(0, 9),
)
def test_frames_by_time_are_the_nearest_in_time(n, frames, source, spacing, align, seed):
    clip = VideoClip(frames=frames, align=align, **spacing)
    numbers = clip.numbers(n, np.random.default_rng(seed), fps=source)
    step_s = 1 / spacing["fps"] if "fps" in spacing else spacing["seconds"] / frames
    assert numbers.shape == (frames,)
    assert numbers[0] % (align or 1) == 0
    wanted_s = numbers[0] / source + step_s * np.arange(frames)
    coarse = align == 4 and step_s * source >= 4
    within = wanted_s <= (n - 1) / source - 1e-9
    assert np.abs(numbers[within] / source - wanted_s[within]).max(initial=0) <= (2 if coarse else 0.5) / source + 1e-9
    assert (numbers[~within] <= n - 1).all()
    assert (np.diff(numbers) >= 0).all()
    if coarse:
        assert (numbers % 4 == 0).all()


def test_a_loader_of_clips_by_time(split):
    def loader(**clip):
        return video_loader(split, clip=VideoClip(frames=4, size=32, **clip), batch_size=11, seed=0)

    (batch,) = loader(fps=12)  # of 30: 0, 2.5, 5, 7.5 frames
    assert set(np.round(30 * np.diff(batch.pts_s.numpy(), axis=1)).astype(int).flatten()) == {2, 3}
    (batch,) = loader(seconds=0.8)  # 6 frames apart, of multiples of 4
    np.testing.assert_allclose(30 * np.diff(batch.pts_s.numpy(), axis=1), [[8, 4, 8]] * 11, atol=1e-6)
    state = loader(fps=12).state_dict()
    with pytest.raises(ResumeError, match=r"clip\.fps"):
        loader(fps=10).load_state_dict(state)


def test_what_clips_by_time_cannot_have(split):
    with pytest.raises(ValueError, match=r"VideoClip\(fps=8, seconds=2\): pass one of them"):
        VideoClip(fps=8, seconds=2)
    with pytest.raises(ValueError, match="seconds must be"):
        VideoClip(seconds=0)
    with pytest.raises(
        ValueError, match=r"flow='codec' needs frames at a constant stride, but a clip has 8 frames a second"
    ):
        video_loader(split, clip=VideoClip(frames=4, size=32, fps=8), flow="codec", batch_size=2)
    clip = VideoClip(frames=4, size=32, fps=8)
    (batch, *_) = video_loader(split, clip=clip, mask=masks.MotionGuided(ratio=0.5), batch_size=2)
    assert batch.flow is not None
