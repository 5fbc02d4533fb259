"""What draws, records or renders samples must be installed in one version, which decides the bytes of a job."""

from importlib.metadata import PackageNotFoundError, version

from maskstream.shards.errors import DatasetError


def require_version(package: str, needed: str, *, work: str, extra: str) -> None:
    """Raises DatasetError unless `package` is installed in the version `needed`.

    work: what the package does, which begins the message. extra: the extra of maskstream that installs it.
    """
    try:
        found = version(package)
    except PackageNotFoundError:
        found = "none"
    if found != needed:
        raise DatasetError(
            f"{work} with the package {package} {needed}, {found} is installed: pip install 'maskstream[{extra}]'"
        )
