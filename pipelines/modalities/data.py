"""Base class of data configs: everything that determines a batch, except which samples it holds and their order."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial, reduce
from inspect import cleandoc
from operator import attrgetter
from typing import Any, ClassVar, Generic, Self, cast

import numpy as np

from maskstream.pipelines.augment import CenterCrop, SharedCrop
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.masks.core import needed_cues
from maskstream.pipelines.masks.core.visible import visible_tokens
from maskstream.pipelines.stream.loader import Loader, LoaderOptions
from maskstream.pipelines.stream.mix import check_pairs, mix
from maskstream.pipelines.stream.sampler import BatchSource, BatchT, Finish, HostT, Unchanged
from maskstream.pipelines.stream.weights import MixOptions, Weight
from maskstream.shards.arrays import Bools, Float64s
from maskstream.shards.config import Config, Json
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.keywords import describe_fields, narrow, takes_fields

from .fields import FieldReader, Fields
from .phases import OverRun, PhasedSampler, PhasedVisible, split_phases
from .row_sampler import RowSampler, RowSource
from .rows import PartT, PlanT, RowMaker
from .split import Options, SharedOptions, Split, Splits, open_manifest_of_state, open_split
from .targets import TARGETS, TargetReader


class DataConfig(Config, ABC, Generic[BatchT]):
    """Settings of a modality's loader. A recipe contains one, a loader is opened with it, and a resume compares it."""

    __slots__ = ()

    modality: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]] = ()
    """Modalities of the splits that it loads, if they differ from the config's modality."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Add the fields to the docstring of a config whose settings are declared by a base."""
        super().__init_subclass__(**options)
        if cls.__doc__ and "Attributes:" not in cls.__doc__ and (entries := describe_fields(cls)):
            cls.__doc__ = f"{cleandoc(cls.__doc__)}\n\nAttributes:\n{entries}"

    @property
    @abstractmethod
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grids of a batch, by the part of a sample: "video", "audio", "points".

        Empty if each sample has its own grid.

        Raises:
            ValueError: The data cannot be divided into whole tokens.
        """

    def whole(self) -> Self:
        """Config whose batches contain all pixels of their samples; by default this one."""
        return self

    def elsewhere(self) -> Self:
        """Config for a split other than the one that its targets belong to; by default this one."""
        return self

    @abstractmethod
    def source(self, split: Split) -> BatchSource[Any, Any, Any, BatchT]:
        """Create the source of a split, for a loader or a mixture."""

    def loader_source(self, split: Split) -> BatchSource[Any, Any, Any, BatchT]:
        """Create the source of a split for a loader; it differs from a mixture's if DALI decodes."""
        return self.source(split)

    @takes_fields(Options).in_method
    def loader(self, location: Splits, options: Options) -> Loader[BatchT]:
        """A loader of the split at a location, or of one that is open, or of several that are mixed by weight, each of
        the version that it is opened at; the options are those that all loaders take.
        """
        kinds = self.modalities or self.modality
        loading, mixing = narrow(LoaderOptions, options), narrow(MixOptions, options)
        # A manifest that is open already stays the version that it is, and so does a version that was asked for.
        stays = options.version is not None
        if isinstance(location, list | tuple):
            check_pairs(location, "folder")
            parts: list[tuple[Split, Weight]] = []
            for one, weight in location:
                parts.append((open_split(one, kinds, options), weight))
                stays = stays or isinstance(one, Manifest)
            manifests = [(split.manifest, weight) for split, weight in parts]
            return Loader.of_splits(
                mix([(self.source(split), weight) for split, weight in parts], seed=options.seed, **vars(mixing)),
                loading,
                at_version=None if stays else partial(self._at_version, manifests, options),
            )
        if given := [name for name, value in vars(mixing).items() if value != getattr(MixOptions, name)]:
            raise ValueError(f"{', '.join(given)}: allowed only with several splits, such as [(A, 3), (B, 1)]")
        split = open_split(cast(SplitLocation, location), kinds, options)
        return Loader.of_splits(
            self.loader_source(split),
            loading,
            at_version=None
            if stays or isinstance(location, Manifest)
            else partial(self._at_version, split.manifest, options),
            part=partial(self.source, split),
        )

    def _at_version(
        self, opened: Manifest | list[tuple[Manifest, Weight]], options: Options, state: Mapping[str, Any]
    ) -> Loader[BatchT] | None:
        """A loader of a split, or of several, as a saved position needs them; None if they are, or contain something
        else.
        """
        others = vars(replace(options, version=None, cache=None))
        if isinstance(opened, Manifest):
            needed = open_manifest_of_state(opened, state)
            return None if needed is opened else self.loader(needed, **others)
        saved = state.get("sources")
        if not isinstance(saved, list) or len(saved) != len(opened) or not all(isinstance(s, Mapping) for s in saved):
            return None
        now = [(open_manifest_of_state(one, own), weight) for (one, weight), own in zip(opened, saved, strict=True)]
        same = all(one is other for (one, _), (other, _) in zip(opened, now, strict=True))
        return None if same else self.loader(now, **others)

    @classmethod
    def open(cls, location: Splits, options: SharedOptions, **changed: int) -> Loader[BatchT]:
        """Open the loader of a location.

        Args:
            location: Location of a split, or (location, weight) pairs of several.
            options: Fields of this config and the options of its loader, in one dataclass.
            **changed: Options of the loader with other values.
        """
        return narrow(cls, options).loader(location, **vars(narrow(Options, options, **changed)))


