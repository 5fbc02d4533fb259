"""A loader's threads are its parallelism, so torch's operations in one of them must not spread over all cores."""

from __future__ import annotations

import threading

import torch


def compute_alone() -> None:
    """From now on torch's operations in this thread run in this thread; those of all other threads as before.

    torch keeps a number of threads for each thread that has computed, and one for those to come; setting the number
    changes both, so the second is put back from a thread of its own. Without this n loading threads make n pools of as
    many threads as there are cores.
    """
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(before,), name="maskstream-threads")
        other.start()
        other.join()
