"""Run tasks on a Ray cluster, of this machine or of many.

Each task of a job is a plain Ray task. On its node it runs in a supervised process, as with `LocalExecutor`, so a crash
is attributed to the source that caused it and never reaches Ray. Ray repeats tasks lost with a node. Every node needs
the same package and must reach the job's files under the same paths.
"""

import importlib.util
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from maskstream.shards.errors import MainModuleError, WorkerDiedError
from maskstream.shards.process_main import unpickle
from maskstream.shards.processes import dumps, make_picklable

from .base import Event, Finished, Progressed, RecordT, TaskT, Work
from .local import LocalExecutor

NODE_RETRIES = 2
"""How often Ray repeats a task whose node or Ray worker died."""
AHEAD = 2
"""Tasks submitted to Ray at a time, per CPU of the cluster."""
_KEEPALIVE = {"RAY_grpc_client_keepalive_time_ms": "10000", "RAY_grpc_client_keepalive_timeout_ms": "5000"}
"""With Ray's defaults, a node that vanishes from the network is noticed only after 7 minutes. The processes of an
existing cluster must start with these variables in their environment.
"""
_STORE_BYTES = 100 << 20
"""Size of Ray's object store; tasks and records are small."""


@dataclass(frozen=True, slots=True)
class RayExecutor:
    """Runs tasks in the Ray cluster at `address`.

    If this process is already connected to a cluster, that cluster is used. A task's notes arrive when it has finished.

    Args:
        address: "auto", "host:port", "ray://host:port", or "local" for a cluster on this machine that ends with the
            run. None reads $RAY_ADDRESS, or else is "local".

    Raises:
        ValueError: Ray is not installed.
        ConnectionError: There is no cluster at the address.
        WorkerDiedError: Ray loses a task `NODE_RETRIES + 1` times.
    """

    address: str | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ValueError("RayExecutor needs Ray: pip install 'maskstream[ray]'")

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """Yield the events of all tasks as they happen. Closing the generator cancels the running tasks."""
        import ray

        if not tasks:
            return
        if ray.is_initialized():
            yield from _yield_events(ray, work, tasks, cancels=True)
            return
        with _connect_cluster(ray, self.address or os.environ.get("RAY_ADDRESS", "local")):
            yield from _yield_events(ray, work, tasks, cancels=False)


@contextmanager
def _connect_cluster(ray: ModuleType, address: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _KEEPALIVE}
    os.environ.update({name: value for name, value in _KEEPALIVE.items() if before[name] is None})
    own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES} if address == "local" else {}
    try:
        with _restore_signals():
            ray.init(address=address, log_to_driver=False, configure_logging=False, **own)
        yield
    finally:
        ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


@contextmanager
def _restore_signals() -> Iterator[None]:
    """Restore the SIGTERM handler, which Ray replaces, so that SIGTERM still ends a command like Ctrl-C."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _yield_events(
    ray: ModuleType, work: Work[TaskT, RecordT], tasks: Sequence[TaskT], cancels: bool
) -> Generator[Event[TaskT, RecordT], None, None]:
    """Yield the events of all tasks.

    With `cancels`, tasks still running at the end are cancelled one by one. A connection of our own does not need that,
    since closing it ends its tasks, and Ray 2.60 may abort a process that cancels a task as it begins.
    """
    remote = ray.remote(_supervise_task).options(num_cpus=1, max_retries=NODE_RETRIES)
    waiting, running = deque(tasks), dict[Any, TaskT]()
    try:
        while waiting or running:
            room = AHEAD * int(ray.cluster_resources().get("CPU", 1)) - len(running)
            for _ in range(min(max(room, 0 if running else 1), len(waiting))):
                task = waiting.popleft()
                running[remote.remote(_sent((work, task)), os.getcwd(), sys.path)] = task
            [ref], _ = ray.wait(list(running))
            yield from _receive_events(ray, ref, running.pop(ref))
    finally:
        for ref in running if cancels else ():
            with suppress(Exception):
                ray.cancel(ref, force=True)


def _receive_events(ray: ModuleType, ref: Any, task: TaskT) -> list[Event[TaskT, RecordT]]:
    """Return the events of a finished task. Raises the exception of its work."""
    try:
        events, failed = ray.get(ref)
    except ray.exceptions.RayError as lost:
        raise WorkerDiedError(
            f"{task.name}: Ray lost it {NODE_RETRIES + 1} times: {lost}. Fix whatever ended its nodes or workers "
            "(when memory runs out, Ray kills workers: set a memory limit, so that a file that needs too much "
            "memory is rejected); then run the same command again to continue"
        ) from lost
    if failed is not None:
        error, node = failed
        error.add_note(f"on the node {node}")
        raise error
    received: list[Event[TaskT, RecordT]] = events
    return received


def _sent(value: tuple[Work[TaskT, RecordT], TaskT]) -> bytes:
    data, names = dumps(value)
    if names:
        raise MainModuleError(
            f"the nodes of a Ray cluster cannot import {', '.join(names)} from the main module; put it into a "
            "separate module"
        )
    return data


def _supervise_task(sent: bytes, folder: str, path: list[str]) -> tuple[list[object], tuple[Exception, str] | None]:
    """Run a task on a node in a supervised process.

    Args:
        sent: Serialized work and task.
        folder: Working directory of the driver.
        path: Module search path of the driver.

    Returns:
        The task's events, and the exception of its work with its traceback, or None.
    """
    events: list[object] = []
    with suppress(OSError):  # without that folder, the job's paths must be absolute
        os.chdir(folder)
    sys.path += [entry for entry in path if entry not in sys.path]
    try:
        work, task = unpickle(sent)
        for event in LocalExecutor(1).run(work, [task]):
            if isinstance(event, Finished) or not (isinstance(event, Progressed) and event.note):
                events.append(event)
    except Exception as error:
        if not getattr(error, "__notes__", None):
            error.add_note(traceback.format_exc())
        return events, (make_picklable(error), os.uname().nodename)
    return events, None