class SplitConfig(DataConfig[BatchT], Generic[PlanT, BatchT]):
    """Data config whose rows are created by `rows`."""

    __slots__ = ()
    alike: ClassVar[tuple[str, ...]]
    """Settings that the parts of a mixture must share."""
    changing: ClassVar[tuple[str, ...]] = ()
    """Settings that may change over the run."""

    @property
    def views(self) -> int:
        """Number of views per sample."""
        return 1

    @property
    def fields(self) -> Fields:
        """Values of a sample for `batch.fields`."""
        return ()

    @property
    def cycle(self) -> int | None:
        """Number of epochs after which clips, crops and colours repeat; None for never."""
        return None

    @property
    def targets(self) -> str | None:
        """Folder of a teacher's outputs for the samples (see targets.py)."""
        return None

    @abstractmethod
    def rows(self, split: Split) -> RowMaker[PlanT, BatchT]:
        """Create the row maker of a split; call on a resolved config."""

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split.

        Raises:
            ValueError: A setting does not fit the split.
        """
        return self

    def short(self, manifest: Manifest) -> Bools | None:
        """Return which samples are too short for the clip, from the manifest alone: bool (N,); call on a resolved
        config.

        None if clips have no length in frames.
        """
        return None

    def fps(self, manifest: Manifest) -> Float64s | None:
        """Return the frames per second of each sample, float64 (N,), 0 without frames; call on a resolved config.

        None if samples have no frames.
        """
        return None

    def chosen(self, split: Split) -> Split:
        """Select the samples that are loaded, by default all; call on a resolved config."""
        return split

    def finish(self, split: Split) -> Finish[BatchT, BatchT]:
        """Create the device transform, by default none; call on a resolved config."""
        return Unchanged()

    def sampler(self, split: Split) -> RowSampler[PlanT, BatchT]:
        """Create the sampler of a split."""
        own = self.resolved(split)
        return own._sampler(own.rows(split), split)

    @property
    def over_run(self) -> OverRun:
        """Schedules of the settings that change over the run, by name, such as "clip.frames"."""
        return {}

    @property
    def phases(self) -> list[tuple[float, Self]]:
        """Return the settings of each phase of the run and the progress at which it starts.

        Raises:
            ValueError: A setting or schedule is not allowed.
        """
        if not self.over_run:
            return [(0.0, self)]
        if self.targets is not None:
            raise ValueError("targets= needs samples of a fixed size, but over_run changes it; leave one out")
        changed: dict[str, Any] = {"over_run": {}}
        return split_phases(replace(self, **changed), self.over_run, self.changing)

    def source(self, split: Split) -> BatchSource[Any, Any, BatchT, BatchT]:
        """Create the source of a split, for a loader or a mixture. Validation uses the settings at the
        end of the run.
        """
        own = self.resolved(split)
        source = own._source(own.rows(split), own.finish(split), split)
        return own._build_phased_source(source, split) if self.over_run and split.shuffle else source

    def _build_phased_source(
        self, source: RowSource[PlanT, BatchT, BatchT], split: Split
    ) -> BatchSource[Any, Any, BatchT, BatchT]:
        """Create the source whose batches follow the settings of their phase; call on a resolved config."""
        starts, each = zip(*((start, one.resolved(split)) for start, one in self.phases), strict=True)
        splits = [one.chosen(split) for one in each]
        kept = [one.kept for one in splits if one.kept is not None]
        split = replace(split, kept=reduce(np.intersect1d, kept) if kept else None)
        if any(one.finish(split) != source.finish for one in each):
            raise ValueError(
                f"over_run={dict(self.over_run)}: the work left for the device would depend on the phase; let the "
                "loader's threads do it, with on_device=False for audio, or flow='codec' or 'dis' for clips"
            )
        sources = [one._source(one.rows(split), source.finish, split) for one in each]
        seen = [one.visible for one in sources if one.visible is not None]
        return BatchSource(
            sampler=PhasedSampler(starts=starts, samplers=tuple(one.sampler for one in sources)),
            finish=source.finish,
            samples=sources[-1].samples,
            identity=source.identity,
            visible=PhasedVisible(starts=starts, each=tuple(seen)) if len(seen) == len(sources) else None,
            form={**source.form, "over_run": self.over_run},
        )

    def elsewhere(self) -> Self:
        """See DataConfig."""
        changed: dict[str, Any] = {} if self.targets is None else {"targets": None}
        return replace(self, **changed)

    def alone(self) -> Self:
        """Config of the visible pixels of samples: without masks, fields and targets, and with one view if all views
        are equal.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {name: None for name, value in own.items() if isinstance(value, Mask)}
        changed |= {name: value for name, value in _UNSEEN.items() if name in own}
        same_pixels = own.get("colour") is None and own.get("transform") is None
        if isinstance(own.get("augment"), SharedCrop | CenterCrop) and same_pixels:
            changed["views"] = 1
        return replace(self, **changed)

    def geometry(self, rows: RowMaker[Any, Any], split: Split) -> Json:
        """Return the settings that determine the visible pixels of samples, apart from their selection; call on a
        resolved config.
        """
        how = {name: value for name, value in rows.traits.identity.items() if name not in split.identity}
        return {"data": self.alone().to_dict(identity=True), **how}

    def _sampler(self, rows: RowMaker[PartT, HostT], split: Split) -> RowSampler[PartT, HostT]:
        fields = FieldReader.of(split, self.fields, self.fps(split.manifest))
        targets = None
        if self.targets is not None:
            if TARGETS in fields.names:
                raise ValueError(f"fields={fields.names}: the name {TARGETS} is reserved for targets=; leave one out")
            targets = TargetReader.open(self.targets, self.geometry(rows, split), self.cycle, split)
        return RowSampler(
            rows=rows,
            manifest=split.manifest,
            fields=fields,
            seed=split.seed,
            views=self.views,
            kept=split.kept,
            cycle=self.cycle if targets is None else targets.cycle,
            targets=targets,
        )

    def _source(
        self, rows: RowMaker[PartT, HostT], finish: Finish[HostT, BatchT], split: Split
    ) -> RowSource[PartT, HostT, BatchT]:
        """Create the source from rows and a device transform; call on a resolved config."""
        split = self.chosen(split)
        sampler, samples = self._sampler(rows, split), split.samples
        sampler.fields.check(split.kept)
        traits, targets = sampler.traits, sampler.targets
        return BatchSource(
            sampler=sampler,
            finish=finish,
            samples=samples if traits.shard_rows is None else replace(samples, shard_sizes=traits.shard_rows),
            identity={
                "data": self.to_dict(identity=True),
                **split.identity,
                **traits.identity,
                **({} if targets is None else {TARGETS: targets.identity}),
            },
            visible=visible_tokens(*((one.mask, one.grid) for one in rows.masks)) if traits.counted else None,
            form={
                **{name: attrgetter(name)(self) for name in ("views", *self.alike)},
                **{one.field: one.mask for one in rows.masks},
                **traits.form,
                "fields": sampler.fields.names if targets is None else (*sampler.fields.names, TARGETS),
            },
        )


class RowConfig(SplitConfig[PlanT, BatchT], RowMaker[PlanT, BatchT]):
    """Data config that creates the rows itself, because it needs no preparation for a split."""

    __slots__ = ()

    def rows(self, split: Split) -> RowMaker[PlanT, BatchT]:
        """Return the config itself."""
        return self


def check_cues(mask: Mask | None, whose: str, cues: frozenset[str] = frozenset()) -> None:
    """Raise ValueError for a mask that needs an input that is not in `cues`; `whose` names the data
    that provides them.
    """
    if mask is not None and (other := sorted(needed_cues(mask) - cues)):
        only = f"only {', '.join(sorted(cues))}" if cues else "no cues"
        raise ValueError(f"{mask} needs {', '.join(other)}, but {whose} have {only}; use a different mask")


_UNSEEN: Mapping[str, Any] = {"fields": (), "targets": None, "cycle": None, "flow": "none"}
"""Neutral values of settings that do not change the visible pixels of a sample."""
