"""Processes that are forked from a server see what spawned ones see, and a server may be killed at any moment."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from maskstream.shards import processes
from maskstream.shards.descriptors import Descriptor
from maskstream.shards.processes import Process

from .process_tasks import tell, wait

PARENT = """
import sys, time
from multiprocessing import Pipe
from maskstream.shards.descriptors import Descriptor
from maskstream.shards.processes import Process
from tests.shards.process_tasks import wait
ours, theirs = Pipe()
process = Process(wait, Descriptor(theirs.fileno()), fork=True)
process.start()
print(*ours.recv(), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def ends():
    """Ends the processes of a test, and its server."""
    with ExitStack() as stack:
        yield stack
    processes._SERVERS.forget()


def started(ends, target, also=()):
    """A process, and the first thing that it sends."""
    ours, theirs = Pipe()
    with theirs:
        process = Process(target, Descriptor(theirs.fileno()), fork=True, also=also)
        process.start()
    ends.callback(process.kill)
    assert ours.poll(60)
    return process, ours.recv()


def gone(pid, within_s=30.0):
    """Whether the process ends in time; one that ended and waits for its parent counts."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_forks_see_what_has_changed_since_the_server_started(ends, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "")
    _, first = started(ends, tell)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    np.random.random_sample()
    _, second = started(ends, tell)
    assert second["ppid"] == first["ppid"] != os.getpid()
    assert (second["folder"], second["path"]) == (str(tmp_path), str(tmp_path))
    assert all(one != other for one, other in zip(first["drawn"], second["drawn"], strict=True))
    assert not first["pytest"]
    assert second["collects"] == (True, True)  # and what is shared with the server is left alone
    assert f"written by {second['pid']}" in capfd.readouterr().err
    monkeypatch.setenv("SAID", "now")
    _, third = started(ends, tell)
    assert third["ppid"] != first["ppid"]
    assert (first["env"], third["env"]) == (None, "now")


def test_what_some_processes_need_is_imported_by_a_server_of_theirs(ends, monkeypatch):
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "")
    ends.callback(processes._SERVERS.forget, ("tabnanny",))
    said = [started(ends, tell, also)[1] for also in ((), ("tabnanny",), (), ("tabnanny",))]
    assert [one["tabnanny"] for one in said] == [False, True, False, True]
    assert said[0]["ppid"] == said[2]["ppid"] != said[1]["ppid"] == said[3]["ppid"]


def test_a_server_that_is_killed_ends_its_processes_and_the_next_has_another(ends):
    process, (pid, server) = started(ends, wait)
    os.kill(server, signal.SIGKILL)
    process.join(30)
    assert gone(pid)
    assert process.exitcode == -signal.SIGKILL
    _, (_, other) = started(ends, wait)
    assert other != server


def test_a_server_that_does_not_answer_is_replaced(ends, monkeypatch, caplog):
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "")
    process, (pid, server) = started(ends, wait)
    os.kill(server, signal.SIGSTOP)
    monkeypatch.setattr(processes, "_SERVER_START_S", 0.2)
    ours, theirs = Pipe()
    with theirs:
        other = Process(wait, Descriptor(theirs.fileno()), fork=True)
        other.start()  # by a new server, or spawned if that takes longer too
    ends.callback(other.kill)
    assert ours.poll(60)
    assert ours.recv()[1] != server
    assert "starting a new one" in caplog.text
    process.join(30)
    assert gone(pid)


def test_processes_are_spawned_where_they_cannot_be_forked(ends, monkeypatch):
    monkeypatch.setattr(processes, "_can_fork", lambda: False)
    _, said = started(ends, tell)
    assert said["ppid"] == os.getpid()


def test_all_end_with_a_parent_that_is_killed_and_leave_no_file(tmp_path):
    env = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=env)
    pid, server = map(int, parent.stdout.readline().split())
    parent.kill()
    parent.communicate()
    assert gone(pid)
    assert gone(server)
    assert [*tmp_path.iterdir()] == []
