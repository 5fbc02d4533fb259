"""Encode the sources that splits do not have yet into new shards, and append these.

The new shards are written next to the split, in a folder named by its contents, by the job that writes any split. A
killed run therefore resumes and produces the same bytes.
"""

import json
import re
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import xxhash

from maskstream.preprocess.datasets import Dataset, chosen_dataset
from maskstream.preprocess.datasets.division import TRAIN, VAL
from maskstream.preprocess.encode.encoder import prepared
from maskstream.preprocess.job.options import JobOptions
from maskstream.preprocess.job.shards import JobReport, SplitReport, listed, make_shards
from maskstream.preprocess.job.task import WrittenShard
from maskstream.preprocess.raw.file_state import FileState
from maskstream.preprocess.raw.files import RawFiles, is_same
from maskstream.preprocess.source import SOURCE, Source
from maskstream.shards.config import differences
from maskstream.shards.errors import DatasetError, ResumeError
from maskstream.shards.format.dataset import is_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.records import Records
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.sample import Reject
from maskstream.shards.keywords import takes_fields
from maskstream.shards.named import list_few
from maskstream.shards.stores.local_files import LOCK
from maskstream.shards.stores.output import Location, Output, open_output, split_folder_and_name, within
from maskstream.shards.stores.url import is_url

from .appending import append
from .versions_without import list_recorded_states

ADDING = ".adding-"
"""Prefix of the name of such a folder; the rest is a hash of the added sources."""
_FOLDER = re.compile(rf"{re.escape(ADDING)}[0-9a-f]{{16}}")


def remove_added(out: Output) -> None:
    """Delete the contents of these folders in a job's output after they were appended."""
    out.remove([name for name in out.names(ADDING) if _FOLDER.fullmatch(name.split("/")[0])])


def find_added_with(split: Output, keys: AbstractSet[str]) -> list[Output]:
    """Return the folders next to a split, left by killed runs, that contain samples with some of these keys.

    Folders with an unreadable record are included.
    """
    return [folder for folder in find_all_added(split) if _name(folder) == _name(split) and _holds(folder, keys)]


def find_all_added(split: Output) -> list[Output]:
    """Return all splits that killed runs left in such folders next to a split."""
    out = split_folder_and_name(complete_location(split))[0]
    if is_url(out):
        names = {tuple(name.split("/")[:2]) for name in open_output(out).names(ADDING)}
    else:
        names = {path.relative_to(out).parts for path in Path(out).glob(f"{ADDING}*/*") if path.is_dir()}
    return [open_output(within(out, "/".join(one))) for one in sorted(names) if _FOLDER.fullmatch(one[0])]


def remove_folder(added: Output) -> None:
    """Delete a folder of `find_added_with` that is empty and no longer locked."""
    adding, split = split_folder_and_name(complete_location(added))
    out, name = split_folder_and_name(adding)
    open_output(out).remove([f"{name}/{split}/{LOCK}"])


def _name(split: Output) -> str:
    return split_folder_and_name(complete_location(split))[1]


def complete_location(output: Output) -> Location:
    """Return the URL or absolute path of an output."""
    return output.location if is_url(output.location) else Path(output.location).absolute()


def _holds(folder: Output, keys: AbstractSet[str]) -> bool:
    records = Records(folder, WrittenShard)
    found = [records.read(task) for task in records.tasks()]
    return any(
        one is None or (one.shard is not None and any(row.key in keys for row in one.shard.rows)) for one in found
    )


_MISSING = "missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class _New:
    """Sources that a split does not have, and rejects of sources without a file."""

    sources: list[Source]
    missing: list[Reject]
    samples_per_shard: int | None


@takes_fields(JobOptions)
def add_sources(
    dataset: str | Callable[[Path], Dataset],
    root: str | Path,
    out: Location,
    options: JobOptions,
) -> JobReport:
    """Encode the sources of `dataset` below `root` that the splits below `out` do not have, and append them.

    Sources are identified by their id. If the split has a source, its file must still have the bytes that were encoded,
    as far as the records show. A reject counts as new if its bytes have changed or if it was missing. Sources that no
    longer exist are ignored.

    Args:
        dataset: As in `make_shards`.
        root: As in `make_shards`.
        out: Folder or URL of the splits.
        options: Options of `make_shards`, except those that edit records. `max_rejects` is a fraction of the new
            sources, and shards have by default as many samples as in the split.

    Raises:
        DatasetError: A split does not exist or has other encoder settings. Nothing is encoded.
        ResumeError: A source of a split has changed.
        MaskstreamError: Any error of `make_shards` and `append`.
    """
    _check_options(options)
    listing, settings = chosen_dataset(dataset, options.settings)
    options = replace(options, settings=settings)
    known = {} if options.division is None else _known(out)
    with listed(listing, root, options, known) as (raw, files):
        encoder = prepared(raw.encoder, raw.splits)
        wanted: dict[str, Any] = {"encoder": encoder.to_dict(defaults=True)}
        if options.measure is not None:
            wanted["signals"] = options.measure.version
        divided = {"val": options.division.to_dict()} if options.division else {}
        found = {
            name: _find_new(raw, name, within(out, name), wanted | (divided if name in (TRAIN, VAL) else {}), files)
            for name in raw.splits
        }
    todo = {name: new for name, new in found.items() if new.sources}
    reports, n_sources, wall_s = {}, 0, 0.0
    for name, new in todo.items():
        folder = within(out, ADDING + _hash_sources(name, new))
        size = options.samples_per_shard or new.samples_per_shard
        own = replace(options, splits=(), samples_per_shard=size, val=None, val_by=SOURCE, val_seed=0)
        made = make_shards(_select_only(listing, name, new), root, folder, own)
        n_sources, wall_s = n_sources + made.n_sources, wall_s + made.wall_s
        done = append(within(out, name), within(folder, name), retried={source.id for source in new.sources})
        state = f"version {done.version}, {done.samples} samples added"
        reports[name] = SplitReport(folder=within(out, name), state=state, counts=made.splits[name].counts)
    for name in raw.splits:
        if name not in reports:
            counts = dict(Manifest.load(within(out, name)).info["counts"])
            reports[name] = SplitReport(folder=within(out, name), state="has all sources", counts=counts)
    remove_added(open_output(out))
    for name in raw.splits:
        with open_output(within(out, name)).sole_writer():  # releases the lock file of a killed run
            pass
    return JobReport(
        dataset=raw.name,
        profile=raw.encoder.profile,
        splits={name: reports[name] for name in raw.splits},
        n_sources=n_sources,
        wall_s=wall_s,
    )


