"""Metrics as the tools that others use read them back, each by the tool's own reader."""

import http.server
import logging
import math
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from maskstream.train.core.metrics import StepMetrics
from maskstream.train.core.trackers import TRACKERS, Trackers, check_trackers, format_metric_name

ABOUT = {"recipe": {"name": "tiny"}, "seed": 3, "steps": 10}


def metrics(step: int, **other: object) -> StepMetrics:
    given = {"loss": 1 / step, "parts": {"masked": 1.0}, "grad_norms": {"encoder": 2.0}, **other}
    return StepMetrics(
        step=step, epoch=0, lr=1e-3, grad_norm=math.nan, clips_per_s=8.0, data_wait_share=0.1, mfu=None, **given
    )


def write(run: Path, tool: str, *steps: int, before: int = 0) -> None:
    with closing(Trackers(run, [tool], ABOUT, before)) as trackers:
        for step in steps:
            trackers.write(metrics(step))


def test_tensorboard(tmp_path: Path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(tmp_path, "tensorboard", 1, 2)
    found = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    names = set(found.Tags()["scalars"])
    assert {"loss/masked", "learning rate", "gradient norm/encoder", "clips a second"} <= names
    assert not {"MFU", "gradient norm"} & names  # they are not known, and not finite


def test_prometheus(tmp_path: Path):
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    run = tmp_path / 'a "run"\\of\nmine'
    run.mkdir()
    write(run, "prometheus", 1, 2)
    families = parser.text_string_to_metric_families((run / "metrics.prom").read_text())
    found = {(s.name, s.labels["part"]): s for family in families for s in family.samples}
    assert found["maskstream_loss", ""].value == 0.5
    assert found["maskstream_loss", "masked"].value == 1
    assert found["maskstream_gradient_norm", "encoder"].value == 2
    assert found["maskstream_step", ""].labels == {"run": run.name, "recipe": "tiny", "part": ""}
    assert [path.name for path in run.iterdir()] == ["metrics.prom"]


def test_a_collector_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="OpenTelemetry is not installed")
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    got: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        write(tmp_path, "otlp", 1, 2)
        server.shutdown()
    [resource] = ExportMetricsServiceRequest.FromString(got[-1]).resource_metrics
    told = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert told["maskstream.run"] == tmp_path.name
    assert told["maskstream.recipe"] == "tiny"
    points = {
        (metric.name, *(a.value.string_value for a in point.attributes)): point.as_double
        for metric in resource.scope_metrics[0].metrics
        for point in metric.gauge.data_points
    }
    assert points["maskstream_loss",] == 0.5
    assert points["maskstream_loss", "masked"] == 1
    assert points["maskstream_step",] == 2


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, behind W&B's 7 bytes: blocks of 32 KiB, each of parts with a
    checksum, a length and whether the part is whole (1), the first (2), a middle (3) or the last (4) of a record.
    """
    at, record = 7, b""
    while at + 7 <= len(data):
        _, size, kind = struct.unpack_from("<IHB", data, at)
        if (1 << 15) - at % (1 << 15) < 7 or kind == 0:
            at += (1 << 15) - at % (1 << 15)
            continue
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield record
            record = b""


@pytest.mark.slow  # it starts a process
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    write(tmp_path, "wandb", 1, 2)
    [path] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows, config, kinds = [], {}, set[str]()
    deadline = time.monotonic() + 60
    while "exit" not in kinds and time.monotonic() < deadline:  # its service writes on for a moment
        time.sleep(0.2)
        records = [wandb_internal_pb2.Record.FromString(data) for data in leveldb_records(path.read_bytes())]
        kinds = {record.WhichOneof("record_type") for record in records}
        steps = [record.history.item for record in records if record.HasField("history")]
        rows = [{"/".join(item.nested_key): item.value_json for item in step} for step in steps]
        told = [record.run.config.update for record in records if record.HasField("run")]
        config = {item.key: item.value_json for items in told for item in items}
    assert [(row["step"], float(row["loss"])) for row in rows] == [("1", 1.0), ("2", 0.5)]
    assert config["seed"] == "3"


@pytest.mark.slow  # its import takes seconds
@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_a_folder_and_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write(tmp_path, "mlflow", 1, 2)
    write(tmp_path, "mlflow", 3, before=2)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("maskstream")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe"] == "tiny"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((one.step, one.value) for one in history) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_a_tracker_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    written: list[int] = []

    class Failing:
        def __init__(self, *given: object) -> None: ...

        def write(self, step: int, numbers: object) -> None:
            written.append(step)
            raise ConnectionError("the server is gone")

        def close(self) -> None:
            raise AssertionError("it was left out")

    monkeypatch.setitem(TRACKERS, "tensorboard", Failing)
    with caplog.at_level(logging.WARNING):
        write(tmp_path, "tensorboard", 1, 2)
    assert written == [1]
    assert "tensorboard receives no further metrics of this run: ConnectionError: the server is gone" in caplog.text


def test_errors_say_what_is_legal(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ValueError, match=r"unknown tracker 'wandbb'; choose from tensorboard, prometheus, otlp, wandb, mlflow"
    ):
        check_trackers(["wandbb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'maskstream\[mlflow\]', or leave out --track mlflow"):
        check_trackers(["mlflow"])


def test_a_tool_that_cannot_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def begin(*given: object) -> None:
        raise PermissionError("no key.")

    monkeypatch.setitem(TRACKERS, "tensorboard", begin)
    with pytest.raises(
        ValueError, match=r"tensorboard cannot start: no key\. Fix this, or leave out --track tensorboard"
    ):
        Trackers(tmp_path, ["tensorboard"], ABOUT, 0)


def test_names_of_metrics():
    assert format_metric_name("peak memory in GB/host") == ("maskstream_peak_memory_in_gb", "host")
    assert format_metric_name("MFU") == ("maskstream_mfu", "")
