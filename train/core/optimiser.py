"""AdamW as masked autoencoders use it: only matrices decay, and gradients are clipped."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...shards.config import Config
from .rows import rows, whole


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
    """AdamW over two groups: matrices have weight decay; biases, norms and tables of embeddings have none.

    The learning rate is 0 until a schedule sets it (see `set_lr`).
    """
    decays = matrices(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = [
        {"params": [p for name, p in parameters.items() if name in decays], "weight_decay": config.weight_decay},
        {"params": [p for name, p in parameters.items() if name not in decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)


def matrices(model: nn.Module) -> set[str]:
    """The names of the parameters that multiply activations.

    Those are all of two or more dimensions, except the biases of experts (`..._bias`) and the vectors of which each
    token adds one: `nn.Embedding`, and the parameters that a module names in `TABLES`.
    """
    found = set()
    for path, module in model.named_modules():
        if not isinstance(module, nn.Embedding):
            tables: Collection[str] = getattr(module, "TABLES", ())
            own = module.named_parameters(prefix=path, recurse=False)
            found |= {name for name, p in own if p.ndim > 1 and name.rpartition(".")[2] not in tables}
    return {name for name in found if not name.endswith("bias")}


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def limit_gradients(model: nn.Module, config: OptimiserConfig) -> Tensor:
    """Clips the gradients to `max_grad_norm`. Returns their norm before clipping, a float32 scalar."""
    norm = whole(torch.nn.utils.get_total_norm(gradients(model)))
    if config.max_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), config.max_grad_norm, norm)
    return norm


def scale_gradients(model: nn.Module, factor: Tensor) -> None:
    """Multiplies all gradients by a scalar."""
    torch._foreach_mul_([rows(one) for one in gradients(model)], factor)


def gradients(model: nn.Module) -> list[Tensor]:
    """The gradients that there are."""
    return [p.grad for p in model.parameters() if p.grad is not None]
