"""Input of a mask: the token grid, and for each view its random generators, position in the run and mask inputs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.stream.rng import Place, sample_rng
from maskstream.shards.arrays import Bools, Float32s, Int32s, Int64s, UInt8s, UInt64s
from maskstream.shards.config import Config
from maskstream.shards.limits import PositiveInt


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenGrid(Config):
    """Grid of tokens: named axes, the number of tokens along each, and the extent of one token.

    Tokens are numbered in C order of `shape`. The default is VideoMAE's grid: 16 frames of 224 x 224 pixels in cubes of
    2 x 16 x 16, 1568 tokens.

    Attributes:
        axes: Names of the axes, such as t, h, w.
        shape: Number of tokens along each axis.
        patch: Extent of one token along each axis, in the data's units; (frames, pixels, pixels) for video.
    """

    axes: tuple[str, ...] = ("t", "h", "w")
    shape: tuple[PositiveInt, ...] = (8, 14, 14)
    patch: tuple[PositiveInt, ...] = (2, 16, 16)

    def validate(self) -> None:
        if not len(self.axes) == len(self.shape) == len(self.patch) > 0:
            raise ValueError(
                f"a grid needs one length and one patch size per axis, got axes={self.axes}, "
                f"shape={self.shape}, patch={self.patch}"
            )
        if len(set(self.axes)) < len(self.axes):
            raise ValueError(f"the axes of a grid must have different names, got {self.axes}")

    @property
    def size(self) -> int:
        """Number of tokens."""
        return prod(self.shape)

    def need(self, *axes: str, by: str) -> tuple[int, ...]:
        """Return the shape if the grid has exactly these axes.

        Raises:
            ValueError: The axes differ; the message names the pattern `by`.
        """
        if self.axes != axes:
            raise ValueError(f"{by} needs a grid with the axes {axes}, got {self.axes}")
        return self.shape

    def need_axis(self, axis: str, by: str) -> int:
        """Return the index of `axis`.

        Raises:
            ValueError: The grid has no such axis; the message names the pattern `by`.
        """
        if axis not in self.axes:
            raise ValueError(f"{by} needs a grid with an axis {axis!r}, got {self.axes}")
        return self.axes.index(axis)

    def across(self, axis: str, by: str) -> int:
        """Return the number of tokens in one slice across `axis`.

        Raises:
            ValueError: The grid has no such axis; the message names the pattern `by`.
        """
        return self.size // self.shape[self.need_axis(axis, by)]

    @classmethod
    def video(cls, frames: int, height: int, width: int, tubelet: int = 2, patch: int = 16) -> Self:
        """Build the (t, h, w) grid of a clip.

        Args:
            frames: Number of frames.
            height: Height in pixels.
            width: Width in pixels.
            tubelet: Frames per token.
            patch: Side of a token in pixels.
        """
        if tubelet < 1 or patch < 1:
            raise ValueError(f"tubelet and patch must be at least 1, got tubelet={tubelet}, patch={patch}")
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
"""Unit that shares one random number: a view, all views of a sample, a batch over all ranks, or a frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cues:
    """Mask inputs: data of a sample that a mask may follow. `Mask.needs` lists the ones that a mask reads.

    Arrays have the shapes of one view, such as frames uint8 (T, H, W, 3) or one value per token, (N,). `frames`,
    `depth`, `waveform` and `spectrogram` are read-only views of the batch, including padding.

    Attributes:
        frames: uint8 (T, H, W, 3): RGB pixels; an image is one frame.
        depth: float32 (T, H, W): depth in metres; 0 where unknown.
        waveform: float32 (C, n): audio samples.
        spectrogram: float32 (time, freq).
        flow: float32 (T-1, h, w, 2): backward optical flow in pixels (see `Flow`).
        cuts: bool (T-1,): scene cuts.
        energy: int64 (T, h, w): stored residual energy of each frame relative to the previous one.
        occupied: bool (N,): True if the token's part of space contains points.
        box: float (4,): x0, y0, x1, y1 as fractions of the image.
        words: int64 (N,): word of each token, ascending; -1 for special tokens, -2 for padding.
        classes: int64 (N,): class of each token, such as its part of speech; -1 for none.
        scores: float32 (N,): importance of each token.
        hidden: bool (N,): tokens hidden by an earlier level.
        edges: int64 (2, E): pairs of mesh nodes.
        kinds: int64 (N,): type of each mesh node.
        tokens: int64 (N,): token ids.
    """

    frames: UInt8s | None = None
    depth: Float32s | None = None
    waveform: Float32s | None = None
    spectrogram: Float32s | None = None
    flow: Float32s | None = None
    cuts: Bools | None = None
    energy: Int64s | None = None
    occupied: Bools | None = None
    box: npt.NDArray[np.floating[Any]] | None = None
    words: Int64s | None = None
    classes: Int64s | None = None
    scores: Float32s | None = None
    hidden: Bools | None = None
    edges: Int64s | None = None
    kinds: Int64s | None = None
    tokens: Int64s | None = None

    def need(self, name: str, by: str) -> npt.NDArray[Any]:
        """Return the input `name`, such as flow (T-1, h, w, 2).

        Raises:
            ValueError: The input is missing; the message names the pattern `by`.
        """
        value: npt.NDArray[Any] | None = getattr(self, name)
        if value is None:
            raise ValueError(
                f"{by} needs the mask input {name}, got none; list it in the mask's `needs` so that loaders provide "
                f"it, or pass Draw(cues=Cues({name}=...))"
            )
        return value


