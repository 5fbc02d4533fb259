"""Downloads folders of Debian packages; apt checks them against the archive's signed index."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from maskstream.shards.errors import DatasetError

TIMEOUT_S = 600


def fetch_debian_folder(package: str, inside: str, root: Path) -> Path:
    """Return a folder of a Debian package, kept as ROOT/package.

    A missing folder is downloaded in the version that this machine's apt offers; it appears only when it is complete.
    Root permissions are not needed, and nothing is installed.

    Args:
        package: Name of the package.
        inside: Folder in the package, such as usr/share/ldraw.
        root: Folder in which it is kept.

    Raises:
        DatasetError: apt is missing, or there is no such package, or no such folder in it.
    """
    kept = root / package
    if kept.is_dir():
        return kept
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise DatasetError(
            f"{package} cannot be downloaded without apt-get; get the package's .deb from Debian, unpack it (dpkg-deb "
            f"-x, or ar and tar), and put its {inside} at {kept}"
        )
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as download:
        folder = Path(download)
        _download(package, folder)
        files = sorted(folder.glob("*.deb"))
        if not files:
            raise DatasetError(f"apt-get did not download {package}")
        _run(["dpkg-deb", "-x", files[0].name, "content"], folder, package)
        if not (folder / "content" / inside).is_dir():
            raise DatasetError(f"{files[0].name} contains no folder {inside}")
        (folder / "content" / inside).rename(kept)
    return kept


def _download(package: str, folder: Path) -> None:
    """Download the package's file into `folder`. If this machine's package lists are old or missing, new ones are
    fetched into `folder` for this call only; installed packages and the machine's own lists are not touched.
    """
    try:
        _run(["apt-get", "download", "-qq", package], folder, package)
    except DatasetError:
        lists, cache = folder / "lists", folder / "cache"
        for missing in (lists / "partial", cache / "archives" / "partial"):
            missing.mkdir(parents=True)
        own = ["-qq", "-o", f"Dir::State::Lists={lists.resolve()}", "-o", f"Dir::Cache={cache.resolve()}"]
        _run(["apt-get", "update", *own], folder, package)
        _run(["apt-get", "download", *own, package], folder, package)


def _run(command: list[str], folder: Path, package: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"{command[0]} took more than {TIMEOUT_S} s for {package}; try again later") from error
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg-deb: error"))]
        raise DatasetError(
            f"{package} could not be downloaded from Debian ({words[-1] if words else 'apt says nothing'}). Check "
            "the network and apt's sources, and run the command again"
        )
