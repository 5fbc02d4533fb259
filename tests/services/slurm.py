"""Slurm: a controller, a node and their authentication (Debian: slurmctld, slurmd, slurm-client, munge); as root."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..attacks.processes import folder_of, pids, words_of
from ..ports import free_ports
from .server import program, running

_CPUS = 4
_CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ctld}
SlurmdPort={slurmd}
AuthType=auth/munge
# A requeued job starts when its credential has expired, which takes 120 s by default.
AuthInfo=socket={home}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
JobRequeue=1
MinJobAge=3600
SchedulerParameters=sched_interval=1,sched_min_interval=0
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True, slots=True)
class Slurm:
    """A cluster of one node with `_CPUS` processors."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """What a process has in its environment that is to use this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *command: str) -> str:
        """What a command of Slurm's says; raises CalledProcessError if it fails."""
        done = subprocess.run(command, env={**os.environ, **self.env}, check=True, capture_output=True, text=True)
        return done.stdout

    def watchers(self, job: str = "") -> list[int]:
        """The processes of Slurm that watch tasks of this cluster, or those of one job; other tests may have theirs."""
        title = f"slurmstepd: [{job}." if job else "slurmstepd: ["
        found = [pid for pid in pids() if words_of(pid)[0].startswith(title)]
        return [pid for pid in found if folder_of(pid) == self.folder]

    def states(self) -> dict[str, str]:
        """The states of all jobs, and of all tasks of arrays, by their numbers."""
        lines = self.call("squeue", "--all", "--array", "--noheader", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A cluster with its state in `folder`."""
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons need root here")
    munged, slurmctld, slurmd = program("munged"), program("slurmctld"), program("slurmd")
    program("sbatch")
    cluster = Slurm(folder)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    ctld, node = free_ports(2)
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(_CONFIG.format(host=host, ctld=ctld, slurmd=node, home=folder, cpus=_CPUS))
    munge = [munged, "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    with ExitStack() as stack:
        stack.enter_context(running(munge, folder, ready=(folder / "munge.socket").exists, log="munged.log"))
        for command in ([slurmctld, "-D"], [slurmd, "-D"]):
            log = f"{Path(command[0]).name}.log"
            last = command[0] == slurmd
            stack.enter_context(
                running(command, folder, ready=lambda last=last: _is_up(cluster, last), env=cluster.env, log=log)
            )
        yield cluster
        subprocess.run(["scancel", "--full", "--user=root"], env={**os.environ, **cluster.env}, check=False)


def _is_up(cluster: Slurm, with_node: bool) -> bool:
    try:
        said = cluster.call("sinfo", "--noheader", "--format=%T")
    except subprocess.CalledProcessError:
        return False
    return not with_node or said.strip() == "idle"