class WatchedCues(Cues):
    """Mask inputs that record reads of missing ones in `missed`."""

    __slots__ = ("missed",)
    missed: set[str]

    @classmethod
    def of(cls, cues: Cues) -> Self:
        """Copy mask inputs into a watched instance."""
        watched = cls(**{one.name: getattr(cues, one.name) for one in fields(cues)})
        object.__setattr__(watched, "missed", set())
        return watched

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if value is None:
            self.missed.add(name)
        return value


def read_only(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only view of values that a mask shares with the batch."""
    view = values.view()
    view.flags.writeable = False
    return view


def sized(cue: npt.NDArray[Any], n: int, name: str, by: str) -> npt.NDArray[Any]:
    """Return a mask input with one value per token.

    Raises:
        ValueError: The shape is not (n,).
    """
    if cue.shape != (n,):
        raise ValueError(f"{by} needs the mask input {name} with shape ({n},), got {cue.shape}")
    return cue


def mask_purpose(part: str) -> str:
    """Return the generator purpose for masks of one part of the samples."""
    return f"mask {part}".strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """Input of the mask of one view of a sample.

    Attributes:
        rng: Random generator of this view.
        view: Number of the view within its sample.
        place: Position of the sample in the run.
        cues: Mask inputs of the view.
        seed: Random seed of the run.
        epoch: Epoch in which the sample is drawn.
        key: Key of the sample. Without it, only numbers of a single view can be drawn.
        part: Part of the sample, such as its text, if each part has a separate mask (see `Joint`).
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
        """Build the draw of a view of sample `key` as loaders do; pass `rng` if the generator already exists."""
        rng = sample_rng(seed, epoch, key, view, mask_purpose(part)) if rng is None else rng
        return cls(rng=rng, view=view, place=place, cues=cues, seed=seed, epoch=epoch, key=key, part=part)

    def generator(self, scope: Scope, purpose: str) -> np.random.Generator:
        """Return the generator of a number shared by all of `scope`; for a view or a frame, `rng` itself.

        Each call with the same scope and purpose returns a new generator that yields the same numbers.

        Raises:
            ValueError: The draw has no key.
        """
        if scope in ("view", "frame"):
            return self.rng
        if self.key is None:
            raise ValueError(
                f"a random number shared by a {scope} needs the sample's key, got none; create the draw with "
                "Draw.of(seed, epoch, key, ...), as the loaders do"
            )
        if scope == "sample":
            return sample_rng(self.seed, self.epoch, self.key, 0, f"all views {purpose}")
        return sample_rng(self.seed, 0, f"batch {self.place.step}", 0, purpose)


class TextDraws(NamedTuple):
    """Draws of B texts with N tokens and one view each."""

    streams: UInt64s
    """uint64 (B, 10): generator states in the layout of masks/text/token_draws.py; drawing advances them."""
    words: Int64s
    """int64 (B, N): the mask input `words` of each text; read-only."""
    tokens: Int32s
    """int32 (B, N): token ids."""
    goes_on: bool = False
    """True if more numbers are drawn after the mask, so that the mask must consume its numbers completely."""

    @classmethod
    def of(cls, keys: UInt64s, words: Int64s, tokens: Int32s) -> TextDraws:
        """Build the draws from generator keys, uint64 (B, 2) (see `sample_keys`), before the first number."""
        streams = np.zeros((len(keys), 10), np.uint64)
        streams[:, :2], streams[:, 3] = keys, 4  # all four numbers of the block are used
        return cls(streams, words, tokens)
