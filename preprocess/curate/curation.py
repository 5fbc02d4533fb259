"""Which samples of a split stay: by rules on what was measured, without copies, and without what evaluation sets hold.

Nothing is deleted: the rest is removed as a new version. Copies are found by an exact search of hashes of frames within
a distance; two samples are copies if half the frames of the shorter one are found in the other, one behind the other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess.versions import remove
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.members.text import JSON, LANGUAGE
from maskstream.shards.named import nearest
from maskstream.shards.stores.local_files import publishing

from .languages import language_signals, named_languages
from .measures import SIGNALS, Floats, Measures, UInt8s, measure
from .prints import PART_BYTES

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

DISTANCES = (48, 18)
"""Frames are alike if their waves, or their slopes, differ in at most this many of 256 bits."""
CLIP_WINDOW_DISTANCE, WINDOW_DISTANCE = 40, 28
"""Of the waves of a frame and those of a window of another: among clips, of which half the frames do not agree by
chance, and where one of both is a picture.
"""
SHARE = 0.5
"""Samples are copies if this share of the frames of the one with fewer is found in the other, in the same order."""
SPEEDS = (1.0, 1.1, 1 / 1.1, 1.25, 1 / 1.25, 1.5, 1 / 1.5, 2.0, 0.5)
"""At which copies of clips may be played."""
COSINE = 0.98
"""Samples are copies by their features if these have this cosine."""
_CELL_S = 0.4
_AT_ONCE = 1024
SHARE_NAME = re.compile(r"p(\d{1,2}(?:_\d+)?)")
_COMPARE: Mapping[type, Callable[[Any, Any], Bools]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
RULES = "motion>0.02 and (sharpness>=p10 or seconds<2)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gone:
    """A sample that does not stay: its place among the measured ones, why ("rule", "copy", "leak", "unreadable"), and
    in words of what. like: the sample that it is a copy of, by its measures and its place in them.
    """

    place: int
    why: str
    of: str
    like: tuple[Measures, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curated:
    """What a curation found. gone: by place. copies: the places of samples that are alike, the one that stays first.

    version: the version that was made, None of a dry run or where all stay. failed: how many samples fail each
    comparison of the rule.
    """

    measures: Measures
    gone: tuple[Gone, ...]
    copies: tuple[tuple[int, ...], ...] = ()
    version: int | None = None
    rule: Rule | None = None
    failed: Mapping[str, int] = field(default_factory=dict)

    def write_list(self, path: Path) -> Path:
        """Writes key, why, of, and the signals of each sample that does not stay as Parquet; returns `path`."""
        own, places = self.measures, [one.place for one in self.gone]
        columns: dict[str, Any] = {
            "key": own.manifest.keys([int(own.index[place]) for place in places]),
            "why": [one.why for one in self.gone],
            "of": [one.of for one in self.gone],
            **{name: values[places] for name, values in own.signals.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with publishing(path) as stream:
            pq.write_table(pa.table(columns), stream)
        return path

    @property
    def counts(self) -> dict[str, int]:
        """How many do not stay, by why."""
        whys = [one.why for one in self.gone]
        return {why: whys.count(why) for why in dict.fromkeys(whys)}


def curate(
    location: SplitLocation,
    *,
    keep: str | None = None,
    copies: bool = False,
    mirrored: bool = False,
    best: str = "pixels",
    scores: str | Path | None = None,
    features: str | Path | None = None,
    cosine: float = COSINE,
    against: Sequence[SplitLocation] = (),
    dry_run: bool = False,
    component: str | None = None,
    kept: str | Path | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Curated:
    """Removes from a split, as a new version, what does not stay. Each sample goes for the first of these reasons.

    It cannot be decoded; it does not meet the rule `keep`; a sample of a split of `against` is a copy of it; with
    `copies`, it is a copy of another that stays, of which the one with the largest signal `best` does, by default
    pixels, then the longer and the sharper one, then that of most bytes. mirrored: copies may be mirrored, and sounds a
    semitone higher or lower. scores: a table in Parquet of a `key` and numbers, such as what a model makes of samples,
    which the rule and `best` name as signals. Of texts they also name languages, as language_en (see
    `language_signals`). features: a table of a `key` and `features`, as `maskstream embed` writes them, for `copies`:
    samples whose features have a cosine of at least `cosine` are copies too; each is compared with each, so it takes
    the square of their number. What `shards --signals` wrote are signals too. For the others see `measure`.

    Raises ValueError for a rule that cannot be understood, and for a table that lacks a sample.
    """
    if features is not None and not (copies and 0 < cosine <= 1):
        raise ValueError(f"features= are for copies=True and cosine= in (0, 1], got copies={copies}, cosine={cosine}")
    manifest = Manifest.load(location)
    written = manifest.components[JSON.name].facts if JSON.name in manifest.components else {}
    table = None if scores is None else _table(scores)
    numbers = {} if table is None else _numbers(table, scores, [*SIGNALS, *written])
    spoken = [one for one in named_languages(f"{keep} {best}") if f"{LANGUAGE}{one}" not in written | numbers]
    names = dict.fromkeys([*SIGNALS, *written, *numbers, *(f"{LANGUAGE}{one}" for one in spoken)])
    if best not in names:
        raise ValueError(f"best={best!r} is no signal{nearest(best, [*names])}; they are {', '.join(names)}")
    rule = None if keep is None else Rule(keep, tuple(names))
    own = measure(manifest, component=component, kept=kept, threads=threads, progress=progress)
    known = {name: np.asarray(values[own.index], np.float64) for name, values in written.items()}
    if table is not None:
        rows = _rows(own, table, scores)
        known |= {name: np.where(rows >= 0, values[rows], np.nan) for name, values in numbers.items()}
    if spoken:
        known |= _languages_of(own, spoken)
    own = replace(own, signals={**known, **own.signals})
    gone = {place: Gone(place=place, why="unreadable", of=reason) for place, reason in own.unreadable.items()}
    failed: dict[str, int] = {}
    if rule is not None:
        stays, failed = rule.apply(own.signals)
        for place in np.flatnonzero(~stays).tolist():
            gone.setdefault(place, Gone(place=place, why="rule", of=keep or ""))
    for other in against:
        theirs = measure(other, component=component, threads=threads)
        if theirs.media != own.media:
            raise ValueError(
                f"{own.manifest} holds {' and '.join(own.media)}, {theirs.manifest} {' and '.join(theirs.media)}: "
                "a split has leaks of its own medium; name another component=, or leave it out of against="
            )
        for place, there in _leaks(own, theirs, [place for place in range(len(own)) if place not in gone], mirrored):
            found = theirs.manifest.key(int(theirs.index[there]))
            gone[place] = Gone(place=place, why="leak", of=f"{found} of {theirs.manifest}", like=(theirs, there))
    groups: dict[int, list[int]] = {}
    if copies:
        by = (best, "seconds", "sharpness", "bytes")
        order = np.lexsort([-np.nan_to_num(own.signals[name]) for name in reversed(by)])
        more = np.empty((0, 2), np.int64) if features is None else _near_features(own, features, cosine)
        groups = _copies(own, order[~np.isin(order, [*gone])], more, mirrored)
        for first, others in groups.items():
            found = own.manifest.key(int(own.index[first]))
            gone |= {place: Gone(place=place, why="copy", of=found, like=(own, first)) for place in others}
    version = None
    if gone and not dry_run:
        if len(gone) == len(own.index):
            raise MaskstreamError(f"none of the {len(own)} samples of {own.manifest} would stay; nothing was changed")
        keys = own.manifest.keys([int(own.index[place]) for place in gone])
        version = remove(own.manifest.location, keys, curated=True).version
    return Curated(
        measures=own,
        gone=tuple(gone[place] for place in sorted(gone)),
        copies=tuple((first, *others) for first, others in sorted(groups.items())),
        version=version,
        rule=rule,
        failed=failed,
    )


def _languages_of(own: Measures, languages: Sequence[str]) -> dict[str, Floats]:
    """How likely each text is in these languages, float64 (N,) by the names of signals."""
    language_signals("", languages)  # which says what is wrong with them
    if own.media != {"texts"}:
        raise ValueError(
            f"{LANGUAGE}{languages[0]} is of texts, and of {own.manifest} its {' and '.join(own.media)} are measured; "
            "leave it out, or name a component= of texts"
        )
    found = {f"{LANGUAGE}{one}": np.full(len(own), np.nan) for one in languages}
    for first in range(0, len(own), _AT_ONCE):
        places = [place for place in range(first, min(first + _AT_ONCE, len(own))) if place not in own.unreadable]
        members = [own.manifest.member(int(own.index[place]), own.components[place]) for place in places]
        for place, data in zip(places, own.manifest.store.read_many(members), strict=True):
            for name, value in language_signals(data.decode(errors="replace"), languages).items():
                found[name][place] = value
    return found


def _table(path: str | Path) -> pa.Table:
    """A table in Parquet with the column key, also one of several files as `embed` names them."""
    path = Path(path)
    files = [path] if path.exists() else sorted(path.parent.glob(f"{path.stem}-*-of-*{path.suffix}"))
    if not files:
        raise ValueError(f"there is no {path}; give a table in Parquet with a row for each key")
    try:
        table = pa.concat_tables(pq.read_table(one) for one in files)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no table in Parquet ({error})") from error
    if "key" not in table.column_names:
        raise ValueError(f"{path} has no column key, but {', '.join(table.column_names)}")
    return table


def _rows(own: Measures, table: pa.Table, path: str | Path | None) -> Ints:
    """The row of each sample, int64 (N,), -1 of those that cannot be decoded and have none."""
    row = {key: at for at, key in enumerate(table["key"].to_pylist())}
    keys = own.manifest.keys(own.index)
    if lacking := [key for place, key in enumerate(keys) if key not in row and place not in own.unreadable]:
        raise ValueError(f"{path} has no row for {len(lacking)} of {len(keys)} samples, such as {lacking[0]!r}")
    return np.array([row.get(key, -1) for key in keys], np.int64)


def _numbers(table: pa.Table, path: str | Path | None, taken: Sequence[str]) -> dict[str, Floats]:
    """The columns of numbers of a table, by name."""
    found = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            if name in taken or not name.isidentifier() or SHARE_NAME.fullmatch(name):
                raise ValueError(
                    f"{path}: the column {name!r} cannot be a signal; give it a name of letters, of its own"
                )
            found[name] = table[name].cast(pa.float64()).to_numpy()
    if not found:
        raise ValueError(f"{path} has no column of numbers beside key, but {', '.join(table.column_names)}")
    return found


def _near_features(own: Measures, path: str | Path, cosine: float) -> Ints:
    """The pairs of samples whose features have at least this cosine, int64 (P, 2), the smaller place first."""
    table = _table(path)
    if "features" not in table.column_names:
        raise ValueError(f"{path} has no column features, but {', '.join(table.column_names)}; give what embed wrote")
    rows = _rows(own, table, path)
    values = table["features"].combine_chunks().values.to_numpy(zero_copy_only=False).astype(np.float32)
    vectors = values.reshape(len(table), -1)[rows]
    vectors[rows < 0] = 0
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = [np.empty((0, 2), np.int64)]
    for first in range(0, len(vectors), _AT_ONCE):
        near = np.argwhere(vectors[first : first + _AT_ONCE] @ vectors[first:].T >= cosine) + first
        found.append(near[near[:, 0] < near[:, 1]])
    return np.concatenate(found)


def _parts(count: int) -> Iterator[slice]:
    """Slices of `count` places, each 16 times as long as the one before: of many that are alike the first few tell, so
    that not each is compared with each.
    """
    first, size = 0, 1
    while first < count:
        yield slice(first, first + size)
        first, size = first + size, size * 16


def _grouped(pairs: Ints, order: Ints) -> dict[int, list[int]]:
    """For each sample that stays, those that go as copies of it, by pairs of samples that are alike, int64 (P, 2).
    order: as of `_copies`.
    """
    rank = np.zeros(int(order.max(initial=-1)) + 1, np.int64)
    rank[order] = np.arange(len(order))
    better, worse = np.divmod(np.unique(np.sort(rank[pairs], axis=1) @ [len(order), 1]), max(len(order), 1))
    ones, starts = np.unique(better, return_index=True)
    groups: dict[int, list[int]] = {}
    taken = np.zeros(len(order), bool)
    for one, (begin, end) in zip(ones.tolist(), pairwise([*starts.tolist(), len(worse)]), strict=True):
        others = worse[begin:end][~taken[worse[begin:end]]]
        if not taken[one] and len(others):
            groups[int(order[one])] = sorted(order[others].tolist())
            taken[others] = True
    return groups


def _leaks(own: Measures, theirs: Measures, left: Sequence[int], mirrored: bool) -> Iterator[tuple[int, int]]:
    """Those of the samples `left` that are copies of samples of `theirs`, each with the first of these."""
    some = np.array(left, np.int64)
    for part in _parts(len(theirs)):
        pairs = alike(own, theirs, mirrored=mirrored, ours=some, among=np.arange(len(theirs))[part])
        places, at = np.unique(pairs[:, 0], return_index=True)
        yield from zip(places.tolist(), pairs[at, 1].tolist(), strict=True)
        some = np.setdiff1d(some, places)


def _copies(own: Measures, order: Ints, more: Ints, mirrored: bool) -> dict[int, list[int]]:
    """For each sample that stays, those that go as copies of it: the best come first, and a sample goes if it is alike
    to one that stays. So what is only a copy of a copy stays.

    order: int64 (n,), the samples, the best first. more: pairs that are alike besides, int64 (P, 2).
    """
    groups: dict[int, list[int]] = {}
    left = np.zeros(len(own), bool)
    left[order] = True
    for part in _parts(len(order)):
        some = order[part][left[order[part]]]
        pairs = alike(own, own, mirrored=mirrored, ours=some, among=np.flatnonzero(left))
        of = np.isin(more, some).any(1) & left[more].all(1)
        groups |= _grouped(np.concatenate([pairs, more[of]]), order)
        gone = [place for others in groups.values() for place in others]
        left[some] = left[gone] = False
    return groups


class Rule:
    """A condition on signals, such as RULES: comparisons with numbers, or with p10, the tenth percentile of the signal
    that it is compared with, joined by and, or, not and brackets. names: of the signals.

    Raises ValueError for what is none.
    """

    def __init__(self, text: str, names: Sequence[str] = tuple(SIGNALS)) -> None:
        self.text, self.names = text, names
        try:
            self._tree = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._error(f"cannot be understood ({error.args[0] if error.args else error})") from None
        self._check(self._tree)

    def apply(self, signals: Mapping[str, Floats]) -> tuple[Bools, dict[str, int]]:
        """Which samples meet it, bool (N,), and how many fail each of its comparisons; a signal that is NaN meets
        none.
        """
        failed = {
            ast.unparse(one): int((~self._compared(one, signals)).sum())
            for one in ast.walk(self._tree)
            if isinstance(one, ast.Compare)
        }
        return self._met(self._tree, signals), failed

    def thresholds(self, signals: Mapping[str, Floats]) -> list[tuple[str, float]]:
        """Each signal with the number that it is compared with, in the order of the text."""
        found = []
        for one in ast.walk(self._tree):
            if isinstance(one, ast.Compare):
                sides = [one.left, *one.comparators]
                for a, b in pairwise(sides):
                    name, other = (a, b) if self._signal(a) else (b, a)
                    found.append((self._signal(name), float(np.max(self._value(other, self._signal(name), signals)))))
        return found

    def _met(self, node: ast.expr, signals: Mapping[str, Floats]) -> Bools:
        if isinstance(node, ast.BoolOp):
            parts = [self._met(one, signals) for one in node.values]
            return np.asarray(np.all(parts, 0) if isinstance(node.op, ast.And) else np.any(parts, 0))
        if isinstance(node, ast.UnaryOp):
            return ~self._met(node.operand, signals)
        assert isinstance(node, ast.Compare)
        return self._compared(node, signals)

    def _compared(self, node: ast.Compare, signals: Mapping[str, Floats]) -> Bools:
        sides = [node.left, *node.comparators]
        met = np.ones(len(next(iter(signals.values()))), bool)
        for a, op, b in zip(sides, node.ops, sides[1:], strict=False):
            of = self._signal(a) or self._signal(b)
            met &= _COMPARE[type(op)](self._value(a, of, signals), self._value(b, of, signals))
        return met

    def _value(self, node: ast.expr, of: str, signals: Mapping[str, Floats]) -> Floats | float:
        if isinstance(node, ast.Name):
            share = SHARE_NAME.fullmatch(node.id)
            if share is None:
                return signals[node.id]
            known = signals[of][np.isfinite(signals[of])]
            return float(np.percentile(known, float(share[1].replace("_", ".")))) if len(known) else np.nan
        return float(ast.literal_eval(node))

    def _check(self, node: ast.expr) -> None:
        if isinstance(node, ast.BoolOp):
            for one in node.values:
                self._check(one)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._check(node.operand)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(type(op) not in _COMPARE for op in node.ops):
                raise self._error("compares otherwise than by <, <=, > and >=")
            for one in sides:
                self._check_side(one)
            if any(bool(self._signal(a)) == bool(self._signal(b)) for a, b in pairwise(sides)):
                raise self._error("compares other things than a signal with a number or a share such as p10")
        else:
            raise self._error(f"has {ast.unparse(node)!r}, which is no comparison")

    def _check_side(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name):
            if node.id not in self.names and not SHARE_NAME.fullmatch(node.id):
                raise self._error(f"has {node.id!r}, which is no signal{nearest(node.id, [*self.names])}")
            return
        number = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else node
        if not isinstance(number, ast.Constant) or type(number.value) not in (int, float):
            raise self._error(f"has {ast.unparse(node)!r}, which is neither a signal nor a number")

    def _error(self, what: str) -> ValueError:
        return ValueError(f"the rule {self.text!r} {what}; a rule is like {RULES!r}, of {', '.join(self.names)}")

    def _signal(self, node: ast.expr) -> str:
        """The signal that a node names, "" for none."""
        return node.id if isinstance(node, ast.Name) and node.id in self.names else ""


def alike(
    own: Measures,
    theirs: Measures,
    *,
    mirrored: bool = False,
    ours: Ints | None = None,
    among: Ints | None = None,
) -> Ints:
    """The pairs of samples that are copies of each other, int64 (P, 2): places in `own` and in `theirs`, sorted.

    Of measures beside themselves each pair comes once, the smaller place first. ours, among: which samples of `own` and
    of `theirs` are compared, all by default; of measures beside themselves `ours` are some of `among`.
    """
    itself, all_of_them = own is theirs, ours is None and among is None
    mine, others = _frames_in(own, ours), _frames_in(theirs, among)
    frames = [_frames(own.whole, mine, theirs.whole, others)]
    frames.append(_cropped_frames(own, mine, theirs, others))
    frames += [_frames(own.whole, mine, theirs.mirrored, others)] if mirrored else []
    if not (itself and all_of_them):
        back = [_cropped_frames(theirs, others, own, mine)]
        back += [_frames(theirs.whole, others, own.mirrored, mine)] if mirrored else []
        frames += back if itself else [one[:, ::-1] for one in back]
    pairs = np.concatenate([_pairs(own, theirs, one) for one in frames])
    if itself:
        pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    return _unique(pairs)


def _unique(pairs: Ints) -> Ints:
    """Pairs int64 (P, 2), each once, sorted."""
    length = int(pairs.max(initial=0)) + 1  # one number each, for numpy takes 30 times as long for rows
    return np.stack(np.divmod(np.unique(pairs @ [length, 1]), length), 1)


def _pairs(own: Measures, theirs: Measures, frames: Ints) -> Ints:
    """The pairs of samples of which enough frames are alike and follow each other alike, int64 (P, 2). frames: the
    pairs of frames that are alike, int64 (F, 2).

    Frames of a copy lie on a line: their times are those of the other, times a speed, plus a shift. Each pair of frames
    votes for the shift that it would have at each of SPEEDS, in cells that overlap by half. One frame needs one vote.
    """
    a, b = own.owner[frames[:, 0]], theirs.owner[frames[:, 1]]
    if own is theirs:
        frames, a, b = (one[a != b] for one in (frames, a, b))
    n_a, n_b, all_codes = np.diff(own.start)[a], np.diff(theirs.start)[b], a * len(theirs) + b
    of_one = np.minimum(n_a, n_b) == 1
    at_once, frames, n_a, n_b = np.unique(all_codes[of_one]), frames[~of_one], n_a[~of_one], n_b[~of_one]
    codes, which = np.unique(all_codes[~of_one], return_inverse=True)
    shorter = np.where(n_a <= n_b, frames[:, 0], frames[:, 1])  # the frame of the sample that has fewer
    most = np.zeros(len(codes), np.int64)
    for speed in SPEEDS:
        shift = (theirs.times[frames[:, 1]] - speed * own.times[frames[:, 0]]) / _CELL_S
        for of in (np.floor(shift), np.floor(shift + 0.5)):
            cell = of.astype(np.int64) - int(of.min(initial=0))
            across, length = int(cell.max(initial=0)) + 1, int(shorter.max(initial=0)) + 1
            votes = np.unique((which * across + cell) * length + shorter) // length
            cells, counts = np.unique(votes, return_counts=True)
            np.maximum.at(most, cells // across, counts)
    a, b = np.divmod(codes, max(len(theirs), 1))
    fewer = np.minimum(np.diff(own.start)[a], np.diff(theirs.start)[b])
    met = np.concatenate([at_once, codes[most >= SHARE * fewer]])
    return np.asarray(np.stack(np.divmod(met, max(len(theirs), 1)), 1), np.int64)


def _frames_in(of: Measures, samples: Ints | None) -> Ints:
    """The frames of samples, all of None: int64 (F,)."""
    chosen = np.ones(len(of), bool)
    if samples is not None:
        chosen[:] = False
        chosen[samples] = True
    return np.flatnonzero(np.repeat(chosen, np.diff(of.start)))


def _cropped_frames(copies: Measures, some: Ints, others: Measures, among: Ints) -> Ints:
    """The pairs of the frames `some` and `among`, int64 (P, 2), of which the first is like a window of the second."""
    from .near import near

    in_clip, of_clip = (np.repeat(counts > 1, counts) for counts in (np.diff(one.start) for one in (copies, others)))
    clips = in_clip[some].any() and of_clip[among].any()
    waves, found = copies.whole[some, :PART_BYTES], [np.empty((0, 2), np.int64)]
    for at in range(others.windows.shape[1]):
        has = among[others.windows[among, at].any(1)] if len(others.windows) else among[:0]
        windows = others.windows[has, at]
        pairs = near(waves, windows, CLIP_WINDOW_DISTANCE if clips else WINDOW_DISTANCE)
        frames = np.stack([some[pairs[:, 0]], has[pairs[:, 1]]], 1)
        if clips:
            differing = np.bitwise_count(waves[pairs[:, 0]] ^ windows[pairs[:, 1]]).sum(1)
            frames = frames[(differing <= WINDOW_DISTANCE) | (in_clip[frames[:, 0]] & of_clip[frames[:, 1]])]
        found.append(frames)
    return _unique(np.concatenate(found))


def _frames(ours: UInt8s, some: Ints, others: UInt8s, among: Ints) -> Ints:
    """The pairs of the frames `some` and `among` that are alike, int64 (P, 2): of hashes beside themselves once, the
    first frame first.
    """
    from .near import near

    found, itself = [], others is ours
    for at, distance in enumerate(DISTANCES):
        part = slice(at * PART_BYTES, (at + 1) * PART_BYTES)
        mine = ours[some, part]
        pairs = near(mine, mine if itself and len(some) == len(among) else others[among, part], distance)
        one, two = some[pairs[:, 0]], among[pairs[:, 1]]
        if itself:
            one, two = (way(one, two)[one != two] for way in (np.minimum, np.maximum))
        found.append(one * len(others) + two)
    codes = np.unique(np.concatenate(found))
    return np.stack(np.divmod(codes, max(len(others), 1)), 1)
