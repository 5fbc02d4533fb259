"""The curves of a report are the metrics of the run."""

import json
from dataclasses import asdict
from threading import Thread
from time import sleep

import numpy as np
import pytest

from maskstream.pages.report.report import follow_run, run_curves
from maskstream.shards.stores.local_files import LOCK, is_being_written, sole_writer
from maskstream.train.evaluate.evaluation import TrainingLoss

from .pages import Page
from .reported import GRID, clips, report_page, steps

LOSS = TrainingLoss()


def test_curves_are_the_metrics():
    losses = [1.2, 1.1, 0.9, 0.95, 0.7, 0.72]
    curves = run_curves(steps(losses), LOSS)
    each, mean = curves.loss.lines
    np.testing.assert_array_equal(each.x, [1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(each.y, losses)
    assert mean.y[2] == pytest.approx(np.mean(losses[:5]))
    assert (curves.loss.reference, curves.loss.top) == (1.0, None)
    assert curves.steps == 6
    assert curves.numbers == {
        "Loss, mean of the last 6 steps": f"{np.mean(losses):.3g}",
        "Steps": "6",
        "Samples per second, median": "22.5",
        "Time spent waiting for data": "25.0\N{NO-BREAK SPACE}%",
    }
    small = {chart.title: chart for chart in curves.small}
    assert small["Learning rate"].include == (0.0,)
    np.testing.assert_allclose(small["Learning rate"].lines[0].y, 1e-4 * np.arange(1, 7))
    np.testing.assert_allclose(small["Waiting for data"].lines[0].y, 25.0)


def test_a_page_follows_a_run_until_its_end(tmp_path):
    """It reloads itself while the folder is locked; a lock file that a kill left does not count."""
    run, out = tmp_path / "run", tmp_path / "out.html"
    pages = []
    with sole_writer(run):
        following = Thread(target=follow_run, args=(run, out, 1))
        following.start()
        for said in ("none yet", "Loss by step"):
            for _ in range(100):
                if out.exists() and said in (text := out.read_text()):
                    break
                sleep(0.1)
            pages.append(text)
            (run / "metrics.jsonl").write_text("".join(json.dumps(asdict(one)) + "\n" for one in steps([0.9, 0.7])))
    following.join(10)
    assert not following.is_alive()
    assert ["none yet" in one for one in pages] == [True, False]
    for one in pages:
        assert '<meta http-equiv="refresh" content="1">' in one
    assert "The line at" not in pages[1]
    (run / LOCK).touch()
    assert not is_being_written(run)


def test_the_last_twenty_steps_are_averaged_whatever_the_order_of_the_rows():
    rows = steps(np.linspace(2.0, 0.5, 100).tolist())
    curves = run_curves(rows[::-1], LOSS)
    mean = np.linspace(2.0, 0.5, 100)[-20:].mean()
    assert curves.numbers["Loss, mean of the last 20 steps"] == f"{mean:.3g}"
    assert len(curves.loss.lines) == 2


@pytest.mark.parametrize("losses", [[0.2, 0.3], [3.0, 2.0]])
def test_the_loss_of_predicting_the_mean_is_always_in_the_chart(losses):
    chart = run_curves(steps(losses), LOSS).loss
    assert chart.include == (1.0,)
    assert chart.top is None or chart.top >= 1.0


def test_first_steps_far_above_the_rest_leave_the_chart():
    losses = [40.0, 5.0, *np.linspace(0.05, 0.01, 98).tolist()]
    chart = run_curves(steps(losses), TrainingLoss(value=0.03)).loss
    assert chart.top is not None
    assert max(losses[2:]) < chart.top < 0.2
    np.testing.assert_allclose(chart.lines[0].y, losses)


def test_a_page_tells_that_losses_are_drawn_lower_than_they_are():
    batch = clips(1)
    told = [
        "are outside" in report_page(steps(losses), [batch], [batch.video.numpy()], {}, grid=GRID, title="t")
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
    data = next(attrs["data-chart"] for _, attrs in Page(text).tags if attrs.get("aria-label") == "Loss by step")
    found = json.loads(data)
    assert found["lines"][0]["y"] == losses
    assert found["reference"] == 1.0
