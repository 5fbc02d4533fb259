import json

from maskstream.train.core.metrics import MetricsLog, StepMetrics, read_metrics
from maskstream.train.core.progress import TrainProgress


def metrics(step):
    speed = {"clips_per_s": 8.0, "data_wait_share": 0.25}
    return StepMetrics(step=step, epoch=0, loss=1 / step, parts={"a": 2 / step}, lr=0.1, grad_norm=2.0, **speed)


def test_one_line_of_json_a_step(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(metrics(1))
    log.write(metrics(2))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert json.loads(lines[0]).keys() == {
        *("step", "epoch", "loss", "parts", "lr", "grad_norm", "clips_per_s", "data_wait_share"),
    }
    assert read_metrics(tmp_path / "metrics.jsonl") == [metrics(1), metrics(2)]
    log.close()


def test_a_resume_drops_the_steps_that_it_will_do_again_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsLog(path)
    for step in range(1, 6):
        first.write(metrics(step))
    first.close()
    with open(path, "a") as file:
        file.write('{"step": 6, "lo')
    assert [m.step for m in read_metrics(path)] == [1, 2, 3, 4, 5]
    second = MetricsLog(path, step=3)
    second.write(metrics(4))
    second.close()
    assert read_metrics(path) == [metrics(1), metrics(2), metrics(3), metrics(4)]


def test_a_log_without_a_path_writes_nothing(tmp_path):
    log = MetricsLog(None)
    log.write(metrics(1))
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys):
    with TrainProgress("run", step=0, steps=3) as progress:
        for step in (1, 2, 3):
            progress.update(metrics(step))
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "run step 1/3  loss 1.0000  8.0 samples/s  25% waiting for data"
    assert shown[-1].startswith("run step 3/3  loss 0.6111")
    assert len(shown) == 2


def test_hidden_progress_is_silent(capsys):
    with TrainProgress("run", step=0, steps=1, shown=False) as progress:
        progress.update(metrics(1))
    assert capsys.readouterr().err == ""
