"""The part of a batch that every masked autoencoder takes."""

from __future__ import annotations

from torch import Tensor

from ...pipelines.masks.core.batch import MaskBatch


def masked_inputs(data: Tensor, mask: MaskBatch | None) -> tuple[Tensor, ...]:
    """What `MaskedAutoencoder.forward` takes; ValueError where the loader gives no masks."""
    if mask is None:
        raise ValueError("the loader gives no masks, and a masked autoencoder needs them; build it with mask=")
    return data, mask.visible, mask.target, mask.weight
