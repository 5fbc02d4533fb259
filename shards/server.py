"""What the server of worker processes (forked.py) imports first: it readies the server, and each fork of it."""

import atexit
import ctypes
import gc
import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PARENT, _SERVER = os.getppid(), os.getpid()


def _begin_fork() -> None:
    """A process ends with its server, whatever it does, and draws its own random numbers."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != _SERVER:
        os._exit(1)
    gc.enable()
    if (random := sys.modules.get("numpy.random")) is not None:
        random.set_state(random.RandomState().get_state())


def _remove_socket() -> None:
    """Removes the server's socket, with its folder, after a parent that was killed; another does so itself."""
    address = vars(forkserver)["_forkserver"]._forkserver_address
    until = time.monotonic() + 1  # the files of a process that ends are closed before it is gone
    while os.getppid() == _PARENT:
        if time.monotonic() > until:
            return
        time.sleep(0.02)
    with suppress(OSError, TypeError):
        Path(address).unlink()
        Path(address).parent.rmdir()


gc.disable()  # what is imported from now on stays
os.register_at_fork(before=gc.freeze, after_in_child=_begin_fork)  # a collection would write to memory that is shared
atexit.register(_remove_socket)
