"""Options that commands share: of those that load a split, and of those that read raw media."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer.core import TyperCommand

from maskstream.preprocess.encode.limits import Limits
from maskstream.shards.config.base import KIND, VERSION
from maskstream.shards.flag import DataFlag, RunFlag

if TYPE_CHECKING:
    from maskstream.modality import Modality
    from maskstream.pipelines.modalities.data import DataConfig
    from maskstream.preprocess import Executor
    from maskstream.shards.format.manifest import Manifest

Set = Annotated[
    Sequence[str],
    DataFlag(
        "Set a field of the data config, such as clip.size=112 or mask.ratio=0.8; repeatable. All fields are listed "
        "below.",
        "--set",
        "FIELD=VALUE",
    ),
]
Masks = Annotated[
    Sequence[str],
    DataFlag(
        "Mask by name, none, or package.module:name for your own. With two masks, this sets the first; "
        "audio_mask=NAME or text_mask=NAME sets the other. An unknown name lists those that fit.",
        metavar="NAME",
    ),
]
Own = Annotated[
    str | None,
    DataFlag(
        "Your own modality as package.module:NAME, or native: packed rows of images or videos.", "--modality", "NAME"
    ),
]
Component = Annotated[str | None, DataFlag("Component to read, such as cam0.mp4, if samples have several.")]
Samples = "--samples --clips"
"""Names of the option for the number of samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipOptions:
    """Options of loading a split: fields of the data config, some of them by short names."""

    set: Set = ()
    mask: Masks = ()
    component: Annotated[
        Sequence[str],
        DataFlag(
            "Component to read, such as cam0.mp4, if samples have several; repeatable for video, to read clips "
            "of the same instants from each.",
        ),
    ] = ()
    size: Annotated[int | None, DataFlag("Height and width of images and frames in pixels.")] = None
    frames: Annotated[int | None, DataFlag("Frames per clip.")] = None
    stride: Annotated[int | None, DataFlag("Distance between the frames of a clip, in frames of the video.")] = None

    @property
    def settings(self) -> list[str]:
        """The assignments of the short names, followed by `--set`."""
        short = [field.name for field in fields(self) if field.name not in ("set", "mask", "modality")]
        return [*assign(**{name: getattr(self, name) for name in short}), *self.set]


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewOptions(ClipOptions):
    """The same for the modality of any split."""

    views: Annotated[
        int | None, DataFlag("Views per sample, each with its own crop, mask or diffusion step.", min=1)
    ] = None
    modality: Own = None


def assign(**short: object) -> list[str]:
    """Return assignments for `--set` of the values that were given; a sequence of one value is replaced by the
    value.
    """
    given = {name: value for name, value in short.items() if value not in (None, ())}
    single = {name: value[0] for name, value in given.items() if isinstance(value, tuple) and len(value) == 1}
    return [f"{name}={json.dumps(value)}" for name, value in (given | single).items()]


def open_split(location: str, own: str | None = None, *, run: Path | None = None) -> "tuple[Manifest, Modality]":
    """Open a split, and return it with its modality.

    Args:
        location: Location of the split.
        own: Name of the modality, if it was given.
        run: Folder of a run whose recipe may select a special way to load the split.
    """
    from maskstream.modalities import modality_of
    from maskstream.shards.format.manifest import Manifest
    from maskstream.train.core.run_folder import run_recipe

    manifest = Manifest.load(location)
    return manifest, modality_of(manifest, own, data=None if run is None else run_recipe(run).data)


class DataCommand(TyperCommand):
    """A command whose help lists the fields of the data configs and their defaults.

    They are collected only when help is requested, so other commands need not import the loaders.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help.

        Args:
            ctx: Context of the command.
            formatter: Formatter to write to.
        """
        self.epilog = "\n\n".join(_describe_fields(self.name or ""))
        super().format_help(ctx, formatter)


def _describe_fields(command: str) -> Iterator[str]:
    """Yield a paragraph with the fields of each modality that a command loads."""
    from maskstream.modalities import MODALITIES, WAYS
    from maskstream.pages.doctor import MIDDLE_FRAME

    shown = {name: modality.data for name, modality in (MODALITIES | WAYS).items()}
    only: dict[str, dict[str, DataConfig[Any]]] = {
        "mask-score": {"video": MIDDLE_FRAME},
        "flow": {"video": shown["video"]},
    }
    for name, data in (only.get(command) or shown).items():
        found = (f"`{path}={value}`" for path, value in leaves(data.to_dict(defaults=True)))
        yield f"**{name}**: {', '.join(found)}"


def leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the paths of all fields, and their values in the syntax of `--set`.

    Args:
        value: The config as a mapping.
        path: Prefix of all paths.
    """
    for name, own in value.items():
        if isinstance(own, Mapping):
            yield from leaves(own, f"{path}{name}.")
        elif name != VERSION and (path or name != KIND):
            yield f"{path}{name}", own if isinstance(own, str) else json.dumps(own)


MaxPixels = Annotated[
    int | None,
    RunFlag(
        "Maximum pixels of a frame or an image; larger ones are rejected [default: 2^26 (frame), 2^28 (image)].",
        min=1,
        max=1 << 28,
    ),
]


def limit_pixels(limits: Limits, pixels: int | None) -> Limits:
    """Return the limits with another limit for the pixels of frames and images.

    Args:
        limits: The limits.
        pixels: Largest number of pixels; None changes nothing.
    """
    return limits if pixels is None else replace(limits, frame_pixels=pixels, image_pixels=pixels)


Workers = Annotated[int | None, RunFlag("Worker processes [default: one per core].", min=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorOptions:
    """Options of running the tasks of a job."""

    executor: Annotated[
        str, RunFlag("Executor of the work: local (processes of this machine) or ray (a Ray cluster).", metavar="NAME")
    ] = "local"
    address: Annotated[
        str | None,
        RunFlag("With ray: auto, host:port or ray://host:port [default: $RAY_ADDRESS, or a cluster on this machine]."),
    ] = None

    def choose(self, workers: int | None, also: tuple[str, ...] = ()) -> "Executor | None":
        """Return the executor; None for processes of this machine, and for the names in `also`, which the command
        handles.

        Args:
            workers: Number of workers, which Ray does not support.
            also: Further allowed names.

        Raises:
            ValueError: The name is unknown, or an option does not belong to the executor.
        """
        legal = ("local", "ray", *also)
        if self.executor not in legal:
            raise ValueError(f"--executor must be one of {', '.join(legal)}, got {self.executor!r}")
        if self.executor != "ray":
            if self.address is not None:
                raise ValueError(f"--address {self.address} requires --executor ray")
            return None
        if workers is not None:
            raise ValueError(
                f"--workers {workers} cannot be combined with --executor ray, which runs one task per processor"
            )
        from maskstream.preprocess import RayExecutor

        return RayExecutor(self.address)
