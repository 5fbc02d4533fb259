"""Curate a split: keep samples by rules on their signals, without near-duplicates and without leaks of evaluation sets.

Nothing is deleted: the other samples are removed in a new version.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from maskstream.preprocess.versions import remove
from maskstream.shards.arrays import Bools, Float32s, Float64s, Int64s
from maskstream.shards.errors import MaskstreamError, ShardError
from maskstream.shards.format.component import Numbers
from maskstream.shards.format.dataset import CURATION_OF, CURATIONS, list_own_curations, read_description
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.format.rejects import count_part_samples, read_curated, read_removed
from maskstream.shards.keywords import takes_fields
from maskstream.shards.members.text import JSON, LANGUAGE
from maskstream.shards.named import nearest
from maskstream.shards.progress import Progress, as_progress
from maskstream.shards.stores.folders import get_folder_name

from .copies import find_copies, find_leaks
from .curated import Curated, Gone
from .kept import compute_table_sum
from .languages import list_named_languages, measure_languages
from .measures import IMAGES, SIGNALS, Measures, measure
from .options import CurateOptions
from .originals import sort_originals_first
from .rules import SHARE_NAME, Rule

log = logging.getLogger(__name__)

_AT_ONCE = 1024
_COLLAPSED = 0.1
"""Features have collapsed if a larger fraction of all pairs would be copies."""


@takes_fields(CurateOptions)
def curate(location: SplitLocation, options: CurateOptions) -> Curated:
    """Remove unwanted samples of a split in a new version.

    A sample is removed for the first reason that applies: it cannot be decoded; it fails the rule `keep`; it is a copy
    of a sample of a split in `against`; with `copies`, it is a copy of a kept sample. By default the likely original is
    kept (see originals.py), preferring more pixels unless the image was enlarged, then the longer clip, then the sample
    from which the other one was made, then more bytes. `best` keeps the sample with the largest value of a signal
    instead.

    Signals are the measured ones (`SIGNALS`), the numbers that `shards --signals` stored, the columns of `scores`, and
    for texts languages such as language_en (see `measure_languages`). With `features`, samples whose features have a
    cosine of at least `cosine` are copies too; all pairs are compared, so time grows with the square of their number.

    The new version records the request and the version that it is based on. The same call again finds this record and
    changes nothing, until samples are added to the split; percentiles always refer to the base version.

    Args:
        location: Folder or URL of the split.
        options: Rule, near-duplicates, evaluation splits and limits; its fields can be passed as keywords.

    Returns:
        The removed samples with their reasons, the groups of copies, and the new version.

    Raises:
        ValueError: A rule cannot be parsed, a table lacks a sample or has unusable columns, or media do not match.
        MaskstreamError: All samples, or a larger fraction than `max_removed`, would be removed.
        BusyError: Another process changed the split in the meantime.
    """
    manifest, progress = Manifest.load(location), as_progress(options.progress)
    signals = _Signals.of(manifest, options)
    rule = None if options.keep is None else Rule(options.keep, signals.names)
    exams = [Manifest.load(one) for one in options.against]
    asked = _describe_request(options, signals.table, exams)
    repeated = _find_repeated_run(manifest, asked)
    left_out = np.empty(0, np.int64)
    if repeated:
        manifest, left_out = _open_repeated_run(manifest, repeated)
    elif rule is not None:
        manifest, left_out = _reopen_left_out(manifest, asked)
    own = measure(manifest, component=options.component, kept=options.kept, threads=options.threads, progress=progress)
    own = signals.add_to(own, options)
    stays, failed = (np.ones(len(own), bool), {}) if rule is None else rule.apply(own.signals)
    is_out = np.isin(manifest.whole_numbers(own.index), left_out)
    gone = {place: Gone(place=place, why="unreadable", of=reason) for place, reason in own.unreadable.items()}
    gone |= {place: one for place, one in _fail_rule(~stays, options.keep).items() if place not in gone}
    if not repeated:  # samples left out before the split grew count in percentiles, and stay out
        gone |= _fail_rule(is_out, options.keep)
    for exam in exams:
        gone |= _find_leaked(own, exam, gone, options, progress)
    groups = _group_copies(own, gone, options, progress) if options.copies else {}
    gone |= _remove_copies(own, groups)
    version = None
    gone = {place: one for place, one in gone.items() if is_out[place] == (repeated is not None)}
    if repeated:
        version = repeated["made"]
    elif gone and not options.dry_run:
        _check_share(own, gone, options.max_removed, options.keep)
        version = manifest.version + 1
    curated = Curated(
        measures=own,
        gone=tuple(gone[place] for place in sorted(gone)),
        copies=tuple((first, *others) for first, others in sorted(groups.items())),
        version=version,
        repeated=repeated is not None,
        rule=rule,
        failed=failed,
    )
    with options.writing(curated):
        if version is not None and not repeated:
            samples = count_part_samples(manifest.info)
            record = {"asked": asked, "began": manifest.version, "samples": samples, "made": version}
            keys = own.manifest.keys([int(own.index[place]) for place in gone])
            remove(own.manifest.location, keys, curation=record)
    return curated


@dataclass(frozen=True, kw_only=True, slots=True)
class _Signals:
    """The signals of a split that a rule may use, besides the measured ones.

    Attributes:
        written: Numbers stored with the samples, by name.
        table: The table of `scores`, or None.
        numbers: Numeric columns of the table by name.
        languages: Languages that the rule or `best` names and that must be measured.
    """

    written: Mapping[str, Numbers]
    table: pa.Table | None
    numbers: Mapping[str, Float64s]
    languages: Sequence[str]

    @classmethod
    def of(cls, manifest: Manifest, options: CurateOptions) -> _Signals:
        """Return the signals of a split. Raise ValueError if `scores` cannot be used, or `best` is not a signal."""
        written = manifest.components[JSON.name].facts if JSON.name in manifest.components else {}
        table = None if options.scores is None else _read_table(options.scores)
        numbers = {} if table is None else _numbers(table, options.scores, [*SIGNALS, *written])
        named = list_named_languages(f"{options.keep} {options.best}")
        languages = [one for one in named if f"{LANGUAGE}{one}" not in written | numbers]
        signals = cls(written=written, table=table, numbers=numbers, languages=languages)
        if options.best is not None and options.best not in signals.names:
            close = nearest(options.best, list(signals.names))
            raise ValueError(f"best={options.best!r} is not a signal{close}; use one of {', '.join(signals.names)}")
        return signals

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all signals."""
        spoken = (f"{LANGUAGE}{one}" for one in self.languages)
        return tuple(dict.fromkeys([*SIGNALS, *self.written, *self.numbers, *spoken]))

    def add_to(self, own: Measures, options: CurateOptions) -> Measures:
        """Return measures with these signals."""
        known = {name: np.asarray(values[own.index], np.float64) for name, values in self.written.items()}
        if self.table is not None:
            known |= _align_scores(own, self.table, self.numbers, options)
        if self.languages:
            known |= _guess_languages(own, self.languages)
        return replace(own, signals={**known, **own.signals})


