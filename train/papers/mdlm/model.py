"""MDLM: a masked language model that is a diffusion model, trained on a bound of the likelihood of whole texts.

Shapes: B texts of up to L tokens, K hidden tokens of all texts.

A text is hidden with a chance t that is uniform from 0 to 1 (masks.MaskedDiffusion), and the cross-entropy of each
hidden token counts 1 / t. Its mean over all tokens, hidden or not, is a bound of the negative log-likelihood in nats a
token. Two things make it one (SUBS): the id that stands for a hidden token has no probability, and visible tokens stay
as they are, so that only hidden ones are predicted. The model is not told the time, which follows from the text.
Source: MDLM (Sahoo et al., 2024, section 3), LLaDA (Nie et al., 2025, section 2).
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
    """The sizes of a masked diffusion language model, which are those of a masked language model."""

    def check(self, data: DataConfig[TextBatch]) -> None:
        """ValueError for masks that leave a hidden token in its place, or put a random one there."""
        mask = data.mask if isinstance(data, TextData) else None
        for one in _list_masks(mask):
            if isinstance(one, Replace) and (one.keep or one.random):
                raise ValueError(
                    f"a masked diffusion hides tokens by [MASK] alone, got keep={one.keep} and random={one.random}; "
                    "use masks.Replace(mask=..., keep=0.0, random=0.0)"
                )


def _list_masks(mask: Mask | None) -> Iterator[Mask]:
    """A mask, and all that it is made of."""
    if mask is not None:
        yield mask
        for one in fields(mask):
            inside = getattr(mask, one.name)
            yield from _list_masks(inside if isinstance(inside, Mask) else None)


class DiffusionLanguageModel(TokenModel, config=DiffusionLanguageConfig):
    """A masked language model whose loss is a bound of the negative log-likelihood in nats a token."""

    def loss(self, batch: TextBatch) -> Losses:
        """The bound of the batch: the cross-entropies of hidden tokens, each divided by its text's ratio, summed and
        divided by the number of all tokens but special ones.
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
        """See `TokenModel`; that of the id which stands for a hidden token is -inf."""
        return mask_impossible(super().compute_hidden_logits(batch, hidden), batch, hidden)


def need_ratio(batch: TextBatch) -> Tensor:
    """The chance with which each text of a batch was hidden, float32 (B,). ValueError for another mask."""
    ratio = need_mask(batch).ratio
    if ratio is None:
        raise ValueError(
            "the batch's mask does not say with which chance it hid tokens; use masks.MaskedDiffusion in masks.Replace"
        )
    return ratio


def mask_impossible(logits: Tensor, batch: TextBatch, hidden: HiddenTokens) -> Tensor:
    """The logits (K, V) of hidden tokens, with -inf for the id that stands in their places."""
    stands = batch.inputs.flatten()[hidden.index][:, None]
    # What has no weight is padding on a CUDA device, where a true id stands, which stays possible.
    blocked = (hidden.weight > 0)[:, None]
    return logits.scatter(1, stands, logits.gather(1, stands).masked_fill(blocked, -torch.inf))
