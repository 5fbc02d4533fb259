"""The input of a mask: the generators of a view of a sample, its place in the run and its cues."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.stream.place import Place
from maskstream.pipelines.stream.rng import sample_rng

Scope = Literal["view", "sample", "batch", "frame"]
"""What shares one random number: a view of a sample, all its views, a batch over all ranks, or a frame."""


def check_scope(scope: str) -> None:
    """ValueError unless `scope` is legal."""
    if scope not in get_args(Scope):
        raise ValueError(f"scope is one of {', '.join(get_args(Scope))}, got {scope!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cues:
    """Data of a sample that a mask may follow. `Mask.needs` names the cues that a mask reads.

    flow: float32 (T-1, h, w, 2), backward flow in pixels, and cuts: bool (T-1,), scene cuts (see `Flow`). occupied:
    bool (N,), whether anything lies in a token's part of space. box: float (4,), x0, y0, x1, y1 as shares of the
    picture. words: int64 (N,), the word
    that a token belongs to, ascending, -1 for special tokens, -2 for padding. classes: int64 (N,), a token's class,
    such as its part of speech, -1 for none. scores: float32 (N,), a token's importance. hidden: bool (N,), tokens that
    an earlier level hid. edges: int64 (2, E), pairs of nodes. kinds: int64 (N,), a node's type. tokens: int64 (N,),
    token ids.
    """

    flow: npt.NDArray[np.float32] | None = None
    cuts: npt.NDArray[np.bool_] | None = None
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
            raise ValueError(f"{by} needs the cue {name}, got none; give Draw(cues=Cues({name}=...))")
        return value


def sized(cue: npt.NDArray[Any], n: int, name: str, by: str) -> npt.NDArray[Any]:
    """The cue `name`; ValueError unless it has one value for each of `n` tokens, or pairs."""
    if cue.shape != (n,):
        raise ValueError(f"{by} needs the cue {name} of {n} values, of shape ({n},), got {cue.shape}")
    return cue


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
    def of(cls, seed: int, epoch: int, key: str, view: int, place: Place, cues: Cues, part: str = "") -> Draw:
        """The draw of a view of sample `key`, as the loaders make it."""
        rng = sample_rng(seed, epoch, key, view, f"mask {part}".strip())
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