def _remove_copies(own: Measures, groups: Mapping[int, Sequence[int]]) -> dict[int, Gone]:
    """Return the removal of each copy, by position."""
    gone: dict[int, Gone] = {}
    for first, others in groups.items():
        found = own.manifest.key(int(own.index[first]))
        gone |= {place: Gone(place=place, why="copy", of=found, like=(own, first)) for place in others}
    return gone


def _fail_rule(failing: Bools, keep: str | None) -> dict[int, Gone]:
    """Return the removal of each sample that fails the rule, by position."""
    return {place: Gone(place=place, why="rule", of=keep or "") for place in np.flatnonzero(failing).tolist()}


def _describe_request(options: CurateOptions, table: pa.Table | None, exams: Sequence[Manifest]) -> dict[str, Any]:
    """Return the part of the options that a version records, by which the same request is recognised."""
    features = None
    if options.features is not None:
        features = {"cosine": options.cosine, "sum": compute_table_sum(_read_table(options.features))}
    return {
        "keep": options.keep,
        "copies": options.copies and {"best": options.best},
        "mirrored": options.mirrored,
        "scores": None if table is None else compute_table_sum(table),
        "features": features,
        "against": [one.fingerprint for one in exams],
        "component": options.component,
    }


def _align_scores(
    own: Measures, table: pa.Table, numbers: Mapping[str, Float64s], options: CurateOptions
) -> dict[str, Float64s]:
    """Return the scores in the order of the samples, NaN where a sample has none. Raise ValueError if the rule needs
    one that is missing.
    """
    rows = _rows(own, table, options.scores)
    for name in numbers.keys() & {*re.findall(r"\w+", f"{options.keep} {options.best}")}:
        _check_known(own, (rows >= 0) & np.isfinite(numbers[name])[rows], options.scores, name)
    return {name: np.where(rows >= 0, values[rows], np.nan) for name, values in numbers.items()}


