"""Keep torch's operations in a loading thread on that thread: the loader parallelises over samples already."""

from __future__ import annotations

import threading

import torch


def compute_alone() -> None:
    """Limits torch's operations in the calling thread to one thread; other threads keep their setting.

    torch keeps a thread count per thread, and a default for new threads. `set_num_threads` changes both, so another
    thread restores the default. Without this, n loading threads would start n pools of one thread per core.
    """
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(before,), name="maskstream-threads")
        other.start()
        other.join()