def _check_options(options: JobOptions) -> None:
    if options.part or options.finish or options.overwrite or options.repair or options.retry_rejects:
        raise ValueError(
            "--append is for finished splits and cannot be combined with --part, --finish, --overwrite, --repair or "
            "--retry-rejects"
        )
    if options.cutting is not None:
        raise ValueError(
            "--append takes whole files; write clips of new files to a separate split, then use `maskstream merge`"
        )
    if options.keep is not None:
        raise ValueError("--append writes all samples; curate the split afterwards (`maskstream curate --keep`)")


def _known(out: Location) -> dict[str, str]:
    """Return the split of each source in train or val, including rejects, by id."""
    found: dict[str, str] = {}
    for name in (TRAIN, VAL):
        if is_split(store := open_output(within(out, name)).store):
            manifest = Manifest.open(store)
            rejects = read_rejects(store, manifest.info)
            found |= dict.fromkeys([*(one.source for one in rejects), *manifest.sources().to_pylist()], name)
    return found


def _find_new(raw: Dataset, name: str, folder: Location, wanted: dict[str, Any], files: RawFiles) -> _New:
    """Return what the split in a folder does not have, if it has the settings `wanted`.

    Raises:
        DatasetError: The split cannot be extended.
        ResumeError: A source of the split has changed.
    """
    output = open_output(folder)
    if not is_split(output.store):
        raise DatasetError(
            f"{folder} is not a finished split, so nothing can be appended; write it first with the same command "
            "without --append"
        )
    manifest = Manifest.open(output.store, whole=True)  # samples in its validation split are not new
    settings = manifest.info["settings"]
    written = {name: settings[name] for name in ("encoder", "signals", "val") if name in settings}
    if changes := "; ".join(differences(written, json.loads(json.dumps(wanted)))):
        raise DatasetError(f"{folder} was written with different settings ({changes}); use its settings")
    rejects = read_rejects(output.store, manifest.info)
    known = {*manifest.sources().to_pylist()}
    refused = {reject.source: reject.stage for reject in rejects if reject.source not in known}
    again = _find_changed(output, raw.splits[name], known, refused, files)
    old = known | {source for source, stage in refused.items() if stage != _MISSING}
    return _New(
        sources=[source for source in raw.splits[name] if source.id not in old or source.id in again],
        missing=[one for one in raw.missing.get(name, []) if one.source not in known | refused.keys()],
        samples_per_shard=settings.get("samples_per_shard"),
    )


def _find_changed(
    output: Output, sources: Sequence[Source], known: set[str], refused: dict[str, str], files: RawFiles
) -> set[str]:
    """Return the rejects whose files have changed. Raises ResumeError for samples whose files have changed."""
    states = dict(list_recorded_states(Records(output, WrittenShard)))
    seen: dict[tuple[Path, FileState], bool] = {}
    changed = {
        source.id for source in sources if source.id in states and not is_same(source, states[source.id], files, seen)
    }
    if kept := sorted(changed & known):
        names = list_few(kept, repr)
        raise ResumeError(
            f"{output.location}: {len(kept)} of its sources changed after they were encoded: {names}; restore them, "
            "or rename the changed files and remove the samples (`maskstream remove`)"
        )
    return changed & refused.keys()


def _hash_sources(name: str, new: _New) -> str:
    """Hash the sources added to a split, so that each set of them has a separate folder."""
    lines = [name, *sorted(source.id for source in new.sources), "", *sorted(one.source for one in new.missing)]
    return xxhash.xxh3_64_hexdigest("\n".join(lines).encode())


def _select_only(listing: Callable[[Path], Dataset], name: str, new: _New) -> Callable[[Path], Dataset]:
    """Return a listing of only the new sources of one split."""
    ids, missing = {source.id for source in new.sources}, new.missing

    @wraps(listing)
    def listed(root: Path) -> Dataset:
        whole = listing(root)
        own = [source for sources in whole.splits.values() for source in sources if source.id in ids]
        return replace(whole, splits={name: own}, missing={name: missing}, absent={})

    return listed
