"""The frames of a clip, and random generators that depend on their key alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.stream.rng import sample_rng


@given(
    n=st.integers(1, 200),
    frames=st.integers(1, 16),
    stride=st.integers(1, 6),
    align=st.sampled_from([None, 1, 4]),
    seed=st.integers(0, 9),
)
def test_frame_numbers_advance_by_the_stride_and_repeat_only_the_last(n, frames, stride, align, seed):
    clip = VideoClip(frames=frames, stride=stride, align=align)
    numbers = clip.numbers(n, np.random.default_rng(seed))
    assert numbers.shape == (frames,)
    assert numbers[0] >= 0
    assert numbers[-1] < n
    assert numbers[0] % (align or 1) == 0
    steps = np.diff(numbers)
    assert set(steps.tolist()) <= {0, stride}
    assert (np.diff((steps == 0).astype(int)) >= 0).all()
    if n >= clip.span + (align or 1):
        assert (steps == stride).all()


def test_every_start_is_drawn_equally_often():
    clip = VideoClip(frames=4, stride=2)
    rng = np.random.default_rng(0)
    starts = np.bincount([clip.numbers(16, rng)[0] for _ in range(5000)])
    assert len(starts) == 10
    assert ((starts - 500) ** 2 / 500).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001


@given(n=st.integers(1, 200), frames=st.integers(1, 16), gop=st.integers(1, 40), seed=st.integers(0, 9))
def test_clips_that_start_on_gops(n, frames, gop, seed):
    clip, gops = VideoClip(frames=frames, align="gop"), np.arange(0, n, gop)
    numbers = clip.numbers(n, np.random.default_rng(seed), gops)
    assert numbers[0] in gops
    assert numbers[-1] < n
    steps = np.diff(numbers)
    assert set(steps.tolist()) <= {0, 4}
    if n >= clip.span:
        assert (steps == 4).all()


def test_every_gop_that_holds_a_clip_is_drawn_equally_often():
    clip, gops, rng = VideoClip(frames=4, align="gop"), np.array([0, 12, 24, 40, 52]), np.random.default_rng(0)
    starts = [int(clip.numbers(54, rng, gops)[0]) for _ in range(4000)]
    assert sorted(set(starts)) == [0, 12, 24, 40]
    counts = np.unique(starts, return_counts=True)[1]
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.3  # chi-square, 3 degrees of freedom, p = 0.001
    centre = VideoClip(frames=4, align="gop", start="center")
    assert centre.numbers(54, rng, gops).tolist() == [12, 16, 20, 24]
    with pytest.raises(ValueError, match="needs the first frames"):
        clip.numbers(54, rng)


def test_the_centre_clip_is_not_random():
    clip = VideoClip(frames=4, stride=2, start="center")
    assert clip.numbers(17, np.random.default_rng(0)).tolist() == [5, 7, 9, 11]


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