def _find_leaked(
    own: Measures, exam: Manifest, gone: Mapping[int, Gone], options: CurateOptions, progress: Progress
) -> dict[int, Gone]:
    """Find the remaining samples that are copies of samples of another split."""
    theirs = measure(exam, component=options.component, threads=options.threads, progress=progress)
    progress.phase(f"comparing with {theirs.manifest.location}")
    if theirs.media != own.media:
        raise ValueError(
            f"{own.manifest} contains {' and '.join(own.media)}, but {theirs.manifest} contains "
            f"{' and '.join(theirs.media)}: leaks can only be found within one medium. "
            "Choose a different component=, or remove the split from against="
        )
    leaked = {}
    rest = [place for place in range(len(own)) if place not in gone]
    for place, there in find_leaks(own, theirs, rest, options.mirrored):
        found = theirs.manifest.key(int(theirs.index[there]))
        leaked[place] = Gone(place=place, why="leak", of=f"{found} of {theirs.manifest}", like=(theirs, there))
    return leaked


def _group_copies(
    own: Measures, gone: Mapping[int, Gone], options: CurateOptions, progress: Progress
) -> dict[int, list[int]]:
    """Group the remaining near-duplicates: the position of the kept sample, and the positions of the others."""
    progress.phase("comparing samples with each other")
    by = (options.best or "pixels", "seconds", "bytes")
    order = np.lexsort([-np.nan_to_num(own.signals[name]) for name in reversed(by)])
    unit = None if options.features is None else _find_near_features(own, options.features, options.cosine)
    order = order[~np.isin(order, [*gone])]
    groups = find_copies(own, order, options.mirrored, unit, options.cosine)
    if options.best is None and own.media == {IMAGES} and groups:
        progress.phase("looking for the original of each group")
        better = sort_originals_first(own, order, groups)
        if not np.array_equal(better, order):
            groups = find_copies(own, better, options.mirrored, unit, options.cosine)
    return groups


