"""Trying a split out: what its modality's samples are called, its loader, and that loader's settings out of words.

The commands `maskstream preview` and `maskstream bench` open every split this way, whatever dataset.json says it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, TypedDict, Unpack

from .pipelines.masks import MASKS, Cues, Draw, Mask, TokenGrid
from .pipelines.modalities.audio.clip import AudioClip
from .pipelines.modalities.audio.loader import audio_loader, spectrogram_grid
from .pipelines.modalities.audiovisual.loader import audiovisual_loader
from .pipelines.modalities.mesh.loader import mesh_loader
from .pipelines.modalities.points.loader import points_loader
from .pipelines.modalities.points.read import PointSelection
from .pipelines.modalities.points.tokens import VoxelTokens
from .pipelines.modalities.video.clip import VideoClip
from .pipelines.modalities.video.loader import video_loader
from .pipelines.stream.loader import Loader
from .pipelines.stream.place import START
from .shards.errors import ShardError
from .shards.format.dataset import read_dataset_json

RUN_STEPS = 10_000
"""The length of the run that is tried out, in batches, for masks whose ratio changes over it: its beginning is seen."""
TOKEN_S = 0.16
"""The length of a token of sound: 16 frames of 10 ms."""
NO_MASK = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskArgument:
    """An argument of a loader that is a mask: the option of `TrialOptions` that names it, its name in MASKS by default,
    a grid like the one it is drawn on, and the cues that the loader brings.
    """

    option: str = "mask"
    argument: str = "mask"
    default: str
    grid: TokenGrid
    cues: frozenset[str] = frozenset()

    def fits(self, mask: Mask) -> bool:
        """Whether the mask can be drawn there."""
        if mask.needs:
            return mask.needs <= self.cues
        try:
            mask.draw(self.grid, [Draw.of(0, 0, "", 0, START, Cues())])
        except ValueError:
            return False
        return True

    def legal(self) -> list[str]:
        """The names that fit."""
        return [NO_MASK, *(name for name, make in MASKS.items() if self.fits(make()))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """What the commands know of one. unit, units: what a sample and what samples are called. loader: its builder.
    masks: its arguments that are masks. options: those of `TrialOptions` that only some modalities take; settings: the
    loader's, made of them.
    """

    name: str
    unit: str
    units: str
    loader: Callable[..., Loader[Any]]
    masks: tuple[MaskArgument, ...]
    options: tuple[str, ...] = ()
    settings: Callable[[Mapping[str, Any]], dict[str, Any]] = field(default=lambda given: {})


class TrialOptions(TypedDict, total=False):
    """What the commands let one choose; None is the modality's default."""

    mask: str | None
    audio_mask: str | None
    ratio: float | None
    frames: int | None
    stride: int | None
    size: int | None
    sound_seconds: float | None
    points: int | None
    resolution: int | None
    views: int | None


