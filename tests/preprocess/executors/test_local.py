"""Supervised processes: killed ones, errors, Ctrl-C, order of events."""

import os
import pickle
import time
from collections import Counter

import pytest

from maskstream.preprocess.executors.base import Finished, Progressed, Restarted
from maskstream.preprocess.executors.local import LocalExecutor
from maskstream.shards.errors import WorkerDiedError

from ...attacks.processes import workers_of


def run(squares, tasks, workers):
    """The events of squaring the numbers of `tasks` (what else happens, number)."""
    return LocalExecutor(workers).run(squares.work, [squares.Number(*task) for task in tasks])


def test_a_killed_process_costs_only_its_task(squares, tmp_path):
    tasks = [("", n) for n in range(5)]
    tasks[2] = (f"die once {tmp_path / 'flag'}", 2)
    events = list(run(squares, tasks, 2))
    finished = {event.task.number: event.record for event in events if isinstance(event, Finished)}
    assert {number: record[0] for number, record in finished.items()} == {n: n**2 for n in range(5)}
    [restarted] = [event for event in events if isinstance(event, Restarted)]
    assert restarted.task.number == 2
    assert "SIGKILL" in restarted.reason
    assert "at 2" in restarted.reason
    begun = Counter(event.task.number for event in events if isinstance(event, Progressed))
    assert begun == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}
    pids = {record[1] for record in finished.values()}
    assert os.getpid() not in pids
    assert len(pids) <= 3  # processes go on to the next task


def test_a_task_that_kills_every_process_ends_the_run(squares):
    with pytest.raises(WorkerDiedError, match=r"ended with code 7.*'at 1'.*tried 3 times"):
        list(run(squares, [("die", 1)], 1))


def test_errors_arrive_as_they_are(squares):
    with pytest.raises(OSError, match="No space left") as caught:
        list(run(squares, [("fail", 1)], 1))
    assert "local_work.py" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        list(run(squares, [("odd", 1)], 1))
    with pytest.raises(RuntimeError, match="Panic: of Rust"):
        list(run(squares, [("panic", 1)], 1))


def test_leaving_early_ends_the_processes(squares):
    events = run(squares, [("sleep", n) for n in range(2)], 2)
    assert isinstance(next(events), Progressed)
    start = time.monotonic()
    events.close()
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("tasks", [[lambda: 1], ["", lambda: 1], ["", "", lambda: 1]])
def test_a_task_that_cannot_be_sent_leaves_no_process(squares, tasks):
    before = {*workers_of(os.getpid())}  # servers of other tests' loaders
    with pytest.raises((pickle.PicklingError, AttributeError)) as caught:
        list(run(squares, [(kind, number) for number, kind in enumerate(tasks)], 2))
    assert "lambda" in str(caught.value)
    assert set(workers_of(os.getpid())) <= before


def test_in_this_process_and_nothing_to_do(squares):
    task = squares.Number("", 3)
    events = list(run(squares, [("", 3)], 0))
    assert events == [Progressed(task, "at 3"), Finished(task, (9, os.getpid(), ()))]
    assert list(run(squares, [], 2)) == []
