"""AdamW as masked autoencoders use it: no weight decay for biases, norms and other vectors, and gradient clipping."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiserConfig(Config):
    """The settings of AdamW. max_grad_norm: gradients are clipped to this norm; None for no clipping."""

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.05
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")
        if self.eps <= 0 or self.weight_decay < 0:
            raise ValueError(f"eps must be > 0 and weight_decay >= 0, got {self.eps}, {self.weight_decay}")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be > 0, or None for no limit, got {self.max_grad_norm}")


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW over two groups of parameters: those of two or more dimensions have weight decay, the others have none.

    The learning rate is 0 until a schedule sets it (see `set_lr`).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def limit_gradients(model: nn.Module, config: OptimiserConfig) -> Tensor:
    """Clips the gradients to `max_grad_norm`. Returns their norm before clipping, a float32 scalar."""
    limit = float("inf") if config.max_grad_norm is None else config.max_grad_norm
    return torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
