"""Forward process of masked diffusion: a ratio drawn for each text and kept for its loss."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor

import numpy as np

from maskstream.pipelines.masks.core import (
    TEXT,
    Draw,
    Mask,
    RatioAlone,
    Scheme,
    Shot,
    TextDraws,
    TokenGrid,
    as_proportion_schedule,
    tidy,
)
from maskstream.pipelines.masks.patterns.padded import Padded
from maskstream.pipelines.masks.patterns.random import draw_random_tokens
from maskstream.pipelines.masks.schedules.random import Uniform
from maskstream.shards.arrays import Bools

from .replace import TextMaps
from .words import build_word_cue


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedDiffusion(Mask):
    """Hide each token of a text with probability t, drawn per text and returned as `TextMaskBatch.ratio`.

    t is the time of a diffusion with [MASK] as noise and a log-linear schedule: a fraction 1 - t of the tokens is
    unchanged, and the loss weight is 1 / t. Special tokens and padding are never hidden. Counts differ between texts
    (see `Padded`).

    The grid's axes are (token,); the mask input is `words`. Sources: MDLM (Sahoo et al. 2024, sec. 3); LLaDA (Nie et
    al. 2025, sec. 2), which evaluates with exact counts.

    Attributes:
        ratio: Distribution of t. As in the authors' code, the default excludes times below 0.001, where a single token
            would have a weight in the thousands.
        exact: Hide exactly floor(t n) + 1 of n tokens and return that fraction as the ratio. If t is uniform in [0, 1],
            the mean loss is unchanged and its variance is lower.
    """

    ratio: RatioAlone = field(default_factory=lambda: Uniform(low=0.001, high=1.0))
    exact: bool = False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"words"})

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.maps(grid, draw).hidden

    def maps(self, grid: TokenGrid, draw: Draw) -> TextMaps:
        words = build_word_cue(grid, draw, by="MaskedDiffusion")
        t = as_proportion_schedule(self.ratio, by="MaskedDiffusion").draw(draw)
        if not self.exact:
            hidden = (draw.rng.random(len(words)) < t) & (words >= 0)
            return TextMaps(hidden=hidden, ratio=np.float32(t))
        places = np.flatnonzero(words >= 0)
        n = len(places)
        count = min(floor(t * n) + 1, n)
        hidden = np.zeros(len(words), dtype=np.bool_)
        hidden[places] = draw_random_tokens(n, n - count, draw.rng)
        return TextMaps(hidden=hidden, ratio=np.float32(count / max(n, 1)))

    def maps_of_texts(self, grid: TokenGrid, draws: TextDraws) -> Sequence[TextMaps] | None:
        schedule = as_proportion_schedule(self.ratio, by="MaskedDiffusion")
        if self.exact or type(self) is not MaskedDiffusion or type(schedule) is not Uniform or schedule.scope != "view":
            return None
        from .token_draws import draw_uniforms, hide_each

        grid.need("token", by="MaskedDiffusion")
        t = [tidy(schedule.between(share)) for share in draw_uniforms(draws.streams).tolist()]
        hidden = hide_each(draws.streams, draws.words, np.array(t))
        return [TextMaps(hidden=row, ratio=np.float32(one)) for row, one in zip(hidden, t, strict=True)]


SCHEMES = (
    Scheme(
        name="mdlm",
        paper="MDLM",
        section="sec. 3",
        mask=Padded(mask=MaskedDiffusion()),
        grid=TEXT,
        title="Masked diffusion",
        note=(
            "Each text draws a time t from 0 to 1 and hides each token with probability t; weight the loss with "
            "1/t (t is `TextMaskBatch.ratio`)."
        ),
        shots=(Shot(caption="a draw"), Shot(caption="another", epoch=2)),
    ),
)
