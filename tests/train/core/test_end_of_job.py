"""A scheduler's SIGTERM reaches every process of a job: the run still ends with a checkpoint, and nothing stays."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("until_told.py")
LIMIT_S = 300


@contextmanager
def job(*command):
    """A process with a session of its own; what it started, also in other sessions, is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        for pid in _descendants(process.pid) if process.poll() is None else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def in_session(leader):
    """The processes of a session that are alive, by their id."""
    stats = [path.read_text().rsplit(")", 1) for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return [int(head.split()[0]) for head, rest in stats if int(rest.split()[3]) == leader and rest.split()[0] != "Z"]


def steps_logged(out):
    path = out / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition, otherwise):
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, otherwise
        time.sleep(0.05)


def wait_for_steps(out, number):
    wait_for(lambda: len(steps_logged(out)) >= number, "it does not train")


def saved_step(out):
    newest = max((out / "checkpoints").glob("step-*"))
    return json.loads((newest / "state.json").read_text())["step"]


@pytest.mark.parametrize(
    "steps",
    [pytest.param(steps, marks=pytest.mark.slow) for steps in (0, 3)],
    ids=["while workers start", "while they work"],
)
def test_sigterm_to_the_whole_group_ends_with_a_checkpoint(eleven, tmp_path, steps):
    with job(SCRIPT, eleven, tmp_path, 2) as process:
        assert process.stdout.readline() == "workers\n"
        wait_for_steps(tmp_path, steps)
        for _ in range(2):
            os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, output) == (0, "")
        assert saved_step(tmp_path) == len(steps_logged(tmp_path)) >= max(steps, 1)
        wait_for(lambda: not in_session(process.pid), "processes stay")


@pytest.mark.slow
def test_sigterm_to_all_processes_of_a_torchrun_job_ends_with_a_checkpoint(eleven, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    with job(*launcher, SCRIPT, eleven, tmp_path, 1) as process:
        assert process.stdout.readline() == "workers\n"
        wait_for_steps(tmp_path, 3)
        everyone = _descendants(process.pid)
        assert len(everyone) >= 5, "the launcher, two ranks, and a worker of each"
        for pid in everyone:
            os.kill(pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=LIMIT_S)
        assert "Traceback" not in output.split("SignalException")[0].split("torch/distributed")[0], output
        assert saved_step(tmp_path) == len(steps_logged(tmp_path)) >= 3
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone), "processes stay")


def _descendants(pid):
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        children = Path(f"/proc/{found[-1]}/task/{found[-1]}/children")
        todo += map(int, children.read_text().split())
    return found
