"""Where an attack's shards lie and where its tasks run: on this machine, or in the servers of tests/services/."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import obstore

from maskstream.preprocess import RayExecutor
from maskstream.shards.stores.client import make_client
from maskstream.shards.stores.output import open_output

from ..services.azurite import CONTAINER, azurite
from ..services.nginx import nginx
from ..services.ray_cluster import ENV, cluster_of_this_machine
from ..services.seaweedfs import BUCKET, seaweedfs
from ..services.slurm import Slurm, slurm

STORES = ("local", "s3", "az", "http")
EXECUTORS = ("local", "ray", "slurm")
_NOTE = "place"


@dataclass(frozen=True, slots=True)
class Where:
    """url: an empty place in the store; on a web server, that of the folder `root`. env: what a process has in its
    environment that uses the store. address: of the Ray cluster. slurm: the Slurm cluster. start_s: about how long
    a driver takes to start there, beyond what it takes here.
    """

    store: str = "local"
    url: str = ""
    root: Path = Path("/")
    env: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None
    slurm: Slurm | None = None
    start_s: float = 0.0

    def enter(self) -> None:
        """Let this process use the store."""
        os.environ.update(self.env)

    def executor(self) -> RayExecutor | None:
        """The executor of jobs; None for this process."""
        return None if self.address is None else RayExecutor(self.address)

    def location(self, folder: Path) -> str:
        """What stands for a folder, as long as the folder is there; then for an empty one."""
        if self.store == "local":
            return str(folder)
        if self.store == "http":
            return f"{self.url}/{folder.relative_to(self.root)}"
        note = folder / _NOTE
        if not note.exists():
            folder.mkdir(parents=True, exist_ok=True)
            written = folder / str(os.getpid())
            written.write_text(uuid.uuid4().hex)
            written.rename(note)
        return f"{self.url}/{note.read_text()}"

    def copied(self, split: Path) -> str:
        """The location of a copy of a split."""
        location = self.location(split.with_name(f"{split.name}-place") if self.store in ("s3", "az") else split)
        for path in split.rglob("*"):
            if path.is_file():
                self.changed(location, path, split)
        return location

    def changed(self, location: str, path: Path, split: Path) -> None:
        """Copy a file of a split again, which was changed."""
        if self.store in ("s3", "az"):
            obstore.put(make_client(location), path.relative_to(split).as_posix(), path)

    def files(self, folder: Path) -> dict[str, bytes]:
        """What is in the place of a folder, by name."""
        output = open_output(self.location(folder))
        return {name: output.whole(name, 1 << 30) or b"" for name in output.names()}


HERE = Where()


@contextmanager
def opened(store: str, executor: str, folder: Path) -> Iterator[Where]:
    """Starts the servers."""
    if (store, executor) == (HERE.store, "local"):
        yield HERE
        return
    with ExitStack() as stack:
        url, root, env, address, cluster, start_s = "", folder, dict[str, str](), None, None, 0.0
        if store == "s3":
            s3 = stack.enter_context(seaweedfs(folder / "server"))
            url, env = f"s3://{BUCKET}", s3.env
        elif store == "az":
            azure = stack.enter_context(azurite(folder / "server"))
            url, env = f"az://{CONTAINER}", azure.env
        elif store == "http":
            web = stack.enter_context(nginx(folder / "server"))
            url, root = web.url, web.folder
        if executor == "ray":
            address = stack.enter_context(cluster_of_this_machine(cpus=2, env=env))
            env, start_s = {**env, **ENV}, 3.0
        elif executor == "slurm":
            (folder / "slurm").mkdir()
            cluster, start_s = stack.enter_context(slurm(folder / "slurm")), 3.0
        where = Where(store, url, root, env, address, cluster, start_s)
        before = {name: os.environ.get(name) for name in env}
        where.enter()
        try:
            yield where
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
