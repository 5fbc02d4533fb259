"""Ray clusters of the tests (PyPI: ray): each node is a host of its own, which can be killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..ports import free_ports
from .networks import Host, hosts
from .server import program, running

_PORT = 6379
ENV = {
    "RAY_AUTH_MODE": "disabled",  # only this machine reaches these hosts
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # else tasks starve beside other tests
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}


@dataclass(frozen=True, slots=True)
class RayCluster:
    """The hosts of a cluster; drivers run on the head, in the environment `ENV`."""

    head: Host
    others: tuple[Host, ...]

    @property
    def address(self) -> str:
        return f"{self.head.ip}:{_PORT}"


@contextmanager
def ray_cluster(n_nodes: int, cpus: int) -> Iterator[RayCluster]:
    """A cluster whose nodes have `cpus` processors each. They may still be joining it."""
    ray = program("ray")
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the names of sockets below may have 107 bytes only
    try:
        with ExitStack() as stack:
            head, *others = stack.enter_context(hosts(n_nodes))
            cluster = RayCluster(head, tuple(others))
            start = [ray, "start", "--block", f"--num-cpus={cpus}", f"--object-store-memory={100 << 20}"]
            begin = ["--head", f"--port={_PORT}", "--include-dashboard=false", f"--temp-dir={folder}"]
            join = [f"--address={cluster.address}"]
            for host in (head, *others):
                command = host.inside(*start, *(begin if host is head else join), f"--node-ip-address={host.ip}")
                ready = partial(_answers, head.ip)
                stack.enter_context(running(command, folder, ready=ready, env=ENV, log=f"{host.network}.log"))
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster_of_this_machine(cpus: int, env: Mapping[str, str]) -> Iterator[str]:
    """The address of a cluster in this machine's own network, whose tasks have `env` in their environment."""
    ray = program("ray")
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    [port] = free_ports(1)
    command = [ray, "start", "--block", "--head", f"--port={port}", "--node-ip-address=127.0.0.1"]
    command += ["--include-dashboard=false", f"--temp-dir={folder}", f"--num-cpus={cpus}"]
    command.append(f"--object-store-memory={100 << 20}")
    try:
        with running(command, folder, ready=partial(_answers, "127.0.0.1", port), env={**ENV, **env}):
            yield f"127.0.0.1:{port}"
    finally:
        for pid in subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(ip: str, port: int = _PORT) -> bool:
    with suppress(OSError), socket.create_connection((ip, port), timeout=1):
        return True
    return False
