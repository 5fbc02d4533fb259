"""MDLM: a masked language model that is a diffusion model, trained on a bound of the likelihood of whole texts.

Tokens of a text are hidden with a probability t that is uniform from 0 to 1 (masks.MaskedDiffusion), and the
cross-entropy of each hidden token is weighted by 1 / t. The mean over all tokens, hidden or not, is a bound of the
negative log-likelihood in nats per token. Two properties make it a bound (SUBS): the id of the mask token has zero
probability, and visible tokens are unchanged, so that only hidden ones are predicted. The time is not an input of the
model, since it follows from the text. Source: MDLM (Sahoo et al., 2024, section 3), LLaDA (Nie et al., 2025, section
2).

Shapes: B texts of up to L tokens, K hidden tokens of all texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.masks import Mask, Replace
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.train.core.model import Losses, LossPart
from maskstream.train.nn.token_layers import HiddenTokens, find_hidden_tokens, need_mask
from maskstream.train.nn.token_model import TokenModel, TokenModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionLanguageConfig(TokenModelConfig):
    """The sizes of a masked diffusion language model, the same as of a masked language model."""

    def check(self, data: DataConfig[TextBatch]) -> None:
        """Raise ValueError for masks that keep hidden tokens or replace them by random ones."""
        mask = data.mask if isinstance(data, TextData) else None
        for one in _list_masks(mask):
            if isinstance(one, Replace) and (one.keep or one.random):
                raise ValueError(
                    f"masked diffusion hides tokens only with [MASK], got keep={one.keep} and random={one.random}; "
                    "use masks.Replace(mask=..., keep=0.0, random=0.0)"
                )


def _list_masks(mask: Mask | None) -> Iterator[Mask]:
    """Yield a mask and all masks inside it."""
    if mask is not None:
        yield mask
        for one in fields(mask):
            inside = getattr(mask, one.name)
            yield from _list_masks(inside if isinstance(inside, Mask) else None)


class DiffusionLanguageModel(TokenModel, config=DiffusionLanguageConfig):
    """A masked language model whose loss is a bound on the negative log-likelihood in nats per token."""

    def loss(self, batch: TextBatch) -> Losses:
        """Return the bound of the batch: cross-entropies of hidden tokens, divided by their text's ratio, summed and
        divided by the number of all tokens except special ones.
        """
        hidden = find_hidden_tokens(batch)
        errors = F.cross_entropy(self.compute_hidden_logits(batch, hidden), hidden.label, reduction="none")
        row = hidden.index // batch.tokens.shape[1]
        share = hidden.weight / need_ratio(batch)[row]
        real = (batch.words >= 0).sum(dim=1).float()
        if batch.weight is not None:
            real = real * batch.weight
        return Losses(parts={"bound": LossPart(total=(errors * share).sum(), weight=real.sum())})

    def compute_hidden_logits(self, batch: TextBatch, hidden: HiddenTokens) -> Tensor:
        """Return the logits of hidden tokens, with -inf for the id that replaces them; see `TokenModel`.

        Args:
            batch: The batch.
            hidden: The hidden tokens.
        """
        return mask_impossible(super().compute_hidden_logits(batch, hidden), batch, hidden)


def need_ratio(batch: TextBatch) -> Tensor:
    """Return the probability with which tokens of each text were hidden, float32 (B,); raise ValueError for another
    mask.
    """
    ratio = need_mask(batch).ratio
    if ratio is None:
        raise ValueError("the batch's mask has no ratio of hidden tokens; use masks.MaskedDiffusion in masks.Replace")
    return ratio


def mask_impossible(logits: Tensor, batch: TextBatch, hidden: HiddenTokens) -> Tensor:
    """Set the logits (K, V) of hidden tokens to -inf for the id that replaces them.

    Args:
        logits: The logits.
        batch: The batch.
        hidden: The hidden tokens.
    """
    stands = batch.inputs.flatten()[hidden.index][:, None]
    # Tokens without weight are padding on a CUDA device; they have a true id, which remains possible.
    blocked = (hidden.weight > 0)[:, None]
    return logits.scatter(1, stands, logits.gather(1, stands).masked_fill(blocked, -torch.inf))
