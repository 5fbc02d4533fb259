"""An attempt that ends its process, or passes a limit, is blamed on its unit; whatever comes from outside is not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskstream.preprocess.executors.base import Attempt, Crashed, Finished, Restarted
from maskstream.preprocess.executors.local import LocalExecutor, Stopwatch
from maskstream.shards.errors import WorkerDiedError


def run(squares, *tasks, workers=1):
    return list(LocalExecutor(workers).run(squares.work, tasks))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("segfault", "killed its process by SIGSEGV"),
        ("exit", "ended its process with code 3"),
        ("hold", "took longer than 1 s"),
        ("again", "took longer than 1.5 s"),
        ("grow", "took more than 0.5 GB of memory"),
    ],
)
def test_a_unit_that_ends_its_process_is_blamed(squares, kind, reason):
    events = run(squares, squares.Number(kind, 3), squares.Number("", 4))
    blamed = [(event.unit, event.reason) for event in events if isinstance(event, Crashed)]
    assert blamed == [("unit 3", reason)] * 2
    assert not any(isinstance(event, Restarted) for event in events)
    finished = {event.record[0]: event.record[2] for event in events if isinstance(event, Finished)}
    assert finished == {9: (f"unit 3 {reason}",) * 2, 16: ()}


def test_sigkill_is_no_verdict(squares):
    with pytest.raises(WorkerDiedError, match=r"SIGKILL.*'unit 3'; 3.square was tried 3 times.*use fewer workers"):
        run(squares, squares.Number("killed", 3))


def test_a_task_that_does_not_leave_out_its_unit_ends_the_run(squares):
    with pytest.raises(WorkerDiedError, match=r"unit 3 killed its process by SIGSEGV, but was tried again"):
        run(squares, squares.Number("segfault", 3, obeys=False))


def test_an_attempt_within_its_limits_is_not_blamed(squares):
    [event] = [event for event in run(squares, squares.Number("slow", 3)) if not hasattr(event, "note")]
    assert isinstance(event, Finished)


def test_time_while_this_process_is_stopped_does_not_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = Stopwatch(Attempt("a", time_s=10), os.getpid())
    now[0] = 3600.0
    assert watch.passed() is None
    for _ in range(100):
        now[0] += 0.25
        passed = watch.passed()
    assert passed == "took longer than 10 s"


def test_time_without_a_processor_does_not_count(monkeypatch):
    now, waited = [0.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("maskstream.preprocess.executors.local._waited_s", lambda pid: waited[0])
    watch = Stopwatch(Attempt("a", time_s=10), 1)
    for _ in range(80):
        now[0] += 0.25
        waited[0] += 0.2
        assert watch.passed() is None
    for _ in range(40):
        now[0] += 0.25
        passed = watch.passed()
    assert passed == "took longer than 10 s"


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import local_work
from maskstream.preprocess.executors.local import LocalExecutor
for event in LocalExecutor(2).run(local_work.work, [local_work.Number("hold long", n) for n in range(2)]):
    print(event.task.number, flush=True)
"""


def test_processes_end_with_a_killed_parent(squares):
    """Even if they hang and hold the interpreter's lock, and without a word."""
    command = [sys.executable, "-c", PARENT, Path(squares.__file__).parent]
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        noted = sorted(process.stdout.readline() for _ in range(2))
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        start = time.monotonic()
        rest = process.stdout.read()  # ends when the last process that has it open does
        seconds = time.monotonic() - start
    assert (noted, rest) == (["0\n", "1\n"], "")
    assert seconds < max(2.0, start - begun), "on a machine that is busy it may take as long as it took to start"
