"""Charts: lines that keep their values and extremes, ticks at round numbers, and the library that draws them."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import maskstream.pages
from maskstream.pages.figures.chart import Chart, Line, choose_inner_ticks, compute_running_mean, smoothed

VENDOR = Path(maskstream.pages.__file__).with_name("vendor")

SUMS = {
    "LICENSE": "8f989229699b4fe2",
    "uPlot.iife.min.js": "19c8d4c6ad88929a",
    "uPlot.min.css": "df630c6a8d6f8eea",
}
"""The first letters of the SHA-256 of the files of uPlot 1.6.32."""


def drawn(*lines, **settings):
    return json.loads(Chart(lines=lines, **settings).data)


def test_chart_points_are_the_values():
    x, y = np.arange(1.0, 51.0), np.random.default_rng(0).random(50)
    found = drawn(*smoothed(x, y, "loss", 5), include=(1.0,), reference=0.5)
    each, mean = found["lines"]
    np.testing.assert_allclose(each["x"], x)
    np.testing.assert_allclose(each["y"], y, rtol=1e-5)
    np.testing.assert_allclose(mean["y"][2:-2], [y[max(i - 2, 0) : i + 3].mean() for i in range(2, 48)], rtol=1e-5)
    assert (each["name"], mean["name"], each["thin"], mean["thin"]) == ("loss", "loss, mean of 5", True, False)
    assert (found["include"], found["reference"], found["top"]) == ([1.0], 0.5, None)
    assert len(smoothed(x, y, "loss", 51)) == 1


def test_long_charts_keep_their_extremes():
    y = np.random.default_rng(0).random(20_000)
    y[777], y[15_000] = 9.0, -3.0
    (line,) = drawn(Line(x=np.arange(20_000.0), y=y))["lines"]
    assert len(line["x"]) <= 1200
    assert (max(line["y"]), min(line["y"])) == (9.0, -3.0)
    assert (line["x"][line["y"].index(9.0)], line["x"][line["y"].index(-3.0)]) == (777, 15_000)
    assert (np.diff(line["x"]) > 0).all()


def test_values_that_are_not_finite_break_the_line():
    y = np.array([1.0, 2.0, np.nan, 4.0, np.inf, 6.0, 7.0])
    assert drawn(Line(x=np.arange(7.0), y=y))["lines"][0]["y"] == [1, 2, None, 4, None, 6, 7]
    np.testing.assert_allclose(compute_running_mean(y, 3), [1.5, 1.5, 3.0, 4.0, 5.0, 6.5, 6.5])


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.64), (3.17, 13.41), (-0.02, 1.7)])
def test_inner_ticks_lie_at_their_numbers_and_none_outside(low, high):
    ticks = choose_inner_ticks(low, high, 8)
    assert 3 <= len(ticks) <= 12
    for tick in ticks:
        assert tick.at == pytest.approx((float(tick.label) - low) / (high - low), abs=0.01)
        assert 0 <= tick.at <= 1


def test_the_library_is_the_released_one_with_its_licence():
    sums = {path.name: sha256(path.read_bytes()).hexdigest()[:16] for path in VENDOR.iterdir()}
    assert sums == SUMS
    assert "MIT" in (VENDOR / "LICENSE").read_text()