def _given(options: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """Those options that were given, by other names."""
    return {to: options[name] for name, to in names.items() if name in options}


def _multiples(options: Mapping[str, Any], **steps: int) -> None:
    """ValueError where an option is no multiple of its step."""
    for name, step in steps.items():
        value = options.get(name, step)
        if value % step:
            below = value // step * step
            near = " and ".join(str(wanted) for wanted in (below, below + step) if wanted > 0)
            raise ValueError(f"{_flags([name])} {value} is no multiple of {step}; near it are {near}")


def _clip(options: Mapping[str, Any]) -> dict[str, Any]:
    _multiples(options, frames=2, size=16)
    return {"clip": VideoClip(**_given(options, frames="frames", stride="stride", size="size"))}


def _sound(options: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds of sound; ValueError where they are not whole tokens."""
    given = _given(options, sound_seconds="seconds")
    for seconds in given.values():
        above = whole_tokens(seconds)
        if abs(above - seconds) > 1e-6:
            near = ", ".join(f"{wanted:g}" for wanted in (above - TOKEN_S, above) if wanted > 0)
            raise ValueError(
                f"--sound-seconds {seconds:g} is no multiple of {TOKEN_S} s, the length of a token; try {near}"
            )
    return given


def whole_tokens(seconds: float) -> float:
    """The least time of whole tokens of sound that is not below `seconds`."""
    return round(max(1, ceil(seconds / TOKEN_S - 1e-6)) * TOKEN_S, 2)


def _voxels(options: Mapping[str, Any]) -> dict[str, Any]:
    _multiples(options, resolution=4)
    tokens = VoxelTokens(**_given(options, resolution="resolution"))
    return {"select": PointSelection(**_given(options, points="points")), "tokens": tokens}


_FRAMES = ("frames", "stride", "size")
_VIDEO = MaskArgument(default="motion-guided", grid=TokenGrid.video(16, 224, 224), cues=frozenset({"flow"}))
_SOUND = MaskArgument(default="audio-mae", grid=spectrogram_grid(1024, 128, (16, 16)))
_VOXELS = MaskArgument(default="fastdit-3d", grid=VoxelTokens().grid, cues=frozenset({"occupied"}))
_NODES = MaskArgument(
    default="mesh-mask",
    grid=TokenGrid(axes=("node",), shape=(1000,), patch=(1,)),
    cues=frozenset({"edges", "kinds"}),
)

_ALL = (
    Modality(
        name="video",
        unit="clip",
        units="clips",
        loader=video_loader,
        masks=(_VIDEO,),
        options=_FRAMES,
        settings=_clip,
    ),
    Modality(
        name="audio",
        unit="sound",
        units="sounds",
        loader=audio_loader,
        masks=(_SOUND,),
        options=("sound_seconds",),
        settings=lambda given: {"clip": AudioClip(**sound)} if (sound := _sound(given)) else {},
    ),
    Modality(
        name="audiovisual",
        unit="clip",
        units="clips",
        loader=audiovisual_loader,
        masks=(
            replace(_VIDEO, default="random", argument="video_mask"),
            replace(_SOUND, option="audio_mask", argument="audio_mask"),
        ),
        options=(*_FRAMES, "sound_seconds"),
        settings=lambda given: _clip(given) | _sound(given),
    ),
    Modality(
        name="points",
        unit="cloud",
        units="clouds",
        loader=points_loader,
        masks=(_VOXELS,),
        options=("points", "resolution"),
        settings=_voxels,
    ),
    Modality(name="mesh", unit="mesh", units="meshes", loader=mesh_loader, masks=(_NODES,)),
)
MODALITIES: dict[str, Modality] = {modality.name: modality for modality in _ALL}


def modality_of(location: str | Path) -> Modality:
    """What the split in the folder `location` holds; ShardError where there is no finished split."""
    name = str(read_dataset_json(location)["modality"])
    if name not in MODALITIES:
        raise ShardError(f"{location} holds {name} shards; there are loaders of {', '.join(MODALITIES)}")
    return MODALITIES[name]


def loader_settings(modality: Modality, **options: Unpack[TrialOptions]) -> dict[str, Any]:
    """The arguments of the modality's loader: masks, and what else was chosen.

    ValueError for an option that the modality has not, or a mask that cannot be drawn on its tokens.
    """
    given = {name: value for name, value in options.items() if value is not None}
    legal = (*(mask.option for mask in modality.masks), "ratio", *modality.options, "views")
    if wrong := [name for name in given if name not in legal]:
        raise ValueError(
            f"{_flags(wrong)} cannot be given here: the shards hold {modality.name}, which takes {_flags(legal)}"
        )
    settings = modality.settings(given) | _given(given, views="views")
    masks = [_named(modality, where, given) for where in modality.masks]
    settings |= {where.argument: mask for where, mask in zip(modality.masks, masks, strict=True)}
    if any(mask is not None and mask.needs_progress for mask in masks):
        settings["steps"] = RUN_STEPS
    return settings


def default_masks(modality: Modality) -> dict[str, Mask]:
    """A loader's arguments that are masks, as they are by default."""
    return {where.argument: MASKS[where.default]() for where in modality.masks}


def _named(modality: Modality, where: MaskArgument, given: Mapping[str, Any]) -> Mask | None:
    """The mask that was asked for; ValueError where there is none of that name, or it does not fit."""
    name = given.get(where.option, where.default)
    ratio = given.get("ratio") if where.option == "mask" else None
    if name == NO_MASK:
        if ratio is not None:
            raise ValueError(f"--ratio {ratio:g} is of a mask, and --mask is {NO_MASK}; leave one of them out")
        return None
    if name not in MASKS or not where.fits(MASKS[name]()):
        what = "is no mask" if name not in MASKS else f"cannot be drawn on the tokens of {modality.name}"
        raise ValueError(f"{_flags([where.option])} {name!r} {what}; legal are {', '.join(where.legal())}")
    mask = MASKS[name]()
    if ratio is None:
        return mask
    if (changed := _with_ratio(mask, ratio)) is None:
        raise ValueError(f"the mask {name!r} has no single ratio; leave --ratio out")
    return changed


def _with_ratio(mask: Any, ratio: float) -> Mask | None:
    """The mask, or the one inside it, with another ratio; None where neither has one."""
    if hasattr(mask, "ratio"):
        changed: Mask = replace(mask, ratio=ratio)
        return changed
    inner = _with_ratio(mask.mask, ratio) if hasattr(mask, "mask") else None
    return None if inner is None else replace(mask, mask=inner)


def _flags(names: Iterable[str]) -> str:
    """The options as they are written."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
