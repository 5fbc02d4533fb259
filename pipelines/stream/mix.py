"""One mixer: `mix` takes loaders, or sources, and their weights.

How samples of several sources become batches is the sources' own: as rows of one batch (`join_samples`), or as samples
of packed rows (modalities/packed/mixture.py). Which sample comes when is mix_order.py's.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, Unpack, overload

import numpy as np

from maskstream.shards.format.manifest import Manifest, join_label_names
from maskstream.shards.stores.base import Announcement, Range

from .loader import Loader, LoaderSettings
from .mix_order import MixSamples
from .order import Int64Array
from .sampler import (
    BatchPlan,
    BatchSource,
    BatchT,
    DraftT,
    HostT,
    HostT_co,
    RequestT,
    Sampler,
    Wanted,
    WholeSampler,
    check_alike,
    check_source,
)
from .stats import Stats
from .weights import MixOptions, Weight, find_part


@overload
def mix(
    parts: Sequence[tuple[Loader[BatchT], Weight]], *, seed: int = 0, **options: Unpack[MixOptions]
) -> Loader[BatchT]: ...
@overload
def mix(
    parts: Sequence[tuple[BatchSource[RequestT, DraftT, HostT, BatchT], Weight]],
    *,
    seed: int = 0,
    **options: Unpack[MixOptions],
) -> BatchSource[Any, DraftT, HostT, BatchT]: ...
def mix(parts: Sequence[tuple[Any, Weight]], *, seed: int = 0, **options: Unpack[MixOptions]) -> Any:
    """Mix loaders, or the sources of loaders, by weight: `mix([(video_loader(A), 3), (video_loader(B), 1)])`.

    Packed rows share rows, all others batches. A weight is a number above 0, a schedule over the run, such as
    `masks.Linear(start=0.2, end=0.8)`, or `BySize`. With a schedule the loader needs `steps`. A mixture can be a part,
    except of packed rows; schedules inside it begin with its own first sample of the run and end with its last.

    Labels are numbered by one table, in which the names of all parts stand: those of the first part, then those that
    only the second has, and so on. So a number is the same class in all parts (`Loader.label_names`).

    Args:
        parts: (loader, weight) pairs, such as [(kinetics, 3), (ssv2, 1)]. Loaders must have the same options.
        seed: Random seed of the mixture: which samples share a batch is the same at any number of ranks.
        options: unit, batches and epochs; see `MixOptions`.

    Returns:
        A loader with the options of the parts, or of sources a source: `Loader(mix(sources), batch_size=32)`.

    Raises:
        ValueError: Weights or epochs are not allowed, or parts cannot share batches: their settings differ, or they
            are not endless streams (shuffle=False or lanes > 1).
    """
    check_pairs(parts, "loader")
    given = [part for part, _ in parts]
    loaders = [part for part in given if isinstance(part, Loader)]
    if not loaders:
        return _mix(parts, seed, options)
    if len(loaders) < len(given):
        raise ValueError("mix() takes loaders, or sources, and got both; open all folders with loaders")
    first = LoaderSettings(**loaders[0].options)
    for number, loader in enumerate(loaders):
        own = LoaderSettings(**loader.options)
        for name in LoaderSettings.__dataclass_fields__:
            if (one := getattr(first, name)) != (other := getattr(own, name)):
                raise ValueError(
                    f"the loaders of a mixture make batches together, but loader 0 has {name}={one!r} and loader "
                    f"{number} {name}={other!r}; give all the same"
                )
    sources = [(loader.source, weight) for loader, (_, weight) in zip(loaders, parts, strict=True)]
    return Loader(_mix(sources, seed, options), **loaders[0].options)


def mix_rows(parts: Sequence[tuple[Any, Weight]], *, seed: int = 0, **options: Unpack[MixOptions]) -> Any:
    """The former name of `mix` for packed rows."""
    warnings.warn("mix_rows() is deprecated; use mix(), which takes packed rows, too", DeprecationWarning, stacklevel=2)
    return mix(parts, seed=seed, **options)


def check_pairs(parts: Sequence[tuple[object, Weight]], what: str) -> None:
    """ValueError unless the parts of a mixture are pairs with a weight; what: the first of each, in a word."""
    if not parts:
        raise ValueError(f"a mixture of nothing: pass at least one ({what}, weight) pair")
    if wrong := [part for part in parts if not isinstance(part, tuple | list) or len(part) != 2]:
        raise ValueError(f"a mixture is ({what}, weight) pairs, such as [(A, 3), (B, 1)], got {repr(wrong[0])[:80]}")


def _mix(
    parts: Sequence[tuple[BatchSource[Any, Any, Any, BatchT], Weight]], seed: int, options: MixOptions
) -> BatchSource[Any, Any, Any, BatchT]:
    sources = [source for source, _ in parts]
    for source in sources:
        check_source(source, "mix() takes loaders or")
    check_alike([source.form for source in sources])
    join = sources[0].join or join_samples
    sampler, samples = join(sources, [weight for _, weight in parts], seed, options)
    return replace(
        sources[0],
        sampler=sampler.with_labels(join_label_names(sampler.splits)),
        samples=samples,
        identity={"sources": [source.identity for source in sources]},
        sizes=tuple(source.samples.n_samples for source in sources) if len(sources) > 1 else (),
    )


def join_samples(
    sources: Sequence[BatchSource[Any, Any, Any, Any]], weights: Sequence[Weight], seed: int, options: MixOptions
) -> tuple[MixSampler[Any, Any, Any], MixSamples]:
    """The samples of several sources in the same batches, each a row of one source."""
    if (unit := options.get("unit", "samples")) != "samples":
        raise ValueError(f"unit={unit!r}: samples are mixed here; only packed rows count tokens")
    epochs = options.get("epochs")
    samples = MixSamples(
        parts=tuple(source.samples for source in sources),
        weights=tuple(weights),
        seed=seed,
        length=options.get("batches"),
        epochs=None if epochs is None else tuple(epochs),
    )
    sampler = MixSampler(
        samplers=tuple(source.sampler for source in sources),
        starts=samples.starts,
        seed=seed,
        changes=samples.points_of_change is not None,
    )
    return sampler, samples


def _by_part(parts: Sequence[int]) -> dict[int, list[int]]:
    """The places at which each part stands."""
    places: defaultdict[int, list[int]] = defaultdict(list)
    for place, part in enumerate(parts):
        places[part].append(place)
    return places


@dataclass(frozen=True, kw_only=True, slots=True)
class MixRequest(Generic[RequestT]):
    """A request for a sample of one part."""

    part: int
    of_part: RequestT

    @property
    def key(self) -> str:
        """The key of the sample in its part."""
        return self.of_part.key

    @property
    def ranges(self) -> Sequence[Range]:
        """The byte ranges of the part's request; their names belong to the store of that part."""
        return self.of_part.ranges


