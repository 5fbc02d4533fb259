"""Mixing of loaders or sources by weight.

How samples of several sources become batches is defined by the sources: as rows of one batch (`join_samples`), or as
samples of packed rows (modalities/packed/mixture.py). The order of samples is defined in mix_order.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Self, TypeVar, cast

import numpy as np

from maskstream.shards.arrays import Int64s
from maskstream.shards.format.manifest import Manifest, join_label_names
from maskstream.shards.stores.base import UNHEEDED, Announcement, Range, Together

from .loader import Loader
from .mix_order import MixSamples
from .sampler import (
    BatchSource,
    BatchT,
    DraftT,
    HostT_co,
    RequestT,
    Sampler,
    Wanted,
    check_alike,
    check_source,
)
from .stats import Stats
from .weights import MixOptions, Unit, Weight

PartT = TypeVar("PartT", bound="Loader[Any] | BatchSource[Any, Any, Any, Any]")


def mix(
    parts: Sequence[tuple[PartT, Weight]],
    *,
    seed: int = 0,
    unit: Unit = "samples",
    batches: int | None = None,
    epochs: Sequence[float | None] | None = None,
) -> PartT:
    """Mix loaders, or the sources of loaders, by weight: `mix([(video_loader(A), 3), (video_loader(B), 1)])`.

    Packed rows are mixed in rows, other data in batches. A weight is a number above 0, a schedule over the run, such as
    `masks.Linear(start=0.2, end=0.8)`, or `BySize`. With a schedule the loader needs `steps`. A mixture can itself be a
    part, except of packed rows; its schedules begin with its first sample of the run and end with its last.

    Labels are numbered by one table with the names of all parts: first the names of the first part, then those that
    only the second has, and so on. So a number is the same class in all parts (`Loader.label_names`).

    Args:
        parts: (loader, weight) pairs, such as [(kinetics, 3), (ssv2, 1)]. All loaders must have the same options.
        seed: Random seed of the mixture: the samples that share a batch are the same for any number of ranks.
        unit: Unit of the weights: "samples", or visible "tokens" of packed rows.
        batches: Batches per epoch; by default as many as the samples of all parts fill.
        epochs: Largest number of epochs of each part, None for no limit; beyond it the other parts fill its share.

    Returns:
        A loader with the options of the parts, or of sources a source: `Loader(mix(sources), batch_size=32)`.

    Raises:
        ValueError: Weights or epochs are not allowed, or parts cannot share batches: their settings differ, or they
            are not endless streams (shuffle=False or lanes > 1).
    """
    check_pairs(parts, "loader")
    options = MixOptions(unit=unit, batches=batches, epochs=epochs)
    given: list[Any] = [part for part, _ in parts]
    weights = [weight for _, weight in parts]
    loaders = [part for part in given if isinstance(part, Loader)]
    if not loaders:
        return cast(PartT, _mix(given, weights, seed, options))
    if len(loaders) < len(given):
        raise ValueError("mix() needs either loaders or sources, got both; open all folders with loaders")
    first = loaders[0].options
    for number, loader in enumerate(loaders):
        for name, one in vars(first).items():
            if one != (other := getattr(loader.options, name)):
                raise ValueError(
                    f"the loaders of a mixture share batches, but loader 0 has {name}={one!r} and loader "
                    f"{number} has {name}={other!r}; use the same value for all"
                )
    source = _mix([loader.source for loader in loaders], weights, seed, options)
    at_version = partial(_at_version, loaders, weights, seed, options)
    return cast(PartT, Loader.of_splits(source, first, at_version=at_version))


def _at_version(
    loaders: Sequence[Loader[BatchT]],
    weights: Sequence[Weight],
    seed: int,
    options: MixOptions,
    state: Mapping[str, Any],
) -> Loader[BatchT] | None:
    """The mixture of the versions of its splits that a position was saved with; None if it has these, or none."""
    saved = state.get("sources")
    if not isinstance(saved, list) or len(saved) != len(loaders):
        return None
    others = [loader.at_version(one) for loader, one in zip(loaders, saved, strict=True)]
    if all(other is None for other in others):
        return None
    now = [loader if other is None else other for loader, other in zip(loaders, others, strict=True)]
    return mix([*zip(now, weights, strict=True)], seed=seed, **vars(options))


def mix_rows(parts: Sequence[tuple[PartT, Weight]], **options: Any) -> PartT:
    """The former name of `mix` for packed rows."""
    warnings.warn("mix_rows() is deprecated; use mix(), which takes packed rows, too", DeprecationWarning, stacklevel=2)
    return mix(parts, **options)


def check_pairs(parts: Sequence[tuple[object, Weight]], what: str) -> None:
    """Raise ValueError unless the parts of a mixture are pairs with a weight; `what` names their first element."""
    if not parts:
        raise ValueError(f"a mixture cannot be empty; pass at least one ({what}, weight) pair")
    if wrong := [part for part in parts if not isinstance(part, tuple | list) or len(part) != 2]:
        raise ValueError(
            f"a mixture must be ({what}, weight) pairs, such as [(A, 3), (B, 1)], got {repr(wrong[0])[:80]}"
        )


def _mix(
    sources: Sequence[BatchSource[Any, Any, Any, BatchT]], weights: Sequence[Weight], seed: int, options: MixOptions
) -> BatchSource[Any, Any, Any, BatchT]:
    for source in sources:
        check_source(source, "mix() takes loaders or")
    check_alike([source.form for source in sources])
    join = sources[0].join or join_samples
    sampler, samples = join(sources, weights, seed, options)
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
    if options.unit != "samples":
        raise ValueError(f"unit={options.unit!r} works only with packed rows; use unit='samples' here")
    samples = MixSamples(
        parts=tuple(source.samples for source in sources),
        weights=tuple(weights),
        seed=seed,
        length=options.batches,
        epochs=None if options.epochs is None else tuple(options.epochs),
    )
    sampler = MixSampler(
        samplers=tuple(source.sampler for source in sources),
        starts=samples.starts,
        seed=seed,
        changes=samples.points_of_change is not None,
    )
    return sampler, samples


@dataclass(frozen=True, kw_only=True, slots=True)
class MixRequest(Generic[RequestT]):
    """Request for samples of several parts: for each part, the positions of its samples and their request."""

    n: int
    parts: tuple[tuple[int, Sequence[int], RequestT], ...]

    @property
    def keys(self) -> Sequence[str]:
        """Keys of the samples in their parts."""
        named = {place: key for _, places, own in self.parts for place, key in zip(places, own.keys, strict=True)}
        return [named[place] for place in range(self.n)]

    @property
    def ranges(self) -> Sequence[Range]:
        """Byte ranges of the parts' requests; their names belong to the parts' stores."""
        return [one for _, _, own in self.parts for one in own.ranges]


def _find_innermost(requests: Iterable[Any]) -> Iterator[Any]:
    """Yield the requests of the parts that create rows; in nested mixtures they are at different depths."""
    for request in requests:
        if isinstance(request, MixRequest):
            yield from _find_innermost(own for _, _, own in request.parts)
        else:
            yield request


@dataclass(frozen=True, kw_only=True, slots=True)
class MixSampler(Generic[RequestT, DraftT, HostT_co]):
    """Creates each row with the sampler of its part."""

    samplers: tuple[Sampler[RequestT, DraftT, HostT_co], ...]
    starts: Int64s
    """As in `MixOrder`."""
    seed: int
    changes: bool = False
    """True if a weight changes over the run."""

    @property
    def splits(self) -> tuple[Manifest, ...]:
        """Splits of all parts."""
        return tuple(split for sampler in self.samplers for split in sampler.splits)

    def with_labels(self, names: Sequence[str]) -> Self:
        """Return the same sampler with labels from another name table."""
        return replace(self, samplers=tuple(sampler.with_labels(names) for sampler in self.samplers))

    @property
    def needs_progress(self) -> bool:
        """True if a weight, or the mask of any part, changes over the run."""
        return self.changes or any(sampler.needs_progress for sampler in self.samplers)

    @property
    def needs_torch(self) -> bool:
        """True if any part needs torch."""
        return any(sampler.needs_torch for sampler in self.samplers)

    @property
    def together(self) -> int:
        """Largest number of rows over the parts."""
        return max(sampler.together for sampler in self.samplers)

    def request(self, wanted: Wanted) -> MixRequest[RequestT]:
        """Request samples from the parts that contain them."""
        of, parts = np.searchsorted(self.starts, wanted.indexes, side="right") - 1, []
        for part in np.unique(of).tolist():
            places = np.flatnonzero(of == part)
            own = self.samplers[part].request(wanted.part(places, int(self.starts[part])))
            parts.append((part, places.tolist(), own))
        return MixRequest(n=len(wanted), parts=tuple(parts))

    def announce(self, request: MixRequest[RequestT]) -> Announcement:
        """Announce to the stores of its parts that a request's ranges will be read soon."""
        found = [self.samplers[part].announce(own) for part, _, own in request.parts]
        heeded = tuple(one for one in found if one is not UNHEEDED)
        return Together(heeded) if heeded else UNHEEDED

    def allocate(self, requests: Sequence[MixRequest[RequestT]]) -> DraftT:
        """Allocate the draft of the first part, which all parts share; in nested mixtures, the innermost one."""
        return self.samplers[0].allocate([*_find_innermost(requests)])

    def mask(self, request: MixRequest[RequestT], draft: DraftT, rows: Sequence[int]) -> None:
        """Draw the masks of rows with the samplers of their parts."""
        for part, places, own in request.parts:
            self.samplers[part].mask(own, draft, [rows[place] for place in places])

    def fill(self, request: MixRequest[RequestT], draft: DraftT, rows: Sequence[int], stats: Stats) -> None:
        """Fill rows with the samplers of their parts."""
        for part, places, own in request.parts:
            self.samplers[part].fill(own, draft, [rows[place] for place in places], stats)

    def join(self, draft: DraftT) -> HostT_co:
        """Finish the host batch with the sampler of the first part."""
        return self.samplers[0].join(draft)
