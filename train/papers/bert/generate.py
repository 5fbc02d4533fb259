"""Generates text with a masked language model: fills in the blanks of documents, in any order.

A model that was trained with any number of hidden tokens (PMLM, Liao et al., 2020) is also one of any order: each blank
is drawn given what is there already. A model of one ratio has not seen documents that are nearly empty.

Shapes: B documents of N tokens, V ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from maskstream.train.nn.token_model import TokenModel

Order = Literal["random", "left_to_right", "confident"]
"""Which blank is filled in next: any; the first; or that whose most probable id is the most probable of all."""


@torch.inference_mode()
def generate(
    model: TokenModel,
    ids: Tensor,
    blank: int,
    *,
    order: Order = "random",
    temperature: float = 1.0,
    never: Sequence[int] = (),
    seed: int = 0,
) -> Tensor:
    """The documents ids int (B, N) with each `blank` id filled in: int64 (B, N).

    One token of each document is drawn at a time, from the softmax of its logits / temperature; at temperature 0 it is
    the most probable one. never: ids that are not drawn, such as special ones; a blank never is. seed: decides all.
    ValueError for an unknown order or a temperature below 0.
    """
    if order not in get_args(Order):
        raise ValueError(f"order is one of {', '.join(get_args(Order))}, got {order!r}")
    if temperature < 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    model.eval()
    device = ids.device
    rng = torch.Generator(device).manual_seed(seed)
    made = ids.long().clone()
    documents, n = made.shape
    edges = torch.arange(documents + 1, device=device, dtype=torch.int32) * n
    places = torch.arange(n, device=device).repeat(documents)
    rows = torch.arange(documents, device=device)
    left = n - torch.arange(n, device=device)
    while (blanks := made == blank).any():
        x = model.encode_ids(made.flatten(), places, edges, n).view(documents, n, -1)
        if order == "confident":
            value = _chances(model.logits(x), blank, never, 1.0).amax(dim=-1)
        elif order == "left_to_right":
            value = left.expand(documents, n).float()
        else:
            value = torch.rand((documents, n), generator=rng, device=device)
        chosen = value.masked_fill(~blanks, -1).argmax(dim=1)
        chances = _chances(model.logits(x[rows, chosen]), blank, never, temperature)
        drawn = torch.multinomial(chances, 1, generator=rng)[:, 0]
        made[rows, chosen] = torch.where(blanks.any(dim=1), drawn, made[rows, chosen])
    return made


def _chances(logits: Tensor, blank: int, never: Sequence[int], temperature: float) -> Tensor:
    """The probability of each id, float32 (..., V)."""
    logits = logits.float().clone()
    logits[..., [blank, *never]] = -torch.inf
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
    return (logits / temperature).softmax(dim=-1)