def _innermost(request: Any) -> Any:
    """The request of the part that makes its row; of a mixture of mixtures each part is at its own depth."""
    while isinstance(request, MixRequest):
        request = request.of_part
    return request


@dataclass(frozen=True, kw_only=True, slots=True)
class MixSampler(Generic[RequestT, DraftT, HostT_co]):
    """Makes each row with the sampler of its part. starts: as in `MixOrder`. changes: whether a weight changes over the
    run.
    """

    samplers: tuple[Sampler[RequestT, DraftT, HostT_co], ...]
    starts: Int64Array
    seed: int
    changes: bool = False
    _whole: tuple[WholeSampler[DraftT, HostT_co], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once, for a protocol is slow to ask.
        whole = tuple(one for one in self.samplers if isinstance(one, WholeSampler) and one.at_once)
        object.__setattr__(self, "_whole", whole if len(whole) == len(self.samplers) else ())

    @property
    def splits(self) -> tuple[Manifest, ...]:
        """The splits of all parts."""
        return tuple(split for sampler in self.samplers for split in sampler.splits)

    def with_labels(self, names: Sequence[str]) -> Self:
        """The same sampler with the labels of another table of names."""
        return replace(self, samplers=tuple(sampler.with_labels(names) for sampler in self.samplers))

    @property
    def at_once(self) -> bool:
        """Whether all parts fill many rows at once."""
        return bool(self._whole)

    @property
    def needs_progress(self) -> bool:
        """Whether a weight, or the mask of any part, changes over the run."""
        return self.changes or any(sampler.needs_progress for sampler in self.samplers)

    @property
    def needs_torch(self) -> bool:
        """Whether a part is made with torch."""
        return any(sampler.needs_torch for sampler in self.samplers)

    @property
    def together(self) -> int:
        """As many rows as the part with the most."""
        return max(sampler.together for sampler in self.samplers)

    def requests(self, wanted: Sequence[Wanted]) -> list[MixRequest[RequestT]]:
        """The requests of the parts that hold the samples."""
        found = [find_part(self.starts, one.index) for one in wanted]
        made: dict[int, MixRequest[RequestT]] = {}
        for part, rows in _by_part([part for part, _ in found]).items():
            own = [wanted[row]._replace(index=found[row][1]) for row in rows]
            for row, request in zip(rows, self.samplers[part].requests(own), strict=True):
                made[row] = MixRequest(part=part, of_part=request)
        return [made[row] for row in range(len(wanted))]

    def announce(self, request: MixRequest[RequestT]) -> Announcement:
        """Says that the ranges of a request will be read soon, to the store of its part."""
        return self.samplers[request.part].announce(request.of_part)

    def allocate(self, requests: Sequence[MixRequest[RequestT]]) -> DraftT:
        """The draft of the first part, which all parts share; of a mixture of mixtures the innermost's."""
        return self.samplers[0].allocate([_innermost(request) for request in requests])

    def mask(self, request: MixRequest[RequestT], draft: DraftT, row: int) -> None:
        """Draws the row's masks with the sampler of its part."""
        self.samplers[request.part].mask(request.of_part, draft, row)

    def fill(self, requests: Sequence[MixRequest[RequestT]], draft: DraftT, rows: Sequence[int], stats: Stats) -> None:
        """Fills the rows with the samplers of their parts."""
        for part, places in _by_part([request.part for request in requests]).items():
            of_part = [requests[place].of_part for place in places]
            self.samplers[part].fill(of_part, draft, [rows[place] for place in places], stats)

    def room(self, rows: int) -> DraftT:
        """The draft of the first part, which all parts share."""
        return self._whole[0].room(rows)

    def fill_many(self, plan: BatchPlan, draft: DraftT, rows: Int64Array, stats: Stats) -> bool:
        """Fills the rows of each part with its sampler; False where one of them cannot."""
        of = np.searchsorted(self.starts, plan.indexes, side="right") - 1
        for part, (sampler, start) in enumerate(zip(self._whole, self.starts[:-1].tolist(), strict=True)):
            own = np.flatnonzero(of == part)
            if len(own) and not sampler.fill_many(plan.part(own, start), draft, rows[own], stats):
                return False
        return True

    def join(self, draft: DraftT) -> HostT_co:
        """The host batch, made by the sampler of the first part."""
        return self.samplers[0].join(draft)
