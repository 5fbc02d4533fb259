"""Energy-based masks: choose tokens by their residual after motion compensation from the previous frame."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from maskstream.pipelines.masks.core import CLIP, Draw, Mask, Ratio, Rounding, Scheme, TokenGrid, as_schedule
from maskstream.pipelines.masks.schedules.random import UniformCount
from maskstream.shards.arrays import Bools, Int64s
from maskstream.shards.limits import NaturalFloat

KERNELS = ("maskstream.pipelines.masks.patterns.token_energy",)
Keep = Literal["most", "least"]
Per = Literal["clip", "slice", "tube"]
Source = Literal["online", "stored"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ByEnergy(Mask):
    """Hide the tokens with the least residual energy, so that the visible ones carry the new information in the clip.

    At ratio 0.75 on 8 x 14 x 14 tokens, 392 are visible. The grid's axes are (t, h, w). Ties are broken at random.

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
        keep: Keep tokens with the "most" or the "least" energy visible.
        per: Apply the ratio to the whole "clip", to each "slice" in time, or to one plane that is repeated over time
            and ranked by total energy ("tube").
        sharpness: None ranks tokens by energy. A number draws them without replacement, with probability proportional
            to energy (or its inverse) raised to this power; 0 is uniform.
        motion: Intensity levels per pixel of motion that are added to the residual; 0 uses the residual alone, the only
            option with stored energy.
        first: Mask applied first, such as Tube(ratio=0.5); energy then chooses among the other tokens, up to the ratio.
        energy: "online" computes the energy from frames, flow and cuts (token_energy.py). "stored" reads the mask input
            `energy` that preprocessing stored for every 4th frame, so drawing needs no pixels or motion vectors. It is
            distributed from cells of 16 pixels to tokens by area, so the two differ slightly.
    """

    ratio: Ratio = 0.75
    rounding: Rounding = "floor_visible"
    keep: Keep = "most"
    per: Per = "clip"
    sharpness: NaturalFloat | None = None
    motion: NaturalFloat = 0.0
    first: Mask | None = None
    energy: Source = "online"

    def validate(self) -> None:
        if self.motion > 0 and self.energy == "stored":
            raise ValueError(
                f"motion={self.motion} with energy='stored': only the residual is stored; use energy='online'"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Frames, flow and cuts, or the stored energy, and the inputs of `first`."""
        own = frozenset({"frames", "flow", "cuts"} if self.energy == "online" else {"energy"})
        return own if self.first is None else own | self.first.needs

    def hiding(self, count: int) -> Self:
        """Return the same mask with a fixed number of hidden tokens instead of the ratio."""
        return replace(self, ratio=UniformCount(low=count, high=count))

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        t, *_ = grid.need("t", "h", "w", by="ByEnergy")
        energy = self._sum_energy(grid, draw)
        hidden: Bools = np.zeros(grid.size, dtype=np.bool_)
        if self.first is not None:
            hidden = self.first.hide(grid, draw)
        hidden = hidden.reshape(1 if self.per == "clip" else t, -1)
        energy = energy.reshape(hidden.shape)
        if self.per == "tube":
            energy, hidden = energy.sum(axis=0)[None], np.logical_or.reduce(hidden)[None]
        rows, tokens = energy.shape
        counts = as_schedule(self.ratio).visible_per_frame(rows, tokens, draw, self.rounding)
        shown = np.zeros((rows, tokens), dtype=np.bool_)
        for row, visible in enumerate(counts):
            free = draw.rng.permutation(np.flatnonzero(~hidden[row]))
            if len(free) < visible:
                raise ValueError(
                    f"{self.first} hides all but {len(free)} of {tokens} tokens, but ratio={self.ratio} shows "
                    f"{visible}; use a smaller `first`"
                )
            shown[row, free[self._rank_tokens(energy[row, free], draw.rng)[:visible]]] = True
        return ~np.broadcast_to(shown, (t if self.per == "tube" else rows, tokens)).reshape(-1)

    def _rank_tokens(self, energy: Int64s, rng: np.random.Generator) -> Int64s:
        """Rank tokens, those to keep visible first: int64 (n,)."""
        score = -energy if self.keep == "most" else energy
        if self.sharpness is None:
            return np.argsort(score, kind="stable")
        # Gumbel trick: the largest log-weights plus Gumbel noise are a weighted draw without replacement.
        rising = np.log1p(energy) * (self.sharpness if self.keep == "most" else -self.sharpness)
        return np.argsort(-(rising + rng.gumbel(size=len(energy))), kind="stable")

    def _sum_energy(self, grid: TokenGrid, draw: Draw) -> Int64s:
        """Return the energy of each token, int64 (t, h * w)."""
        from .token_energy import token_energy

        (t, h, w), (tubelet, patch, across) = grid.shape, grid.patch
        if self.energy == "stored":
            stored = draw.cues.need("energy", by="ByEnergy")
            if stored.shape != (t * tubelet, h, w):
                raise ValueError(f"ByEnergy needs the energy of {t * tubelet} frames of {h} x {w}, got {stored.shape}")
            return np.asarray(stored.reshape(t, tubelet, h * w).sum(axis=1))
        frames, flow, cuts = (draw.cues.need(name, by="ByEnergy") for name in ("frames", "flow", "cuts"))
        wanted = (t * tubelet, h * patch, w * across, 3)
        if patch != across or t * tubelet < 2 or frames.shape != wanted or len(flow) != len(frames) - 1:
            raise ValueError(
                f"ByEnergy on tokens of {tubelet} frames and square patches of {patch} needs at least two frames, "
                f"{wanted}, and the flow between them, got {frames.shape} and {flow.shape}, patches {patch} x {across}"
            )
        return token_energy(frames, flow, cuts, tubelet=tubelet, patch=patch, motion=self.motion).reshape(t, -1)


SCHEMES = (
    Scheme(
        name="by-energy",
        paper="Token energy",
        mask=ByEnergy(ratio=0.75),
        grid=CLIP,
        visible=392,
        title="By energy",
        note=(
            "The quarter of the tokens that the previous frame, warped along the flow, predicts worst stays "
            "visible: the content a codec would have to send."
        ),
    ),
)
