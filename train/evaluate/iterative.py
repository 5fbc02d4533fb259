"""Iterative decoding: hidden ids are filled in over several rounds, the most certain first.

Source: MaskGIT (Chang et al., 2022, section 3.2), whose schedule is the cosine here; MAGE (Li et al., 2023) draws
pictures from nothing in this way.

Shapes: B samples of N ids, M of them hidden, K ids that can be drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, floor, pi

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor, int], Tensor]
"""The logits (B, M, K) of hidden ids in their order, of ids int64 (B, N), which of them are hidden bool (B, N), and M.
What stands in `ids` where they are hidden has no meaning."""


@torch.inference_mode()
def fill_in(
    predict: Predict, ids: Tensor, hidden: Tensor, *, rounds: int = 12, temperature: float = 4.5, seed: int = 0
) -> Tensor:
    """The ids int64 (B, N) with the `hidden` ones bool (B, N) drawn, equally many in each row.

    In each round all hidden ids are drawn from the softmax of their logits, and the most certain ones stay: after round
    r of R as many are left as a cosine of r / R says, at least one fewer. Certainty is the log of the probability plus
    Gumbel noise times `temperature` times (1 - r / R). seed: decides all. ValueError for rows with different counts.
    """
    counts = hidden.sum(dim=1)
    first = m = int(counts.max()) if len(counts) else 0
    if rounds < 1 or temperature < 0 or (len(counts) and int(counts.min()) != first):
        raise ValueError(
            "rounds must be at least 1, temperature 0 or more, and rows have equally many hidden ids, got "
            f"{rounds}, {temperature} and counts from {int(counts.min()) if len(counts) else 0} to {first}"
        )
    rng = torch.Generator(ids.device).manual_seed(seed)
    made, hidden = ids.long().clone(), hidden.clone()
    for number in range(1, rounds + 1):
        if not m:
            break
        logs = predict(made, hidden, m).float().log_softmax(dim=2)
        drawn = torch.multinomial(logs.exp().flatten(0, 1), 1, generator=rng).view(-1, m)
        done = number / rounds
        noise = -torch.empty_like(logs[:, :, 0]).exponential_(generator=rng).log()
        sure = logs.gather(2, drawn[:, :, None])[:, :, 0] + temperature * (1 - done) * noise
        left = 0 if number == rounds else min(max(floor(first * cos(pi / 2 * done)), 1), m - 1)
        places = hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, -m:]
        kept = sure.topk(m - left, dim=1).indices
        chosen = places.gather(1, kept)
        made.scatter_(1, chosen, drawn.gather(1, kept))
        hidden.scatter_(1, chosen, False)
        m = left
    return made
