"""Supervised processes: killed ones, errors, Ctrl-C, order of events."""

import importlib
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from maskstream.preprocess.executors.local import Finished, Progressed, Restarted, WorkerDiedError, run_local


@pytest.fixture
def work(monkeypatch):
    """Squares a number; what else happens depends on the task (what, number)."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("local_work").work


def test_a_killed_process_costs_only_its_task(work, tmp_path):
    tasks = [("", n) for n in range(5)]
    tasks[2] = (f"die once {tmp_path / 'flag'}", 2)
    events = list(run_local(work, tasks, workers=2))
    finished = {event.task: event.result for event in events if isinstance(event, Finished)}
    assert {task[1]: result[0] for task, result in finished.items()} == {n: n**2 for n in range(5)}
    [restarted] = [event for event in events if isinstance(event, Restarted)]
    assert restarted.task == tasks[2]
    assert "SIGKILL" in restarted.reason
    assert "at 2" in restarted.reason
    begun = Counter(event.task[1] for event in events if isinstance(event, Progressed))
    assert begun == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}
    pids = {result[1] for result in finished.values()}
    assert os.getpid() not in pids
    assert len(pids) <= 3  # processes go on to the next task


def test_a_task_that_kills_every_process_ends_the_run(work):
    with pytest.raises(WorkerDiedError, match=r"ended with code 7.*'at 1'.*tried 3 times"):
        list(run_local(work, [("die", 1)], workers=1))


def test_errors_arrive_as_they_are(work):
    with pytest.raises(OSError, match="No space left") as caught:
        list(run_local(work, [("fail", 1)], workers=1))
    assert "local_work.py" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        list(run_local(work, [("odd", 1)], workers=1))


def test_leaving_early_ends_the_processes(work):
    events = run_local(work, [("sleep", n) for n in range(2)], workers=2)
    assert isinstance(next(events), Progressed)
    start = time.monotonic()
    events.close()
    assert time.monotonic() - start < 30


def test_in_this_process_and_nothing_to_do(work):
    events = list(run_local(work, [("", 3)], workers=0))
    assert events == [Progressed(("", 3), "at 3"), Finished(("", 3), (9, os.getpid()))]
    assert list(run_local(work, [], workers=2)) == []
