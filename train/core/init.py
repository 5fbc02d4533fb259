"""The initial weights of masked autoencoders."""

from __future__ import annotations

from torch import nn


def init_linear(model: nn.Module) -> None:
    """Gives every linear layer of a model Xavier-uniform weights and zero biases, as masked autoencoders do."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
