"""Runs tasks in a Ray cluster, of this machine alone or of many.

A task of a job is a plain Ray task. On its node a supervised process runs it, as `LocalExecutor` does, so what one
source does to a process is blamed on that source and never reaches Ray. Ray repeats what a node loses when it dies.
Every node needs the same package, and reaches the files of the job under the same names.
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
"""How often Ray repeats a task whose node, or whose Ray worker, died."""
AHEAD = 2
"""Tasks that Ray has at a time, per processor of the cluster."""
_KEEPALIVE = {"RAY_grpc_client_keepalive_time_ms": "10000", "RAY_grpc_client_keepalive_timeout_ms": "5000"}
"""With Ray's own values, a node that vanishes from the network is missed after 7 minutes. The processes of a cluster
that is there already must have them in their environment when they start.
"""
_STORE_BYTES = 100 << 20
"""Of Ray's own memory for objects: tasks and records are small."""


@dataclass(frozen=True, slots=True)
class RayExecutor:
    """Runs tasks in the cluster at `address` ("auto", "host:port" or "ray://host:port"); "local" is a cluster of this
    machine, which ends with the run. By default it is $RAY_ADDRESS, or else "local". A cluster to which the caller's
    process is connected already is used as it is.

    Notes of a task arrive when it is finished. Raises ValueError without Ray, ConnectionError if there is no cluster at
    the address, and WorkerDiedError if Ray loses a task `NODE_RETRIES + 1` times.
    """

    address: str | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ValueError("RayExecutor needs Ray: pip install 'maskstream[ray]'")

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """Yield the events of all tasks as they happen; closing the generator cancels the running tasks."""
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
    """Undo what Ray does to SIGTERM, which ends a command like Ctrl-C."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _yield_events(
    ray: ModuleType, work: Work[TaskT, RecordT], tasks: Sequence[TaskT], cancels: bool
) -> Generator[Event[TaskT, RecordT], None, None]:
    """The events of all tasks. With `cancels`, tasks that still run at the end are cancelled one by one. A connection
    of our own needs none of that: its end ends its tasks, and Ray 2.60 may abort a process that cancels one as it
    begins.
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
    """The events of a task that has ended. Raises the error of its work."""
    try:
        events, failed = ray.get(ref)
    except ray.exceptions.RayError as lost:
        raise WorkerDiedError(
            f"{task.name}: Ray lost it {NODE_RETRIES + 1} times: {lost}. Mend what ended its nodes or workers (when "
            "memory runs out, Ray kills workers: set a memory limit, so that a file that needs too much becomes a "
            "reject); then run the same command again, which continues"
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
            f"the nodes of a Ray cluster cannot import {', '.join(names)} of the main module: put it into a module of "
            "its own"
        )
    return data


def _supervise_task(sent: bytes, folder: str, path: list[str]) -> tuple[list[object], tuple[Exception, str] | None]:
    """Runs a task on a node, in a process that this one supervises; returns its events, and the error of its work.

    `folder` and `path` are where the driver is and where it looks for modules.
    """
    events: list[object] = []
    with suppress(OSError):  # without the folder, the paths of the job must be absolute
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
