"""What processes of test_processes.py run."""

import gc
import os
import random
import sys
import time
from multiprocessing.connection import Connection


def tell(end):
    """Sends what the process has, and ends."""
    import numpy as np

    said = {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "env": os.environ.get("SAID"),
        "folder": os.getcwd(),
        "path": sys.path[0],
        "drawn": (float(np.random.random_sample()), random.random()),
        "cores": os.sched_getaffinity(0),
        "collects": (gc.isenabled(), gc.get_freeze_count() > 10_000),
        "pytest": "_pytest.runner" in sys.modules,
        "tabnanny": "tabnanny" in sys.modules,
    }
    print(f"written by {os.getpid()}", file=sys.stderr, flush=True)
    Connection(end.number).send(said)


def wait(end):
    """Sends its id, and goes on for long."""
    Connection(end.number).send((os.getpid(), os.getppid()))
    time.sleep(600)
