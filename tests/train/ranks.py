"""Several ranks of a training on this machine, as torchrun would start them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from runpy import run_path

import torch

from ..attacks.kills import FORKS
from ..ports import free_ports

LIMIT_S = 300
"""A hang ends in TimeoutExpired. A machine that is busy takes minutes for two ranks."""


def ended(words, number, limit_s=LIMIT_S):
    """Runs Python with these words as each of the ranks. Returns their exit codes and what they wrote."""
    [port] = free_ports(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(number), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(number)
    ]
    try:
        outputs = [process.communicate(timeout=limit_s)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [process.returncode for process in started], "\n".join(outputs)


def forked(script, arguments, number):
    """The same of a script, in forks of a warm process, which spare the imports of each rank. They end without what
    Python does at an exit.
    """
    [port] = free_ports(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(number), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, str(rank)) for rank in range(number)]
        started = [
            FORKS.Process(target=_as_rank, args=([str(script), *map(str, arguments)], path, env))
            for path, env in ((files[rank], {**os.environ, **place, "RANK": str(rank)}) for rank in range(number))
        ]
        try:
            for process in started:
                process.start()
            for process in started:
                process.join(LIMIT_S)
                assert process.exitcode is not None, f"the ranks hang: {[path.read_text() for path in files]}"
        finally:
            for process in started:
                process.kill()
                process.join()
        return [process.exitcode for process in started], "\n".join(path.read_text() for path in files)


def _as_rank(words, path, env):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(1)
    sys.argv = words
    run_path(words[0], run_name="__main__")
