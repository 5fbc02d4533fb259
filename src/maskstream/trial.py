"""Trials: the options of `preview` and `bench`, as the fields of one frozen dataclass per modality.

Each field is declared once: the commands generate their options from its metadata, and `trial_of` checks it.

A trial is neither saved nor compared; it returns the data config that is. Options are made when a command asks for
them, so the others start without torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from .pipelines.masks import MASKS, Cues, Draw, Mask, TokenGrid
from .pipelines.modalities.data import DataConfig
from .pipelines.stream.place import START
from .shards.format.manifest import Manifest
from .shards.named import named, nearest

RUN_STEPS = 10_000
"""The assumed length of the run in batches, for masks whose ratio changes over it; only its beginning is shown."""
NO_MASK = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """The command line option of a field. default: the value that None stands for, in words; least: the smallest legal
    value; multiple: legal values are multiples of it; panel: the heading in the help.
    """

    help: str
    default: str | None = None
    least: float | None = None
    multiple: int = 1
    panel: str | None = None


def option(
    help: str,
    *,
    default: object = None,
    least: float | None = None,
    multiple: int = 1,
    panel: str | None = None,
) -> Any:
    """Declares a field of a trial; its value is None by default."""
    said = None if default is None else str(default)
    made = Option(help=help, default=said, least=least, multiple=multiple, panel=panel)
    return field(default=None, metadata={"option": made})


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskArgument:
    """A field of a data config that is a mask: the option that names it, its default name in MASKS, a grid with the
    axes that it is drawn on, the cues that the loader provides, and those that a mask must read.
    """

    option: str = "mask"
    argument: str = "mask"
    default: str
    grid: TokenGrid
    cues: frozenset[str] = frozenset()
    must: frozenset[str] = frozenset()

    def fits(self, mask: Mask) -> bool:
        """Whether the mask can be drawn on this grid with these cues."""
        if mask.needs or self.must:
            return self.must <= mask.needs <= self.cues
        try:
            mask.draw(self.grid, [Draw.of(0, 0, "", 0, START, Cues())])
        except ValueError:
            return False
        return True

    def legal(self) -> list[str]:
        """The names of the masks that fit."""
        return [NO_MASK, *(name for name, make in MASKS.items() if self.fits(make()))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial(ABC):
    """The options chosen for a split; None means the default. masks: the fields of the data config that are masks."""

    masks: ClassVar[tuple[MaskArgument, ...]]

    mask: str | None = option(
        "A mask by name, or none, or package.module:name for your own; in video with sound, the mask of the frames. "
        "An unknown name lists those that fit."
    )
    ratio: float | None = option("Hidden share", default="the mask's own")
    views: int | None = option("Views per sample, each with its own crop, mask or step", default=1, least=1)

    def data(self, modality: str) -> DataConfig[Any]:
        """The data config of the chosen options. ValueError for a mask that cannot be drawn on its tokens."""
        masks: dict[str, Any] = {where.argument: self._mask(where, modality) for where in self.masks}
        return replace(self.chosen(), **masks, **given(views=self.views))

    @abstractmethod
    def chosen(self) -> DataConfig[Any]:
        """The data config of the chosen options, without views and masks."""

    def suited(self, manifest: Manifest, data: DataConfig[Any]) -> DataConfig[Any]:
        """`data`, the data config of this trial, with defaults that suit a page about this split."""
        return data

    def _mask(self, where: MaskArgument, modality: str) -> Mask | None:
        """The chosen mask. ValueError if there is none of that name or it does not fit."""
        asked = getattr(self, where.option)
        name = where.default if asked is None else str(asked)
        ratio = self.ratio if where.option == "mask" else None
        if name == NO_MASK:
            if ratio is not None:
                raise ValueError(f"--ratio {ratio:g} needs a mask, but --mask is {NO_MASK}; leave one of them out")
            return None
        known = name in MASKS or ":" in name
        mask = named(name, MASKS, "mask")() if known else None
        if mask is None or not where.fits(mask):
            close = nearest(name, where.legal())
            what = f"cannot be drawn on the tokens of {modality}" if known else f"is not a mask{close}"
            raise ValueError(
                f"{flags([where.option])} {name!r} {what}; legal are {', '.join(where.legal())}, and "
                "package.module:name for your own"
            )
        if ratio is None:
            return mask
        if (changed := _with_ratio(mask, ratio)) is None:
            raise ValueError(f"the mask {name!r} has no single ratio; leave --ratio out")
        return changed


TrialT = TypeVar("TrialT", bound=Trial)


def options_of(trial: type[Trial]) -> dict[str, Option]:
    """The options of the fields of a trial, by name."""
    return {f.name: f.metadata["option"] for f in fields(trial)}


def trial_of(trial: type[TrialT], modality: str, chosen: Mapping[str, Any]) -> TrialT:
    """The trial with the chosen values; values of None are ignored.

    ValueError for an option that the modality does not have, or a value that is not a legal multiple.
    """
    legal = options_of(trial)
    values = {name: value for name, value in chosen.items() if value is not None}
    if wrong := [name for name in values if name not in legal]:
        raise ValueError(f"{flags(wrong)} does not fit: the shards hold {modality}, which takes {flags(legal)}")
    for name, value in values.items():
        step = legal[name].multiple
        if step > 1 and value % step:
            below = value // step * step
            near = " and ".join(str(wanted) for wanted in (below, below + step) if wanted > 0)
            raise ValueError(f"{flags([name])} {value} is not a multiple of {step}; the nearest are {near}")
    return trial(**values)


def given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def flags(names: Iterable[str]) -> str:
    """The options as written on the command line."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _with_ratio(mask: Any, ratio: float) -> Mask | None:
    """The mask, or the one inside it, with another ratio; None where neither has one."""
    if hasattr(mask, "ratio"):
        changed: Mask = replace(mask, ratio=ratio)
        return changed
    inner = _with_ratio(mask.mask, ratio) if hasattr(mask, "mask") else None
    return None if inner is None else replace(mask, mask=inner)
