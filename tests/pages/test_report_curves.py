"""The curves of a report are the metrics of the run."""

import numpy as np
import pytest

from maskstream.pages.report.report import run_curves
from maskstream.train.evaluate.evaluation import TrainingLoss

from .pages import Page
from .reported import GRID, clips, points, report_page, steps

LOSS = TrainingLoss()


def test_curves_are_the_metrics():
    losses = [1.2, 1.1, 0.9, 0.95, 0.7, 0.72]
    curves = run_curves(steps(losses), LOSS)
    xy = points(curves.loss.line)
    low, high = curves.loss.y_range
    np.testing.assert_allclose(1 + xy[:, 0] / 1000 * 5, [1, 2, 3, 4, 5, 6], atol=0.01)
    np.testing.assert_allclose(high - xy[:, 1] / 1000 * (high - low), losses, atol=0.001 * (high - low))
    assert curves.baseline_at == pytest.approx((high - 1.0) / (high - low))
    assert curves.last_loss == pytest.approx(np.mean(losses))
    assert (curves.steps, curves.last_steps, curves.edge) == (6, 6, None)
    assert curves.median_clips_per_s == pytest.approx(22.5)
    assert curves.mean_data_wait == pytest.approx(0.25)
    lr = points(curves.lr.line)
    assert curves.lr.y_range[0] == 0.0
    np.testing.assert_allclose((1 - lr[:, 1] / 1000) * curves.lr.y_range[1], 1e-4 * np.arange(1, 7), atol=1e-6)


def test_the_last_twenty_steps_are_averaged_whatever_the_order_of_the_rows():
    rows = steps(np.linspace(2.0, 0.5, 100).tolist())
    curves = run_curves(rows[::-1], LOSS)
    assert curves.last_loss == pytest.approx(np.linspace(2.0, 0.5, 100)[-20:].mean())
    assert curves.last_steps == 20
    assert curves.loss.smooth


@pytest.mark.parametrize("losses", [[0.2, 0.3], [3.0, 2.0]])
def test_the_loss_of_predicting_the_mean_is_always_in_the_chart(losses):
    curves = run_curves(steps(losses), LOSS)
    assert 0 <= curves.baseline_at <= 1


def test_first_steps_far_above_the_rest_are_drawn_at_the_edge():
    losses = [40.0, 5.0, *np.linspace(0.05, 0.01, 98).tolist()]
    curves = run_curves(steps(losses), TrainingLoss(value=0.03))
    low, high = curves.loss.y_range
    assert high < 0.2
    drawn = high - points(curves.loss.line)[:, 1] / 1000 * (high - low)
    assert drawn[0] == drawn[1] == pytest.approx(curves.edge, abs=0.002 * (high - low))
    np.testing.assert_allclose(drawn[2:], losses[2:], atol=0.002 * (high - low))
    assert high - curves.baseline_at * (high - low) == pytest.approx(0.03)


@pytest.mark.parametrize("n", [2, 20, 150, 350, 800, 1600])
def test_every_chart_has_two_ticks_or_more_along_the_steps(n):
    curves = run_curves(steps(np.linspace(1.0, 0.5, n).tolist()), LOSS)
    for chart in (curves.loss, curves.lr, curves.clips_per_s, curves.data_wait):
        assert 2 <= len(chart.x_ticks) <= 6


def test_a_page_tells_that_losses_are_drawn_lower_than_they_are():
    batch = clips(1)
    told = [
        "are drawn at that height"
        in report_page(steps(losses), [batch], [batch.video.numpy()], {}, grid=GRID, title="t")
        for losses in ([40.0] + [0.5] * 50, [1.5] + [0.5] * 50)
    ]
    assert told == [True, False]


def test_a_run_without_a_step_has_no_report():
    with pytest.raises(ValueError, match="at least one step"):
        run_curves([], LOSS)


def test_the_drawn_loss_is_the_loss():
    losses = [1.3, 1.0, 0.8]
    batch = clips(1)
    text = report_page(steps(losses), [batch], [batch.video.numpy()], {}, grid=GRID, title="t")
    line = next(attrs["d"] for tag, attrs in Page(text).tags if attrs.get("id") == "loss-line")
    curves = run_curves(steps(losses), LOSS)
    low, high = curves.loss.y_range
    np.testing.assert_allclose(high - points(line)[:, 1] / 1000 * (high - low), losses, atol=0.001)
    reference = next(attrs["d"] for tag, attrs in Page(text).tags if attrs.get("class") == "reference")
    assert high - points(reference)[0, 1] / 1000 * (high - low) == pytest.approx(1.0, abs=0.001)
