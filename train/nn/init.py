"""The initial weights of models of tokens."""

from __future__ import annotations

from torch import nn

INIT_STD, INIT_WIDTH = 0.02, 768
"""The standard deviation of the initial weights of linear layers and tables of a model of this width, as in BERT."""


def init_normal(model: nn.Module, width: int = INIT_WIDTH) -> None:
    """Gives linear layers and tables of embeddings normal weights and zero biases: at width 768 those of BERT.

    The deviation is in proportion to 1 / sqrt(width), so that sums over channels begin alike at any width. With BERT's
    own 0.02, attention of narrow models begins almost even over all tokens, and takes long to find neighbours.
    """
    std = INIT_STD * (INIT_WIDTH / width) ** 0.5
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def init_linear(model: nn.Module) -> None:
    """Gives every linear layer of a model Xavier-uniform weights and zero biases, as masked autoencoders do."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
