"""Work in a fork that is killed at a step: before it publishes or deletes for the given time."""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from maskstream.shards.stores import local_files, output

from .small_splits import contents


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


def check_every_kill(
    base: Path,
    change: Callable[[Path], object],
    *,
    steps: int,
    every: int = 1,
    read: Callable[[Path], object] = contents,
    after_kill: Callable[[Path], object] = lambda folder: None,
) -> Path:
    """Kills a change of copies of a folder before each step; made again, it ends in the files of an undisturbed one.

    Args:
        base: The folder, which stays as it is.
        change: What changes the folder that it is given.
        steps: Steps that the change has at least.
        every: Kill before one of so many steps.
        read: What to compare.
        after_kill: Checks what a killed change has left.

    Returns:
        The folder of the undisturbed change.
    """
    whole = shutil.copytree(base, base.parent / "whole" / base.name)
    change(whole)
    wanted, ended = read(whole), -signal.SIGKILL
    for number in range(0, 200, every):
        folder = shutil.copytree(base, base.parent / f"killed{number}" / base.name)
        ended = killed_fork(number, partial(change, folder))
        assert ended in (0, -signal.SIGKILL)
        if ended:
            after_kill(folder)
            change(folder)
        assert read(folder) == wanted, f"killed before step {number}"
        shutil.rmtree(folder.parent)
        if ended == 0:
            break
    assert ended == 0, "it has more steps"
    assert number > steps
    return whole
