"""What the processes of test_local.py do; a module of its own, so that they can import it."""

import os
import signal
import time
from pathlib import Path


def work(task, report):
    """Square a number; what else happens depends on the task (flag, number)."""
    kind, number = task
    report(f"at {number}")
    if isinstance(kind, str) and kind.startswith("die once "):
        flag = Path(kind.removeprefix("die once "))
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if kind == "die":
        os._exit(7)
    if kind == "fail":
        raise OSError(28, "No space left on device")
    if kind == "odd":
        raise OddError(1, 2)
    if kind == "sleep":
        time.sleep(60)
    return number**2, os.getpid()


class OddError(Exception):
    """Built in a way that pickle cannot repeat."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
