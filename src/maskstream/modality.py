"""The spec of a modality for commands and pages: one frozen object from which all tables are derived."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from maskstream.pipelines.stream.rng import START

from .pages.figures.figures import Figures
from .pipelines.masks import MASKS, Cues, Draw, Mask, TokenGrid
from .pipelines.masks.core import maps_of, needed_cues
from .pipelines.modalities.data import DataConfig
from .pipelines.modalities.video.clip import VideoClip, aligned, short_videos
from .preprocess.encode.encoder import Encoder
from .shards.config import with_set
from .shards.format.manifest import Manifest
from .shards.members.video import VIDEO
from .shards.named import named, nearest

RUN_STEPS = 10_000
"""Assumed length of the run in batches, for masks whose ratio changes over it; pages use only its beginning."""
NO_MASK = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskField:
    """A mask field of a data config.

    Attributes:
        name: Name of the field.
        grid: Token grid that its masks are drawn on.
        cues: Mask inputs that the loader provides.
        must: Mask inputs that a mask must read.
    """

    name: str = "mask"
    grid: TokenGrid
    cues: frozenset[str] = frozenset()
    must: frozenset[str] = frozenset()

    def misfit(self, mask: Mask) -> str:
        """Return why a mask cannot be drawn on this grid with these inputs, to follow "on the tokens"; "" if it can."""
        needs = needed_cues(mask)
        if needs or self.must:
            if other := needs - self.cues:
                cues = f" (their cues: {', '.join(sorted(self.cues))})" if self.cues else ""
                return f", which have no {', '.join(sorted(other))}{cues}"
            return "" if self.must <= needs else f": it does not read {', '.join(sorted(self.must))}"
        try:
            maps_of(mask, self.grid, Draw.of(0, 0, "", 0, START, Cues()))
        except ValueError as error:
            return f": {error}"
        return ""

    def legal(self) -> list[str]:
        """Return the names of the masks that fit."""
        return [NO_MASK, *(name for name, make in MASKS.items() if not self.misfit(make()))]

    def mask(self, name: str, modality: str) -> Mask | None:
        """Return a mask by name or `package.module:name`.

        Args:
            name: Name of the mask; `none` for no mask.
            modality: Name of the modality, for messages.

        Raises:
            ValueError: The mask is unknown or does not fit.
        """
        if name == NO_MASK:
            return None
        mask = mask_named(name) if name in MASKS or ":" in name else None
        if mask is not None and not (misfit := self.misfit(mask)):
            return mask
        what = (
            f"is not a mask{nearest(name, self.legal())}"
            if mask is None
            else f"cannot be drawn on the tokens of {modality}{misfit}"
        )
        raise ValueError(
            f"--mask {name!r} {what}; choose from {', '.join(self.legal())}, or package.module:name for a custom mask"
        )


def mask_named(name: str) -> Mask:
    """Return a mask by name, or `package.module:name`, which is a mask or a class whose settings all have defaults.

    Raises:
        ValueError: The name is unknown or not a mask.
    """
    found: object = named(name, MASKS, "mask")
    try:
        mask = found() if callable(found) and not isinstance(found, Mask) else found
    except TypeError as error:
        raise ValueError(
            f"the mask {name!r} cannot be created without settings ({error}); all of its settings need defaults"
        ) from error
    if not isinstance(mask, Mask):
        raise ValueError(f"{name!r} is a {type(mask).__name__}, not a mask; pass a subclass of masks.Mask")
    return mask


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """The commands of `maskstream demo`.

    Attributes:
        recipe: Recipe to train.
        dataset: Dataset to convert instead of the modality's sample set.
        chosen: Options of `maskstream shards`.
        settings: Options of `maskstream train`.
        probed: Whether the features are probed with the labels of the dataset.
        more: Further commands, with {data} for the folder of the shards and {run} for the run's.
    """

    recipe: str
    dataset: str = ""
    chosen: str = ""
    settings: str = ""
    probed: bool = False
    more: tuple[str, ...] = ()

    def commands(self, modality: str) -> list[list[str]]:
        """Return the arguments of each `maskstream` command."""
        dataset = self.dataset or f"sample-{modality}"
        data, run = f"data/shards/{dataset}", "runs/demo" if modality == "video" else f"runs/demo-{modality}"
        lines = (
            f"shards {dataset} --root data/raw/{dataset} --out {{data}} {self.chosen}",
            f"train {self.recipe} --data {{data}}/train --out {{run}} {self.settings}",
            "probe {run} --data {data}/train --test {data}/val --probes linear,knn10 --seeds 1" if self.probed else "",
            "report {run} --data {data}/val --out {run}/report.html",
            *self.more,
        )
        return [line.format(data=data, run=run).split() for line in lines if line]


def as_it_is(manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
    """Return `data` unchanged.

    Args:
        manifest: Not used.
        data: The data config.
    """
    return data


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """The spec of one modality.

    Attributes:
        name: Name of the modality.
        unit: Word for one sample.
        units: Word for several samples.
        kinds: Kinds of the components of a sample.
        encoder: Builds the encoder of raw files.
        data: Default data config of `preview` and `bench`.
        masks: Mask fields of the config.
        figures: Builds the figures for a data config and a split.
        demo: Commands of `maskstream demo`; None without a demo.
        stages: Descriptions of the loader's stages and advice on making them cheaper, instead of the general ones.
        suited: Adapts the config to a page about a split.
        of: Modalities of the splits that it loads; defaults to its name.
    """

    name: str
    unit: str
    units: str
    kinds: tuple[str, ...]
    encoder: Callable[[], Encoder]
    data: DataConfig[Any]
    masks: tuple[MaskField, ...]
    figures: Callable[[DataConfig[Any], Manifest], Figures[Any]]
    demo: Demo | None = None
    stages: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    suited: Callable[[Manifest, DataConfig[Any]], DataConfig[Any]] = as_it_is
    of: tuple[str, ...] = ()

    def chosen(self, settings: Sequence[str] = (), masks: Sequence[str] = ()) -> DataConfig[Any]:
        """Return the data config with some settings and masks.

        Args:
            settings: Settings such as "clip.size=112".
            masks: Names of masks for the first field of `masks` or, as in "audio_mask=tube", for the named one.

        Raises:
            ValueError: A field is unknown, a value is not allowed, or a mask does not fit.
        """
        return self._set(replace(self.data, **dict(map(self._mask, masks))), settings)

    def shown(self, manifest: Manifest, settings: Sequence[str] = (), masks: Sequence[str] = ()) -> DataConfig[Any]:
        """Return the data config adapted to a page about a split, except explicit settings.

        Args:
            manifest: The split.
            settings: See `chosen`.
            masks: See `chosen`.
        """
        chosen = self.chosen(settings, masks)
        return self._set(self.suited(manifest, chosen), settings)

    def compared(self, masks: Sequence[str]) -> list[tuple[str, ...]]:
        """Return all combinations of masks by name, each with every field at most once, if a field occurs several
        times.
        """
        by_field: dict[str, list[str]] = {}
        for text in masks:
            by_field.setdefault(self.field_of(text).name, []).append(text)
        return list(product(*by_field.values()))

    def field_of(self, text: str) -> MaskField:
        """Return the field of a mask by name, as in `chosen`; raise ValueError for an unknown field."""
        name, _, _ = text.rpartition("=")
        fields = {one.name: one for one in self.masks}
        if not name:
            return self.masks[0]
        if name not in fields:
            raise ValueError(f"--mask {text}: {self.name} has the mask fields {', '.join(fields)}, got {name!r}")
        return fields[name]

    def _set(self, data: DataConfig[Any], settings: Sequence[str]) -> DataConfig[Any]:
        where = f"these shards hold {self.name}, and the command's --help lists the fields of its loader"
        return with_set(data, settings, where=where) if settings else data

    def _mask(self, text: str) -> tuple[str, Mask | None]:
        """Return the name of a mask's field, and the mask."""
        own = self.field_of(text)
        return own.name, own.mask(text.rpartition("=")[2], self.name)


def short_clips(manifest: Manifest, data: DataConfig[Any]) -> dict[str, dict[str, Any]]:
    """Count the videos that are shorter than the clip of a data config, by component, from the manifest alone.

    Args:
        manifest: The split.
        data: The data config; without video clips, the result is empty.
    """
    if not isinstance(clip := getattr(data, "clip", None), VideoClip):
        return {}
    clip = aligned(clip, str(manifest.info["profile"])).shortest
    found = {}
    for name, component in manifest.components.items():
        if component.kind == VIDEO.name:
            short, n = int(short_videos(manifest, name, clip).sum()), int(component.present.sum())
            clipped = f"{clip.frames} frames, {clip.spacing}"
            found[name] = {"clip": clipped, "videos": short, "share": round(short / max(n, 1), 4)}
    return found
