"""Trackers that send metrics to TensorBoard, Prometheus, OpenTelemetry, Weights & Biases and MLflow.

Each is a `Tracker`, which receives the numbers of a step; the tool's environment variables set its destination.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from maskstream.shards.config import Json

from .hook import Hook, StepEvent
from .metrics import StepMetrics

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""How often metrics.prom is written and metrics are sent to a collector."""


class Tracker(Protocol):
    """The interface for receiving the numbers of a run's steps."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the finite numbers of a step, counted from 1. A name may have a part: `loss/masked`.

        Args:
            step: Number of the step.
            numbers: Numbers by name.
        """

    def close(self) -> None:
        """Flush and close, so that the tool receives all numbers."""


class Trackers(Hook):
    """Sends the metrics of a run to trackers.

    A tracker that fails during the run is dropped with a warning, and the run continues.

    Args:
        run: Folder of the run.
        names: Names in `TRACKERS`.
        about: Description of the run, from run.json.
        step: Number of completed steps.

    Raises:
        ValueError: `check_trackers` fails, or a tool cannot start, for example without its key.
    """

    timed = ""

    def __init__(self, run: Path, names: Sequence[str], about: Json, step: int) -> None:
        self._open: dict[str, Tracker] = {}
        check_trackers(names)
        for name in dict.fromkeys(names):
            try:
                self._open[name] = TRACKERS[name](run.resolve(), about, step)
            except Exception as error:
                raise ValueError(f"{name} cannot start: {error} Fix this, or leave out --track {name}") from error

    def close(self) -> None:
        """Close all trackers."""
        for name in [*self._open]:
            self._try(name, self._open[name].close)

    def log(self, event: StepEvent, metrics: StepMetrics) -> None:
        """Add the numbers of a step.

        Args:
            event: The step, unused.
            metrics: Metrics of the step.
        """
        self.write(metrics)

    def write(self, metrics: StepMetrics) -> None:
        """Add the finite numbers of a step."""
        numbers = {name: value for name, value in _numbers(metrics).items() if value is not None}
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        for name in [*self._open]:
            self._try(name, partial(self._open[name].write, metrics.step, finite))

    def _try(self, name: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            self._open.pop(name, None)
            log.warning("%s receives no further metrics of this run: %s: %s", name, type(error).__name__, error)


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for an unknown name or a tool that is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}; choose from {', '.join(TRACKERS)}")
        try:
            found = importlib.util.find_spec(_MODULES[name])
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ValueError(f"{name} is not installed: pip install 'maskstream[{name}]', or leave out --track {name}")


def _numbers(metrics: StepMetrics) -> dict[str, float | None]:
    return {
        "epoch": metrics.epoch,
        "loss": metrics.loss,
        **{f"loss/{name}": value for name, value in metrics.parts.items()},
        "learning rate": metrics.lr,
        "gradient norm": metrics.grad_norm,
        "clips a second": metrics.clips_per_s,
        "waiting for data": metrics.data_wait_share,
        "goodput": metrics.goodput,
        "MFU": metrics.mfu,
        **{f"val/{name}": value for name, value in metrics.val.items()},
        **{f"spread/{name}": value for name, value in metrics.spread.items()},
        **{f"source {what}/{name}": value for name, own in metrics.sources.items() for what, value in own.items()},
        **{f"gradient norm/{name}": value for name, value in metrics.grad_norms.items()},
        **{f"seconds/{name}": value for name, value in metrics.seconds.items()},
        **{f"peak memory in GB/{name}": value / 1e9 for name, value in metrics.peak_bytes.items()},
    }


