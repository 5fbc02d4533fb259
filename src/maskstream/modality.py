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
"""The assumed length of the run in batches, for masks whose ratio changes over it; only its beginning is shown."""
NO_MASK = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskField:
    """A field of a data config that is a mask: a grid with the axes that it is drawn on, the cues that the loader
    provides, and those that a mask must read.
    """

    name: str = "mask"
    grid: TokenGrid
    cues: frozenset[str] = frozenset()
    must: frozenset[str] = frozenset()

    def misfit(self, mask: Mask) -> str:
        """Why the mask cannot be drawn on this grid with these cues, in words behind "on the tokens"; "" if it can."""
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
        """The names of the masks that fit."""
        return [NO_MASK, *(name for name, make in MASKS.items() if not self.misfit(make()))]

    def mask(self, name: str, modality: str) -> Mask | None:
        """The mask of a name, or of `package.module:name`; ValueError if there is none or it does not fit."""
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
            f"--mask {name!r} {what}; legal are {', '.join(self.legal())}, and package.module:name for your own"
        )


def mask_named(name: str) -> Mask:
    """The mask of a name, or of `package.module:name`, a class whose settings all have defaults or a mask that is made.

    ValueError if there is none, or what has this name is no mask.
    """
    found: object = named(name, MASKS, "mask")
    try:
        mask = found() if callable(found) and not isinstance(found, Mask) else found
    except TypeError as error:
        raise ValueError(
            f"the mask {name!r} cannot be made without settings ({error}); give all of them defaults"
        ) from error
    if not isinstance(mask, Mask):
        raise ValueError(f"{name!r} is no mask but of {type(mask).__name__}; name a subclass of masks.Mask")
    return mask


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """The recipe that `maskstream demo` trains, and further commands, in which {data} is the folder of the shards and
    {run} that of the run. dataset, chosen: what becomes shards instead of the modality's sample set, and how.
    settings: of the training. probed: whether the labels of the dataset say what the run's features are worth.
    """

    recipe: str
    dataset: str = ""
    chosen: str = ""
    settings: str = ""
    probed: bool = False
    more: tuple[str, ...] = ()

    def commands(self, modality: str) -> list[list[str]]:
        """The arguments of each `maskstream` command."""
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
    """`data`."""
    return data


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """The spec of one modality. unit, units: the word for one sample and for several.

    kinds: the kinds of the components of a sample. encoder: makes samples from raw files. data: what `preview` and
    `bench` load by default. masks: its fields that are masks. suited: changes it to what suits a page about a split.
    figures: makes the figures for a data config and a split. stages: descriptions of the loader's stages and advice on
    making them cheaper, instead of the general ones. demo: what `maskstream demo` runs, None for nothing. of: the
    modalities whose splits it loads, by default its own.
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
        """The data config with some settings, such as "clip.size=112", and masks by name.

        A mask is that of the first field of `masks`, or, as in "audio_mask=tube", of the one that is named. ValueError
        for a field that there is not, an illegal value, or a mask that does not fit.
        """
        return self._set(replace(self.data, **dict(map(self._mask, masks))), settings)

    def shown(self, manifest: Manifest, settings: Sequence[str] = (), masks: Sequence[str] = ()) -> DataConfig[Any]:
        """The same, as it suits a page about a split; what is set here stays so."""
        chosen = self.chosen(settings, masks)
        return self._set(self.suited(manifest, chosen), settings)

    def compared(self, masks: Sequence[str]) -> list[tuple[str, ...]]:
        """The masks by name, each field at most once, in all combinations of those of a field that is named again."""
        by_field: dict[str, list[str]] = {}
        for text in masks:
            by_field.setdefault(self.field_of(text).name, []).append(text)
        return list(product(*by_field.values()))

    def field_of(self, text: str) -> MaskField:
        """The field of a mask by name, as in `chosen`; ValueError for a field that there is not."""
        name, _, _ = text.rpartition("=")
        fields = {one.name: one for one in self.masks}
        if not name:
            return self.masks[0]
        if name not in fields:
            raise ValueError(f"--mask {text}: the masks of {self.name} are {', '.join(fields)}, there is no {name!r}")
        return fields[name]

    def _set(self, data: DataConfig[Any], settings: Sequence[str]) -> DataConfig[Any]:
        where = f"these shards hold {self.name}, and the command's --help lists the fields of its loader"
        return with_set(data, settings, where=where) if settings else data

    def _mask(self, text: str) -> tuple[str, Mask | None]:
        """The field of a mask and the mask."""
        own = self.field_of(text)
        return own.name, own.mask(text.rpartition("=")[2], self.name)


def short_clips(manifest: Manifest, data: DataConfig[Any]) -> dict[str, dict[str, Any]]:
    """How many videos are shorter than the clip of a data config, by the manifest alone, of each component; nothing
    where clips are none of video.
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
