"""Networks of the tests: machines that are namespaces of this one, joined by a bridge; as root."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import pytest

from .server import program

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of a network; it has the files of all."""

    network: str
    ip: str

    def inside(self, *command: str) -> list[str]:
        """A command that runs on this host."""
        return ["ip", "netns", "exec", self.network, *command]

    def pids(self) -> list[int]:
        """The processes on this host."""
        command = ["ip", "netns", "pids", self.network]
        return [int(word) for word in subprocess.run(command, capture_output=True, text=True).stdout.split()]

    def kill(self) -> None:
        """Take the host off the network and end all its processes, as if its power failed."""
        subprocess.run(["ip", "-n", self.network, "link", "set", "eth0", "down"], check=True)
        self.end()

    def end(self) -> None:
        """End all processes of the host."""
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Hosts that reach each other, and that this machine reaches."""
    program("ip")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    number = (os.getpid() + next(_numbers)) % 256
    name, subnet = f"ms{os.getpid()}n{number}", f"198.18.{number}"
    all_hosts = [Host(f"{name}-{number}", f"{subnet}.{number + 1}") for number in range(count)]
    with ExitStack() as stack:
        for words in (["link", "add", name, "type", "bridge"], ["netns", "add", all_hosts[0].network]):
            done = subprocess.run(["ip", *words], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
            stack.callback(_ip, words[0], "delete", words[2])
        _ip("address", "add", f"{subnet}.254/24", "dev", name)
        _ip("link", "set", name, "up")
        for number, host in enumerate(all_hosts):
            if number:
                _ip("netns", "add", host.network)
                stack.callback(_ip, "netns", "delete", host.network)
            stack.callback(host.end)
            _ip("link", "add", f"{name}.{number}", "type", "veth", "peer", "name", "eth0", "netns", host.network)
            _ip("link", "set", f"{name}.{number}", "master", name, "up")
            _ip("-n", host.network, "address", "add", f"{host.ip}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host.network, "link", "set", device, "up")
        yield all_hosts


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