class _TensorBoard:
    """Event files in RUN/tensorboard. Steps that a restart repeats are written again and replace the earlier ones."""

    def __init__(self, run: Path, about: Json, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Prometheus:
    """RUN/metrics.prom, the last step in Prometheus's text format, for a node exporter's textfile collector. The file
    is replaced whole.
    """

    def __init__(self, run: Path, about: Json, step: int) -> None:
        from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

        self._path, self._labels = str(run / "metrics.prom"), {"run": run.name, "recipe": _recipe(about)}
        self._registry, self._gauge, self._publish = CollectorRegistry(), Gauge, write_to_textfile
        self._gauges: dict[str, Gauge] = {}
        self._next_s = 0.0

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in {"step": float(step), **numbers}.items():
            metric, part = format_metric_name(name)
            if metric not in self._gauges:
                words = name.partition("/")[0]
                names = (*self._labels, "part")
                self._gauges[metric] = self._gauge(metric, f"{words} of the last step", names, registry=self._registry)
            self._gauges[metric].labels(**self._labels, part=part).set(value)
        if time.monotonic() >= self._next_s:
            self._publish(self._path, self._registry)
            self._next_s = time.monotonic() + EVERY_S

    def close(self) -> None:
        self._publish(self._path, self._registry)


class _Otlp:
    """Gauges for an OpenTelemetry collector over HTTP, configured by OTEL_EXPORTER_OTLP_ENDPOINT and the like."""

    def __init__(self, run: Path, about: Json, step: int) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource

        told = {"service.name": "maskstream", "maskstream.run": run.name, "maskstream.recipe": _recipe(about)}
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=EVERY_S * 1000)
        self._provider = MeterProvider([reader], resource=Resource.create(told), shutdown_on_exit=False)
        self._meter = self._provider.get_meter("maskstream.train")
        self._set: dict[str, Callable[[float, Mapping[str, str]], None]] = {}

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in {"step": float(step), **numbers}.items():
            metric, part = format_metric_name(name)
            if metric not in self._set:
                self._set[metric] = self._meter.create_gauge(metric).set
            self._set[metric](value, {"part": part} if part else {})

    def close(self) -> None:
        self._provider.shutdown()


class _Wandb:
    """A run of Weights & Biases, in RUN/wandb, configured by variables such as WANDB_MODE=offline and WANDB_PROJECT."""

    def __init__(self, run: Path, about: Json, step: int) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "maskstream"),
            id=os.environ.get("WANDB_RUN_ID", _run_id(run)),
            name=run.name,
            dir=str(run),
            config=dict(about),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", disable_git=True, disable_code=True, silent=True),
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({"step": step, **numbers})

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI, by default RUN/mlflow.db; a restart continues it."""

    def __init__(self, run: Path, about: Json, step: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag

        self._metric = Metric
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run / 'mlflow.db'}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "maskstream")
        known = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if known is None else known.experiment_id
        own = _run_id(run)
        begun = self._client.search_runs([experiment], f"tags.`maskstream.run` = '{own}'", max_results=1)
        if begun:
            self._id = begun[0].info.run_id
            self._client.update_run(self._id, "RUNNING")
            return
        self._id = self._client.create_run(experiment, run_name=run.name).info.run_id
        told = [Param(key, str(value)[:500]) for key, value in about.items() if not isinstance(value, Mapping)]
        params = [*told, Param("recipe", _recipe(about))]
        self._client.log_batch(self._id, params=params, tags=[RunTag("maskstream.run", own)])

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        made = [self._metric(_UNNAMED.sub("_", name), value, now_ms, step) for name, value in numbers.items()]
        self._client.log_batch(self._id, metrics=made)

    def close(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: Mapping[str, Callable[[Path, Json, int], Tracker]] = {
    "tensorboard": _TensorBoard,
    "prometheus": _Prometheus,
    "otlp": _Otlp,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}
_MODULES = {
    "tensorboard": "tensorboard",
    "prometheus": "prometheus_client",
    "otlp": "opentelemetry.exporter.otlp.proto.http",
    "wandb": "wandb",
    "mlflow": "mlflow",
}
_UNNAMED = re.compile(r"[^\w\-. /]")


def format_metric_name(name: str) -> tuple[str, str]:
    """Return the Prometheus name of a metric, and its part, such as `("maskstream_gradient_norm", "encoder")`."""
    whole, _, part = name.partition("/")
    return f"maskstream_{re.sub(r'[^a-z0-9]+', '_', whole.lower())}", part


def _run_id(run: Path) -> str:
    """Return a unique id of a run for tools that store many runs; it is unchanged after a restart."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', run.name)[:40]}-{hashlib.sha256(str(run).encode()).hexdigest()[:12]}"


def _recipe(about: Json) -> str:
    recipe = about.get("recipe")
    return str(recipe.get("name", "")) if isinstance(recipe, Mapping) else ""
