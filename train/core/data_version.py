"""Which version of its split a run goes on with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ...pipelines.modalities.earlier_version import version_of_state
from ...pipelines.stream.loader import DATASET_VERSION
from ...shards.errors import ResumeError
from ...shards.format.dataset import read_dataset_json
from ...shards.sealed import unsealed
from ...shards.stores.open import open_store
from .checkpoint import STATE, checkpoints


def version_of_run(folder: Path, data: str | Path, asked: int | None = None) -> int | None:
    """The version of the split at `data` that the run with the checkpoints in `folder` needs; None for the current one.

    The newest checkpoint whose state can be read decides. Raises ResumeError if the split does not have the version any
    more, or if the version `asked` for has other samples.
    """
    store = open_store(data)
    for checkpoint in checkpoints(folder):
        with suppress(OSError, ValueError, KeyError, TypeError):
            loader = dict(unsealed((checkpoint / STATE).read_bytes())["loader"])
            break
    else:
        return asked
    info = read_dataset_json(store, asked)
    if asked is None:
        return version_of_state(store, info, loader)
    if isinstance(saved := loader.get(DATASET_VERSION), int) and loader.get("dataset") != info["fingerprint"]:
        raise ResumeError(
            f"the run in {folder.parent} has seen version {saved} of its split, and version {asked} of {data} has "
            "other samples or another order; ask for no version to continue, or start a new run (--no-resume, or "
            "another folder)"
        )
    return asked