def _find_repeated_run(manifest: Manifest, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the record of the same curation of the same samples, or None."""
    samples = count_part_samples(manifest.info)
    records = list_own_curations(manifest.info)
    return next((one for one in records if one["asked"] == asked and one["samples"] == samples), None)


def _open_repeated_run(manifest: Manifest, record: Mapping[str, Any]) -> tuple[Manifest, Int64s]:
    """Open the version before a curation; also return the numbers of all samples that are removed after it.

    A merged split loses both versions if samples are erased from its splits. Then the current version is opened, with
    all samples that only curations removed.
    """
    try:
        made = read_description(manifest.store, record["made"])
        return Manifest.load(manifest, version=record["began"]), read_removed(manifest.store, made)
    except ShardError:
        left_out = read_removed(manifest.store, manifest.info)
        curated = np.isin(manifest.whole_numbers(manifest.removed), read_curated(manifest.store, manifest.info))
        return replace(manifest, removed=manifest.removed[~curated]), left_out


def _reopen_left_out(manifest: Manifest, asked: Mapping[str, Any]) -> tuple[Manifest, Int64s]:
    """Open a grown split with all samples that the same curation left out before; also return their numbers.

    A curation of an appended or merged split does not record which of its samples it left out. If it is the same, the
    result contains all samples that only curations left out and that no other record explains.
    """
    parts, by_known, by_same, is_unknown = _list_parts(manifest.info), *np.empty((2, 0), np.int64), False
    for one in manifest.info.get(CURATIONS, ()):
        left_out = None if CURATION_OF in one else _read_left_out(manifest, one, parts)
        if left_out is not None:
            by_known = np.union1d(by_known, left_out)
        if one["asked"] == asked:
            by_same = by_same if left_out is None else np.union1d(by_same, left_out)
            is_unknown |= left_out is None
    curated = read_curated(manifest.store, manifest.info)
    reopened = np.intersect1d(curated, by_same)
    if is_unknown:
        reopened = np.union1d(reopened, np.setdiff1d(curated, by_known))
    stays_out = ~np.isin(manifest.whole_numbers(manifest.removed), reopened)
    return replace(manifest, removed=manifest.removed[stays_out]), reopened


def _read_left_out(manifest: Manifest, record: Mapping[str, Any], parts: Sequence[tuple[str, int]]) -> Int64s | None:
    """Return the numbers of the samples that a curation left out; None if its versions are deleted or number others."""
    try:
        began, made = (read_description(manifest.store, record[name]) for name in ("began", "made"))
        out = np.setdiff1d(read_removed(manifest.store, made), read_removed(manifest.store, began))
    except ShardError:
        return None
    then = _list_parts(made)
    return out if then == parts[: len(then)] else None


def _list_parts(info: Mapping[str, Any]) -> list[tuple[str, int]]:
    """List the folder and the number of samples of each part; an append leaves them at the start of the list."""
    return [(get_folder_name(part["name"]), part["samples"]) for part in info["parts"]]


def _check_share(own: Measures, gone: Mapping[int, Gone], most: float, keep: str | None) -> None:
    """Raise MaskstreamError if all samples, or more than this fraction, would be removed."""
    if len(gone) == len(own):
        raise MaskstreamError(f"none of the {len(own)} samples of {own.manifest} would remain, so nothing was changed")
    if len(gone) <= most * len(own):
        return
    counts = Counter(one.why for one in gone.values())
    words = {"rule": f"do not meet {keep!r}", "copy": "are copies", "leak": "are leaks", "unreadable": "are unreadable"}
    needed = math.ceil(100 * len(gone) / len(own)) / 100
    raise MaskstreamError(
        f"{len(gone)} of {len(own)} samples of {own.manifest} would be removed, more than max_removed={most:g} allows: "
        f"{', '.join(f'{count} {words[why]}' for why, count in counts.items())}. Nothing was changed; look at them "
        f"with --dry-run, or allow it with --max-removed {needed:g}"
    )


def _guess_languages(own: Measures, languages: Sequence[str]) -> dict[str, Float64s]:
    """Return the probability of each language for each text, float64 (N,) by signal name."""
    measure_languages("", languages)  # raises ValueError if one is unknown
    if own.media != {"texts"}:
        raise ValueError(
            f"{LANGUAGE}{languages[0]} is a text signal, but {own.manifest} is measured by its "
            f"{' and '.join(own.media)}. Remove it from the rule, or choose a text component="
        )
    found = {f"{LANGUAGE}{one}": np.full(len(own), np.nan) for one in languages}
    for first in range(0, len(own), _AT_ONCE):
        places = [place for place in range(first, min(first + _AT_ONCE, len(own))) if place not in own.unreadable]
        members = [own.manifest.member(int(own.index[place]), own.components[place]) for place in places]
        for place, data in zip(places, own.manifest.store.read_many(members), strict=True):
            for name, value in measure_languages(data.decode(errors="replace"), languages).items():
                found[name][place] = value
    return found


def _read_table(path: str | Path) -> pa.Table:
    """Read a Parquet table with a column "key", which may be split into several files as `embed` writes them."""
    path = Path(path)
    files = [path] if path.exists() else sorted(path.parent.glob(f"{path.stem}-*-of-*{path.suffix}"))
    if not files:
        raise ValueError(f"{path} does not exist; pass a Parquet table with one row per key")
    try:
        table = pa.concat_tables(pq.read_table(one) for one in files)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a Parquet table ({error})") from error
    if "key" not in table.column_names:
        raise ValueError(f"{path} needs a column 'key', got {', '.join(table.column_names)}")
    return table


def _rows(own: Measures, table: pa.Table, path: str | Path | None) -> Int64s:
    """Return the table row of each sample, int64 (N,); -1 for samples that cannot be decoded and have no row."""
    keys = table["key"].to_pylist()
    row = {key: at for at, key in enumerate(keys)}
    if len(row) < len(keys):
        twice = next(key for at, key in enumerate(keys) if row[key] != at)
        raise ValueError(
            f"{path} has {len(keys) - len(row)} repeated keys, such as {twice!r}; each key needs exactly one row"
        )
    keys = own.manifest.keys(own.index)
    lacking = [key for place, key in enumerate(keys) if key not in row and place not in own.unreadable]
    if lacking:
        raise ValueError(f"{path} has no row for {_name_some(lacking, keys)}")
    return np.array([row.get(key, -1) for key in keys], np.int64)


def _name_some(names: Sequence[str], among: Sized) -> str:
    return f"{len(names)} of {len(among)} samples, such as {names[0]!r}"


def _check_known(own: Measures, known: Bools, path: str | Path | None, what: str) -> None:
    """Raise ValueError if samples that can be decoded have no number; `known` is bool (N,)."""
    lacking = [place for place in np.flatnonzero(~known).tolist() if place not in own.unreadable]
    if lacking:
        keys = own.manifest.keys(own.index[lacking])
        raise ValueError(
            f"{path}: {what} is null, NaN or infinite for {_name_some(keys, own.index)}. Give each sample a finite "
            "number, or remove such samples first (`maskstream remove`)"
        )


def _numbers(table: pa.Table, path: str | Path | None, taken: Sequence[str]) -> dict[str, Float64s]:
    """Return the numeric columns of a table by name."""
    found = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            if name in taken or not name.isidentifier() or SHARE_NAME.fullmatch(name):
                raise ValueError(f"{path}: column {name!r} cannot be a signal; rename it to an unused identifier")
            found[name] = table[name].cast(pa.float64()).to_numpy()
    if not found:
        raise ValueError(f"{path} needs a numeric column besides 'key', got {', '.join(table.column_names)}")
    return found


def _find_near_features(own: Measures, path: str | Path, cosine: float) -> Float32s:
    """Return the features of a table as vectors of length 1, float32 (N, D), zeros for samples that cannot be decoded.

    Raises ValueError if the table does not have a list of equally many finite numbers for each sample. Logs a warning
    if the features have collapsed.
    """
    table = _read_table(path)
    rows = _rows(own, table, path)
    kind = table.schema.field("features").type if "features" in table.column_names else pa.null()
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not (is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))):
        raise ValueError(
            f"{path} needs a column 'features' with lists of numbers, got {', '.join(table.column_names)}; pass a "
            "table written by `maskstream embed`"
        )
    column = table["features"]
    valid: Bools = np.asarray(column.is_valid().to_numpy(), np.bool_)
    _check_known(own, (rows >= 0) & valid[rows], path, "features")
    lists = column.drop_null()
    lengths = np.unique(pc.list_value_length(lists).to_numpy())
    if len(lengths) != 1 or not lengths[0]:
        found = " and ".join(map(str, lengths[:2].tolist())) or "no"
        raise ValueError(f"{path} has feature vectors of {found} numbers; all samples need vectors of the same length")
    values = pc.list_flatten(lists).combine_chunks().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        values = values.astype(np.float32).reshape(len(lists), -1)
    vectors: Float32s = values[np.cumsum(valid)[rows] - 1]
    vectors[(rows < 0) | ~valid[rows]] = 0
    finite = np.asarray(np.isfinite(vectors).all(1))
    _check_known(own, finite, path, "features")
    vectors[~finite] = 0
    vectors /= np.maximum(np.abs(vectors).max(1, keepdims=True), 1e-30)  # whose squares are finite
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    _warn_of_collapse(vectors, path, cosine)
    return vectors


def _warn_of_collapse(vectors: Float32s, path: str | Path, cosine: float) -> None:
    """Warn if a tenth of the pairs among a thousand samples would be copies."""
    some = vectors[np.unique(np.linspace(0, len(vectors) - 1, _AT_ONCE).astype(np.int64))] if len(vectors) else vectors
    alike = some @ some.T >= cosine
    share = float(alike[~np.eye(len(some), dtype=bool)].mean()) if len(some) > 1 else 0.0
    if share > _COLLAPSED:
        log.warning(
            "%s: %.0f %% of all pairs of samples have a cosine of %g or more, so these features have collapsed or come "
            "from a model that has hardly been trained; use another model, or raise --cosine",
            path,
            100 * share,
            cosine,
        )
