"""Charts: lines that keep their values and extremes, and ticks at round numbers."""

import re

import numpy as np
import pytest

from maskstream.pages.figures.chart import axis_ticks, inner_ticks, labels, line_chart, running_mean


def points(path):
    return np.array([[float(a), float(b)] for a, b in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)])


def test_chart_points_are_the_values():
    x, y = np.arange(1.0, 51.0), np.random.default_rng(0).random(50)
    chart = line_chart(x, y, include=[1.0], window=5)
    xy = points(chart.line)
    low, high = chart.y_range
    np.testing.assert_allclose(1 + xy[:, 0] / 1000 * 49, x, atol=0.01)
    np.testing.assert_allclose(high - xy[:, 1] / 1000 * (high - low), y, atol=0.001 * (high - low))
    smooth = points(chart.smooth)
    expected = [y[max(i - 2, 0) : i + 3].mean() for i in range(50)]
    np.testing.assert_allclose(high - smooth[:, 1] / 1000 * (high - low), expected, atol=0.001 * (high - low))
    assert low <= y.min()
    assert high >= 1.0
    for tick in chart.y_ticks:
        assert tick.at == pytest.approx(chart.y_at(float(tick.label)))


def test_long_charts_keep_their_extremes():
    y = np.random.default_rng(0).random(20_000)
    y[777], y[15_000] = 9.0, -3.0
    chart = line_chart(np.arange(20_000.0), y)
    xy = points(chart.line)
    assert len(xy) <= 1200
    low, high = chart.y_range
    values = high - xy[:, 1] / 1000 * (high - low)
    assert values.max() == pytest.approx(9.0, abs=0.02)
    assert values.min() == pytest.approx(-3.0, abs=0.02)
    assert (np.diff(xy[:, 0]) >= 0).all()


def test_values_that_are_not_finite_break_the_line():
    y = np.array([1.0, 2.0, np.nan, 4.0, np.inf, 6.0, 7.0])
    chart = line_chart(np.arange(7.0), y)
    assert chart.line.count("M") == 3
    assert len(points(chart.line)) == 5
    assert "h0" in chart.line
    np.testing.assert_allclose(running_mean(y, 3), [1.5, 1.5, 3.0, 4.0, 5.0, 6.5, 6.5])


def test_a_chart_of_one_point_and_of_one_value():
    assert [tick.label for tick in line_chart(np.array([5.0]), np.array([0.5])).x_ticks] == ["5"]
    assert line_chart(np.arange(3.0), np.zeros(3)).y_range[0] <= 0 < line_chart(np.arange(3.0), np.zeros(3)).y_range[1]
    with pytest.raises(ValueError, match="at least one"):
        line_chart(np.array([]), np.array([]))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.5e-4), (0.43, 1.31), (1.0, 60_000.0), (0.0, 100.0), (3.0, 3.0)])
def test_ticks_are_even_and_enclose_the_range(low, high):
    ticks = axis_ticks(low, high, 4)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low * (1 + 1e-9)
    assert ticks[-1] >= high * (1 - 1e-9)
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])
    assert len(set(labels(ticks))) == len(ticks)
    np.testing.assert_allclose([float(t.replace(",", "")) for t in labels(ticks)], ticks, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.64), (3.17, 13.41), (-0.02, 1.7)])
def test_inner_ticks_lie_at_their_numbers_and_none_outside(low, high):
    ticks = inner_ticks(low, high, 8)
    assert 3 <= len(ticks) <= 12
    for tick in ticks:
        assert tick.at == pytest.approx((float(tick.label) - low) / (high - low), abs=0.01)
        assert 0 <= tick.at <= 1
