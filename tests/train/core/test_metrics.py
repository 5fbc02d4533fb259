import errno
import io
import json
import os
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from maskstream.shards.errors import ResumeError, StoreError
from maskstream.shards.progress import SILENT, ProgressBar
from maskstream.train.core.metrics import MetricsLog, StepMetrics, TrainProgress, read_metrics
from maskstream.train.core.weights import NO_BYTES, FileSum, RunFileError


def metrics(step):
    speed = {"clips_per_s": 8.0, "data_wait_share": 0.25}
    return StepMetrics(step=step, epoch=0, loss=1 / step, parts={"a": 2 / step}, lr=0.1, grad_norm=2.0, **speed)


def logged(path, steps):
    """A log of some steps, closed, and the sum of its lines."""
    log = MetricsLog(path)
    log.begin_after(NO_BYTES)
    with log:
        for step in steps:
            log.write(metrics(step))
        return log.logged()


def test_one_line_of_json_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = logged(path, [1, 2])
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert json.loads(lines[0]).keys() == {
        *("step", "epoch", "loss", "parts", "lr", "grad_norm", "clips_per_s", "data_wait_share"),
        *("goodput", "flops", "mfu", "skipped", "val", "grad_norms", "seconds", "spread", "peak_bytes", "sources"),
    }
    assert read_metrics(path) == [metrics(1), metrics(2)]
    assert whole == FileSum.of(path.read_bytes())


@pytest.mark.parametrize("tail", [b'{"step": 6, "lo', b"\0" * 5000, b"\xff\xfe\n", b"{}\n"])
def test_a_resume_drops_the_steps_that_it_will_do_again_and_what_no_step_wrote(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    three = logged(path, [1, 2, 3])
    begun = path.read_bytes()
    logged(path, [1, 2, 3, 4, 5])
    with open(path, "ab") as file:
        file.write(tail)
    again = MetricsLog(path)
    again.begin_after(three)
    assert path.read_bytes() == begun
    with again:
        again.write(metrics(4))
        assert again.logged() == FileSum.of(path.read_bytes())
    assert read_metrics(path) == [metrics(1), metrics(2), metrics(3), metrics(4)]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-1], "bytes, but was written with"),
        (lambda data: b"", "has 0 bytes"),
        (lambda data: data.replace(b"0.5", b"0.4"), "does not have the contents"),
    ],
    ids=["cut", "empty", "edited"],
)
def test_a_log_that_does_not_begin_as_it_was_written_is_refused_and_left_alone(tmp_path, damage, says):
    path = tmp_path / "metrics.jsonl"
    three = logged(path, [1, 2, 3])
    path.write_bytes(damaged := damage(path.read_bytes()))
    with pytest.raises(RunFileError, match=f"metrics.jsonl has.*{says}|metrics.jsonl {says}"):
        MetricsLog(path).begin_after(three)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 300,
        b"\0" * 300 + b"\n",
        b"\xff\xfe\x00\n",
        b"[" * 100_000 + b"\n",
        b"[1]\n",
        b"7\n",
        b"{}\n",
        b'{"step": "x"}\n',
        json.dumps(asdict(metrics(4))).encode() + b"\n",
        json.dumps({**asdict(metrics(3)), "loss": None}).encode() + b"\n",
        json.dumps({**asdict(metrics(3)), "parts": [1]}).encode() + b"\n",
        json.dumps({**asdict(metrics(3)), "more": 1}).encode() + b"\n",
        json.dumps({**asdict(metrics(3)), "loss": 10**400}).encode() + b"\n",
        json.dumps({**asdict(metrics(3)), "loss": float("nan")}).encode() + b"\n",
    ],
    ids=range(14),
)
def test_reading_ends_before_damage_and_says_so(tmp_path, caplog, line):
    path = tmp_path / "metrics.jsonl"
    logged(path, [1, 2])
    path.write_bytes(path.read_bytes() + line + json.dumps(asdict(metrics(3))).encode() + b"\n")
    assert read_metrics(path) == [metrics(1), metrics(2)]
    assert "metrics.jsonl is damaged in line 3; the 2 steps before it are used" in caplog.text


def test_reading_while_a_line_is_written_is_silent(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    logged(path, [1, 2])
    whole = path.read_bytes()
    for size in range(len(whole) // 2, len(whole)):
        path.write_bytes(whole[:size])
        assert read_metrics(path) == [metrics(1)]
    assert caplog.text == ""


def test_a_full_disk_is_an_error_that_leaves_whole_lines(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.begin_after(NO_BYTES)
    with log:
        log.write(metrics(1))
        write = log._file.write
        sizes = iter([10, None])

        def full(data):
            if (size := next(sizes)) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(bytes(data)[:size])

        monkeypatch.setattr(log, "_file", SimpleNamespace(write=full, close=log._file.close, fileno=log._file.fileno))
        with pytest.raises(StoreError, match=r"not enough space to write .*metrics.jsonl"):
            log.write(metrics(2))
        assert log.logged() == FileSum.of(path.read_bytes())
    assert read_metrics(path) == [metrics(1)]


def test_a_log_that_another_run_has_written_into_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.begin_after(NO_BYTES)
    logged(path, [1, 2])
    with pytest.raises(ResumeError, match="another run has written to this folder"), log:
        pass


def test_a_log_without_a_path_writes_nothing(tmp_path):
    log = MetricsLog(None)
    log.begin_after(NO_BYTES)
    with log:
        log.write(metrics(1))
        assert log.logged() == NO_BYTES
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown_with_the_figures_of_the_last_steps() -> None:
    said = io.StringIO()
    with TrainProgress(ProgressBar(Console(file=said, width=40)), "run", step=40, steps=62) as progress:
        for step in (*range(41, 50), *range(45, 63)):  # it went back to a checkpoint
            progress.update(replace(metrics(step), val={"accuracy": 0.5} if step == 62 else {}))
    begun, scores, ended = said.getvalue().splitlines()
    assert (begun, scores) == ("run", "step 62: accuracy 0.5")
    assert ended.startswith("run: 62 of 62 steps; ")
    assert ended.endswith("; loss 0.0190; 8.0 samples/s; 25% waiting for data")


def test_silent_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress(SILENT, "run", step=0, steps=1) as progress:
        progress.update(metrics(1))
    assert capsys.readouterr().err == ""
