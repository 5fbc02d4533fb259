"""From time stamps to a constant rate."""

from fractions import Fraction

import numpy as np
import pytest

from maskstream.preprocess.encode.video.source import measure_frame_rate, resample

MS = Fraction(1, 1000)


def stamps(rate, n=60, drop=(), jitter_ms=0.0):
    rng = np.random.default_rng(0)
    kept = [i for i in range(n) if i not in drop]
    return np.array([round(i * 1000 / rate + rng.uniform(-jitter_ms, jitter_ms)) for i in kept], np.int64)


@pytest.mark.parametrize(
    "rate", [Fraction(12), Fraction(25), Fraction(30), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60)]
)
def test_rounded_stamps_of_a_constant_rate(rate):
    for declared in (rate, None):
        assert measure_frame_rate(stamps(float(rate), 600), MS, declared) == (rate, False)


def test_a_wrong_declared_rate_is_not_believed():
    assert measure_frame_rate(stamps(25), MS, Fraction(50)) == (Fraction(25), False)


def test_jitter_below_half_a_frame_is_constant():
    assert measure_frame_rate(stamps(25, jitter_ms=15), MS, Fraction(25)) == (Fraction(25), False)


def test_gaps_keep_the_usual_rate():
    assert measure_frame_rate(stamps(30, drop=(20, 21, 40)), MS, None) == (Fraction(30), True)


def test_mixed_rates_take_the_average():
    mixed = np.cumsum(np.r_[np.full(50, 20), np.full(50, 100)])
    rate, variable = measure_frame_rate(mixed, MS, None)
    assert variable
    assert rate == 17  # 99 frames in 5.98 s, to the nearest whole number


def test_less_than_a_frame_a_second_is_not_blown_up():
    assert measure_frame_rate(np.array([0, 3000, 6000, 14000, 15000]), MS, None) == (Fraction(1, 4), True)


def test_a_burst_does_not_give_an_endless_rate():
    assert measure_frame_rate(np.r_[np.arange(60), 70], MS, None)[0] <= 120


def test_one_frame():
    assert measure_frame_rate(np.array([7]), MS, Fraction(24)) == (Fraction(24), False)
    assert measure_frame_rate(np.array([7]), MS, None) == (Fraction(25), False)


def timed(rate, n):
    return [(Fraction(i) / rate, i) for i in range(n)]


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
@pytest.mark.parametrize("n", [1, 2, 75])
def test_own_rate_changes_nothing(rate, n):
    assert list(resample(timed(rate, n), rate, 1 / rate)) == list(range(n))


def test_half_and_quarter_rate():
    assert list(resample(timed(Fraction(30), 30), Fraction(15), Fraction(1, 30))) == list(range(0, 30, 2))
    assert list(resample(timed(Fraction(30), 30), Fraction(15, 2), Fraction(1, 30))) == list(range(0, 30, 4))


def test_double_rate_repeats():
    assert list(resample(timed(Fraction(10), 3), Fraction(20), Fraction(1, 10))) == [0, 0, 1, 1, 2, 2]


def test_a_frame_that_is_shown_too_briefly_is_left_out():
    shown = [(Fraction(0), "a"), (Fraction(100, 1000), "b"), (Fraction(105, 1000), "c"), (Fraction(200, 1000), "d")]
    assert list(resample(shown, Fraction(10), Fraction(1, 10))) == ["a", "c", "d"]


def test_no_frames():
    assert list(resample([], Fraction(10), Fraction(1, 10))) == []
