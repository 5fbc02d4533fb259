"""The input of a mask: the tokens of a sample, and of a view its generators, its place in the run and its cues."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.stream.rng import Place, sample_rng
from maskstream.shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenGrid(Config):
    """Named axes (such as t, h, w), the number of tokens along each, and the extent of one token in the data's units.

    Tokens are numbered in C order of `shape`; `patch` is (frames, pixels, pixels) for video. The default is VideoMAE's:
    16 frames at 224 pixels in cubes of 2 x 16 x 16, 1568 tokens.
    """

    axes: tuple[str, ...] = ("t", "h", "w")
    shape: tuple[int, ...] = (8, 14, 14)
    patch: tuple[int, ...] = (2, 16, 16)

    def __post_init__(self) -> None:
        if not len(self.axes) == len(self.shape) == len(self.patch) > 0:
            raise ValueError(
                f"a grid needs one length and one patch extent per axis, got axes={self.axes}, shape={self.shape}, "
                f"patch={self.patch}"
            )
        if len(set(self.axes)) < len(self.axes):
            raise ValueError(f"the axes of a grid have different names, got {self.axes}")
        if min(self.shape) < 1 or min(self.patch) < 1:
            raise ValueError(f"lengths and patch extents are at least 1, got shape={self.shape}, patch={self.patch}")

    @property
    def size(self) -> int:
        """The number of tokens."""
        return prod(self.shape)

    def need(self, *axes: str, by: str) -> tuple[int, ...]:
        """The grid's shape, for the pattern `by`; ValueError where its axes are not these."""
        if self.axes != axes:
            raise ValueError(f"{by} needs a grid with the axes {axes}, got {self.axes}")
        return self.shape

    def need_axis(self, axis: str, by: str) -> int:
        """The place of `axis` among the axes, for the pattern `by`; ValueError where it is not there."""
        if axis not in self.axes:
            raise ValueError(f"{by} needs a grid with an axis {axis!r}, got {self.axes}")
        return self.axes.index(axis)

    def across(self, axis: str, by: str) -> int:
        """The number of tokens of one slice across `axis`, for the pattern `by`; ValueError where it is not there."""
        return self.size // self.shape[self.need_axis(axis, by)]

    @classmethod
    def video(cls, frames: int, height: int, width: int, tubelet: int = 2, patch: int = 16) -> Self:
        """The (t, h, w) grid of a clip of `frames` x `height` x `width` pixels in cubes tubelet x patch x patch."""
        if tubelet < 1 or patch < 1:
            raise ValueError(f"tubelet and patch are at least 1, got tubelet={tubelet}, patch={patch}")
        for name, length, step in (("frames", frames, tubelet), ("height", height, patch), ("width", width, patch)):
            if length < 1 or length % step:
                below = max(length // step, 1) * step
                raise ValueError(
                    f"{name}={length} is not a positive multiple of {step}; {below} and {below + step} are"
                )
        return cls(
            axes=("t", "h", "w"),
            shape=(frames // tubelet, height // patch, width // patch),
            patch=(tubelet, patch, patch),
        )


Scope = Literal["view", "sample", "batch", "frame"]
"""What shares one random number: a view of a sample, all its views, a batch over all ranks, or a frame."""


def check_scope(scope: str) -> None:
    """ValueError unless `scope` is legal."""
    if scope not in get_args(Scope):
        raise ValueError(f"scope is one of {', '.join(get_args(Scope))}, got {scope!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cues:
    """Data of a sample that a mask may follow. `Mask.needs` names the cues that a mask reads.

    frames: uint8 (T, H, W, 3), the RGB pixels of a view as its batch has them; a picture is one frame. depth: float32
    (T, H, W), metres, 0 where unknown. waveform: float32 (C, n), and spectrogram: float32 (time, freq), as the batch
    has them, so with padding. These four are read-only.

    flow: float32 (T-1, h, w, 2), backward flow in pixels, and cuts: bool (T-1,), scene cuts (see `Flow`). energy: int64
    (T, h, w), what each frame shows at the places of tokens that the frame before does not, as it is stored. occupied:
    bool (N,), whether anything lies in a token's part of space. box: float (4,), x0, y0, x1, y1 as shares of the
    picture. words: int64 (N,), the word
    that a token belongs to, ascending, -1 for special tokens, -2 for padding. classes: int64 (N,), a token's class,
    such as its part of speech, -1 for none. scores: float32 (N,), a token's importance. hidden: bool (N,), tokens that
    an earlier level hid. edges: int64 (2, E), pairs of nodes. kinds: int64 (N,), a node's type. tokens: int64 (N,),
    token ids.
    """

    frames: npt.NDArray[np.uint8] | None = None
    depth: npt.NDArray[np.float32] | None = None
    waveform: npt.NDArray[np.float32] | None = None
    spectrogram: npt.NDArray[np.float32] | None = None
    flow: npt.NDArray[np.float32] | None = None
    cuts: npt.NDArray[np.bool_] | None = None
    energy: npt.NDArray[np.int64] | None = None
    occupied: npt.NDArray[np.bool_] | None = None
    box: npt.NDArray[np.floating[Any]] | None = None
    words: npt.NDArray[np.int64] | None = None
    classes: npt.NDArray[np.int64] | None = None
    scores: npt.NDArray[np.float32] | None = None
    hidden: npt.NDArray[np.bool_] | None = None
    edges: npt.NDArray[np.int64] | None = None
    kinds: npt.NDArray[np.int64] | None = None
    tokens: npt.NDArray[np.int64] | None = None

    def need(self, name: str, by: str) -> npt.NDArray[Any]:
        """The cue `name` for the pattern `by`, such as flow (T-1, h, w, 2); ValueError where there is none."""
        value: npt.NDArray[Any] | None = getattr(self, name)
        if value is None:
            raise ValueError(
                f"{by} needs the cue {name}, got none; name it in the mask's `needs`, so that a loader gives it, or "
                f"give Draw(cues=Cues({name}=...))"
            )
        return value


class WatchedCues(Cues):
    """Cues that note in `missed` which of them were read and are None."""

    __slots__ = ("missed",)
    missed: set[str]

    @classmethod
    def of(cls, cues: Cues) -> Self:
        """The same cues, watched."""
        watched = cls(**{one.name: getattr(cues, one.name) for one in fields(cues)})
        object.__setattr__(watched, "missed", set())
        return watched

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if value is None:
            self.missed.add(name)
        return value


def read_only(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view of the values that cannot be written to, since a mask shares them with the batch."""
    view = values.view()
    view.flags.writeable = False
    return view


def sized(cue: npt.NDArray[Any], n: int, name: str, by: str) -> npt.NDArray[Any]:
    """The cue `name`; ValueError unless it has one value for each of `n` tokens, or pairs."""
    if cue.shape != (n,):
        raise ValueError(f"{by} needs the cue {name} of {n} values, of shape ({n},), got {cue.shape}")
    return cue


def mask_purpose(part: str) -> str:
    """The purpose of the generators that draw the masks of a part of samples."""
    return f"mask {part}".strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """The input of the mask of one view of a sample.

    rng: the view's own generator. place: where in the run the sample is shown. seed, epoch, key: the key of the
    sample's generators; without `key` only numbers of a single view can be drawn. part: the part of the sample, such as
    its text, where each part has its own mask (see `Joint`).
    """

    rng: np.random.Generator
    view: int = 0
    place: Place = field(default_factory=Place)
    cues: Cues = field(default_factory=Cues)
    seed: int = 0
    epoch: int = 0
    key: str | None = None
    part: str = ""

    @classmethod
    def of(
        cls,
        seed: int,
        epoch: int,
        key: str,
        view: int,
        place: Place,
        cues: Cues,
        part: str = "",
        rng: np.random.Generator | None = None,
    ) -> Draw:
        """The draw of a view of sample `key`, as the loaders make it; rng: its generator, where it is made already."""
        rng = sample_rng(seed, epoch, key, view, mask_purpose(part)) if rng is None else rng
        return cls(rng=rng, view=view, place=place, cues=cues, seed=seed, epoch=epoch, key=key, part=part)

    def generator(self, scope: Scope, purpose: str) -> np.random.Generator:
        """The generator of a number that all of `scope` share; for a view or a frame it is `rng` itself.

        Each call for one scope and purpose returns a new generator that draws the same numbers. ValueError where the
        draw has no key.
        """
        if scope in ("view", "frame"):
            return self.rng
        if self.key is None:
            raise ValueError(
                f"a random number that a {scope} shares needs the sample's key, got none; make the draw by "
                "Draw.of(seed, epoch, key, ...), as the loaders do"
            )
        if scope == "sample":
            return sample_rng(self.seed, self.epoch, self.key, 0, f"all views {purpose}")
        return sample_rng(self.seed, 0, f"batch {self.place.step}", 0, purpose)


class TextDraws(NamedTuple):
    """The draws of B texts, each in one view. streams: uint64 (B, 10), their generators as kernels have them
    (masks/text/token_draws.py), which move on as masks draw. words: the cue of each, int64 (B, N), read-only. tokens:
    those of each, int32 (B, N). goes_on: whether more is drawn after the mask, so that all of its draws count.
    """

    streams: npt.NDArray[np.uint64]
    words: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    goes_on: bool = False

    @classmethod
    def of(cls, keys: npt.NDArray[np.uint64], words: npt.NDArray[np.int64], tokens: npt.NDArray[np.int32]) -> TextDraws:
        """The draws of generators with these keys, uint64 (B, 2) (see `sample_keys`), before the first number."""
        streams = np.zeros((len(keys), 10), np.uint64)
        streams[:, :2], streams[:, 3] = keys, 4  # all four numbers of the block are taken
        return cls(streams, words, tokens)
