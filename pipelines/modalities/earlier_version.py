"""Which version of a split a saved position needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from maskstream.pipelines.stream.loader import DATASET_VERSION
from maskstream.shards.errors import ResumeError, ShardError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.stores.base import Store

log = logging.getLogger(__name__)


def version_of_state(store: Store, info: Mapping[str, Any], state: Mapping[str, Any]) -> int | None:
    """The version to open for a saved position of a loader, if it is not the current one; a warning says which.

    It is the newest version with the samples and the order of the position's: samples that were removed or erased since
    stay away. None if the current version has them too, or if the position is not of this split, as far as its version
    tells, so that the error of the resume says what differs.

    info: the description of the current version. Raises ResumeError if the split does not have the version any more.
    """
    saved, fingerprint = state.get(DATASET_VERSION), state.get("dataset")
    if fingerprint == info["fingerprint"] or not isinstance(saved, int) or not 0 < saved < info["version"]:
        return None
    gone = None
    for version in range(info["version"] - 1, saved - 1, -1):
        try:
            found = read_dataset_json(store, version)
        except ShardError as error:
            gone = error
            continue
        if found["fingerprint"] == fingerprint:
            log.warning(
                "the position was saved with version %d of %s, and version %d is current: version %d is opened, which "
                "has the same samples in the same order; a new run reads what was added since",
                saved,
                store.location,
                info["version"],
                version,
            )
            return version
    if gone is not None:
        raise ResumeError(
            f"the position was saved with version {saved} of {store.location}, which cannot be opened any more "
            f"({gone}). Put the files of that version back, or start a new run on the current version"
        ) from gone
    return None
