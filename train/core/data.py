"""Opens the data of a run: one split, or the splits of a mixture, each in the version that the run needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from maskstream.pipelines.modalities.mixture import DataMixture, OpenMixture, RunData, list_manifests
from maskstream.pipelines.modalities.settings import CacheSettings
from maskstream.pipelines.modalities.split import check_cache, open_manifest, open_manifest_of_state
from maskstream.pipelines.stream.loader import DATASET_VERSION
from maskstream.shards.checksummed import read_checksummed
from maskstream.shards.config import Json
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.format.tokenizer import has_tokenizer, read_tokenizer_facts

from .checkpoint import STATE, list_checkpoints
from .recipe import Recipe, check_modality
from .run_folder import DATA, run_settings

log = logging.getLogger(__name__)

MIXTURE, SOURCES = "mixture", "sources"
"""Fields of run.json that describe a mixture: its settings, and the splits as they were opened."""

LABEL_NAMES = "label_names"
"""Field of run.json with the names of the labels that the model learns, by number."""

PADDING_IDS = 128
"""A vocabulary is rounded up to a multiple of at most this many ids; a larger number of unused ids is reported."""

_TOLD = {"location", "version", "fingerprint"}


def find_newest_state(checkpoints: Path) -> Mapping[str, Any] | None:
    """Return the state of the newest checkpoint whose state.json is intact; None if there is none."""
    for checkpoint in list_checkpoints(checkpoints):
        with suppress(OSError, ValueError):
            return read_checksummed((checkpoint / STATE).read_bytes())
    return None


NO_CACHE = CacheSettings()


def open_data(
    recipe: Recipe[Any],
    data: SplitLocation | DataMixture,
    checkpoints: Path | None,
    asked: int | None = None,
    storing: CacheSettings = NO_CACHE,
) -> RunData:
    """Open the data of a run. No other function opens them.

    A new run reads the version `asked` for; a continued run reads that version, or otherwise its checkpoint's.

    Args:
        recipe: Recipe of the run.
        data: Location of a split, or a mixture.
        checkpoints: Folder of the checkpoints to continue from; None for a new run.
        asked: Version of a single split; None for the default.
        storing: Cache of data from URLs.

    Raises:
        ValueError: A split has another modality than the recipe, or a mixture has the same samples twice.
        ResumeError: A split no longer has the version, or the requested version has other samples.
    """
    state = None if checkpoints is None else find_newest_state(checkpoints)
    position = {} if state is None else dict(state.get("loader") or {})
    parts, given = position.get(SOURCES), len(data.sources) if isinstance(data, DataMixture) else None
    if position and given != (had := len(parts) if isinstance(parts, list) else None):
        raise ResumeError(
            f"the run reads {_splits(had)}, but got {_splits(given)}; pass the same data to continue, or start a new "
            "run (--no-resume, or a different folder)"
        )
    if not isinstance(data, DataMixture):
        split = _opened(recipe, data, position, asked, storing)
        check_cache(storing.cache, [split])
        return split
    if asked is not None:
        raise ValueError(
            f"data_version={asked} applies to a single split, but there are several; set their versions in the "
            "mixture's file"
        )
    states = [dict(part) for part in parts or [{}] * len(data.sources)]
    manifests = [
        _opened(recipe, one.data, own, one.data_version, storing) for one, own in zip(data.sources, states, strict=True)
    ]
    check_cache(storing.cache, manifests)
    return OpenMixture(mixture=data, manifests=tuple(manifests))


def _splits(count: int | None) -> str:
    return "one split" if count is None else f"a mixture of {count} splits"


def _opened(
    recipe: Recipe[Any], data: SplitLocation, position: Mapping[str, Any], asked: int | None, storing: CacheSettings
) -> Manifest:
    manifest = open_manifest(data, version=asked, cache=storing.cache, cache_gb=storing.cache_gb)
    check_modality(recipe, manifest)
    return open_manifest_of_state(manifest, position) if asked is None else _find_moved(manifest, position)


def _find_moved(manifest: Manifest, position: Mapping[str, Any]) -> Manifest:
    """Return the requested version of a split for a resumed run, and log a change of version.

    Raises:
        ResumeError: The version has other samples than the run has read.
    """
    saved, asked = position.get(DATASET_VERSION), manifest.version
    if isinstance(saved, int) and position.get("dataset") != manifest.fingerprint:
        raise ResumeError(
            f"the run was trained on version {saved} of its split, but version {asked} of {manifest.location} has "
            "different samples or a different order; leave out the version to continue, or start a new run "
            "(--no-resume, or a different folder)"
        )
    if isinstance(saved, int) and saved != asked:
        log.warning(
            "the run was in version %d of %s, and continues in version %d as requested", saved, manifest.location, asked
        )
    return manifest


@runtime_checkable
class _ReadsIds(Protocol):
    vocabulary: int


def tell_unused_ids(model: object, split: Manifest) -> None:
    """Log a warning if a model's vocabulary is much larger than the tokenizer of its split.

    Args:
        model: The model. Only models with a vocabulary are checked.
        split: The split.
    """
    if not isinstance(model, _ReadsIds) or not has_tokenizer(split.info):
        return
    ids = read_tokenizer_facts(split.location, split.info).vocabulary
    if model.vocabulary - ids >= PADDING_IDS:
        log.warning(
            "the tokenizer of %s has %s ids, but the model has %s, and no text contains the others; --set "
            "model.vocabulary=%d fits",
            *(split.location, f"{ids:,}", f"{model.vocabulary:,}", ids),
        )


def tell_split(split: Manifest) -> Json:
    """Describe a split for run.json."""
    return {"location": split.location, "version": split.version, "fingerprint": split.fingerprint}


def tell_data(data: RunData, *, labels: bool = False) -> Json:
    """Describe a run's data for run.json.

    Args:
        data: Open split or mixture.
        labels: Whether to include the names of labels, for a model that learns them.
    """
    splits = [tell_split(one) for one in list_manifests(data)]
    names = {LABEL_NAMES: list_manifests(data)[0].label_names} if labels else {}
    if not isinstance(data, OpenMixture):
        return splits[0] | names
    named = zip(data.mixture.names, data.manifests, splits, strict=True)
    told = [{"name": name, "samples": len(one), **split} for name, one, split in named]
    return {MIXTURE: data.mixture.to_dict(), SOURCES: told} | names


def read_label_names(run: Path) -> tuple[str, ...] | None:
    """Return the names of the labels that a run's model learned, by number; None if run.json has none."""
    told = run_settings(run).get(DATA)
    found = told.get(LABEL_NAMES) if isinstance(told, dict) else None
    return tuple(map(str, found)) if isinstance(found, list) else None


def read_splits(run: Path) -> list[Json]:
    """Return run.json's descriptions of the splits that a run was trained on; empty for a custom loader."""
    told = run_settings(run).get(DATA)
    found = told.get(SOURCES, [told]) if isinstance(told, dict) else []
    return [one for one in found if isinstance(one, dict) and one.keys() >= _TOLD]


def read_mixture(run: Path) -> DataMixture | None:
    """Return the mixture that a run was trained on, with the locations and versions that it read last; None for one
    split.
    """
    told = run_settings(run).get(DATA)
    if not isinstance(told, dict) or MIXTURE not in told:
        return None
    splits = read_splits(run)
    mixture = DataMixture.from_dict(told[MIXTURE]).at([str(one["location"]) for one in splits])
    return mixture.with_versions([int(one["version"]) for one in splits])
