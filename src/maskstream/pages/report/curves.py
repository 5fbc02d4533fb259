"""The curves of a run's report: loss, learning rate, throughput and waiting for data, by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskstream.pages.figures.chart import Chart, Series, line_chart
from maskstream.train.core.metrics import StepMetrics

LAST_STEPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCurves:
    """The charts of a run, and the numbers that stand beside them.

    edge: losses above it are drawn at it; None where there are none. window: steps in the running mean of the loss.
    last_loss: mean of the last `last_steps` steps. baseline_loss: the loss of a trivial predictor; baseline_at: its
    position in the chart, from 0 (top) to 1.
    """

    steps: int
    loss: Chart
    edge: float | None
    window: int
    last_loss: float
    last_steps: int
    baseline_loss: float
    baseline_at: float
    lr: Chart
    clips_per_s: Chart
    median_clips_per_s: float
    data_wait: Chart
    mean_data_wait: float


def run_curves(metrics: Sequence[StepMetrics], baseline_loss: float = 1.0) -> RunCurves:
    """The curves of `metrics`, in the order of their steps, without skipped ones; ValueError where there is none.

    First steps far above the rest are clipped to the edge of the chart. The default of `baseline_loss` is that of
    predicting every patch's mean, for targets normalised to variance 1.
    """
    rows = sorted((row for row in metrics if not row.skipped), key=lambda row: row.step)
    if not rows:
        raise ValueError("the metrics hold no step; train at least one step before writing a report")
    steps = np.array([row.step for row in rows], dtype=np.float64)
    loss = np.array([row.loss for row in rows], dtype=np.float64)
    rate = np.array([row.clips_per_s for row in rows], dtype=np.float64)
    wait = np.array([row.data_wait_share for row in rows], dtype=np.float64)
    window = max(len(rows) // 50, 2) * 2 + 1
    edge = max(2 * baseline_loss, 1.5 * float(np.quantile(loss, 0.9)))
    chart = line_chart(steps, np.minimum(loss, edge), include=[baseline_loss], window=window)
    return RunCurves(
        steps=rows[-1].step,
        loss=chart,
        edge=edge if loss.max() > edge else None,
        window=window,
        last_loss=float(loss[-LAST_STEPS:].mean()),
        last_steps=min(LAST_STEPS, len(rows)),
        baseline_loss=baseline_loss,
        baseline_at=chart.y_at(baseline_loss),
        lr=_small(steps, np.array([row.lr for row in rows], dtype=np.float64), 0.0),
        clips_per_s=_small(steps, rate, 0.0),
        median_clips_per_s=float(np.median(rate)),
        data_wait=_small(steps, 100.0 * wait, 0.0, 100.0),
        mean_data_wait=float(wait.mean()),
    )


def _small(steps: Series, values: Series, *include: float) -> Chart:
    return line_chart(steps, values, include=include, x_ticks=4)
