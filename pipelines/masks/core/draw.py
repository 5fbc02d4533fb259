"""What a mask is drawn from: a view of a sample, at a place in the run, with what the sample shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ...stream.place import Place
from ...stream.rng import sample_rng

Scope = Literal["view", "sample", "batch", "frame"]
"""For what one random number is drawn: a view of a sample, all views of it, a batch over all ranks, or a frame."""


def check_scope(scope: str) -> None:
    """ValueError unless `scope` is one of the four."""
    if scope not in get_args(Scope):
        raise ValueError(f"scope is one of {', '.join(get_args(Scope))}, got {scope!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cues:
    """What a sample shows that a pattern may follow; a pattern's `needs` names those that it asks for.

    flow: float32 (T-1, h, w, 2), backward flow in pixels (see `batch.Flow`). occupied: bool (N,), whether anything lies
    in a token's part of space. box: float (4,), x0, y0, x1, y1 as shares of the picture. words: int64 (N,), the word
    that a token belongs to, ascending, -1 for special tokens, -2 for padding. classes: int64 (N,), a token's class,
    such as its part of speech, -1 for none. scores: float32 (N,), a token's importance. hidden: bool (N,), tokens that
    an earlier level hid. edges: int64 (2, E), pairs of nodes. kinds: int64 (N,), a node's type. tokens: int64 (N,),
    token ids.
    """

    flow: npt.NDArray[np.float32] | None = None
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
        """The cue `name` for the pattern `by`; ValueError where the sample has none."""
        value: npt.NDArray[Any] | None = getattr(self, name)
        if value is None:
            raise ValueError(f"{by} is guided by {name}: give Draw(cues=Cues({name}=...)), got none")
        return value


def sized(cue: npt.NDArray[Any], n: int, name: str, by: str) -> npt.NDArray[Any]:
    """The cue `name`; ValueError unless it has one value for each of `n` tokens."""
    if cue.shape != (n,):
        raise ValueError(f"{by} needs {name} for {n} tokens, ({n},), got {cue.shape}")
    return cue


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One view of one sample.

    rng: its own generator. place: where in the run the sample is shown. seed, epoch, key: what its generators are keyed
    by; without a key only what belongs to a single view can be drawn. part: the part of the sample that the draw is
    for, such as its text, where parts have masks of their own (see `Joint`).
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
        """The draw of a view of sample `key`, as every loader makes it."""
        rng = sample_rng(seed, epoch, key, view, f"mask {part}".strip())
        return cls(rng=rng, view=view, place=place, cues=cues, seed=seed, epoch=epoch, key=key, part=part)

    def generator(self, scope: Scope, purpose: str) -> np.random.Generator:
        """The generator of a decision that is the same for all of `scope`; a view's is `rng` itself.

        A new one is returned at each call, so that whoever asks for the same purpose draws the same. ValueError where
        the draw has no key.
        """
        if scope in ("view", "frame"):
            return self.rng
        if self.key is None:
            raise ValueError(
                f"a random number for a whole {scope} needs to know it: draw with Draw.of(seed, epoch, key, ...), as "
                "the loaders do, not from a bare generator"
            )
        if scope == "sample":
            return sample_rng(self.seed, self.epoch, self.key, 0, f"all views {purpose}")
        return sample_rng(self.seed, 0, f"batch {self.place.step}", 0, purpose)
