"""Work in a fork that is killed at a step: before it publishes or deletes for the given time."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from maskstream.shards.stores import local_files, output


def killed_fork(number: int, work: Callable[[], object]) -> int:
    """The exit code of a fork that works, and is killed before step `number` if there are so many."""
    child = os.fork()
    if child == 0:
        left = iter(range(number))

        def step(real: Callable[[Path], None], folder: Path) -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            real(folder)

        for module in (output, local_files):
            module.sync_folder = partial(step, module.sync_folder)  # type: ignore[attr-defined]
        signal.alarm(60)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
