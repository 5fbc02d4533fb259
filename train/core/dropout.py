"""Dropout and drop path for any model, applied after the model is built according to a `DropoutConfig`.

Layers with dropout derive from `Dropping`; blocks with residual branches derive from `ResidualBlock`. Their rates are
0 at first, and outside of training nothing is dropped. Draws come from torch's generator, which a step seeds (see
`derive_step_seed`).

Sources: Srivastava et al. (2014) for dropout; Huang et al. (2016) for drop path, or stochastic depth.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.shards.config import Config
from maskstream.shards.limits import ProperProportion


@dataclass(frozen=True, kw_only=True, slots=True)
class DropoutConfig(Config):
    """Dropout in training. All rates lie in [0, 1).

    Attributes:
        hidden: Rate for token-id embeddings and for the output of a block's branch.
        inner: Rate between the two layers of a feed-forward network.
        attention: Rate for attention weights.
        path: Fraction of samples for which a branch of the last block is skipped. It rises in equal steps from 0 in the
            first block.
        only: Parts of the model that use dropout, such as "decoder"; () for all.
    """

    hidden: ProperProportion = 0.0
    inner: ProperProportion = 0.0
    attention: ProperProportion = 0.0
    path: ProperProportion = 0.0
    only: tuple[str, ...] = ()


class Dropping(nn.Module):
    """A layer with dropout during training; `drops` is the field of `DropoutConfig` that sets its `rate`."""

    drops: ClassVar[Literal["hidden", "inner", "attention"]] = "hidden"
    rate: float = 0.0

    @property
    def rate_now(self) -> float:
        """The rate, or 0 outside of training."""
        return self.rate if self.training else 0.0

    def dropped(self, x: Tensor) -> Tensor:
        """Apply dropout: set values to 0 at the layer's rate and rescale the others."""
        return F.dropout(x, self.rate) if self.rate and self.training else x


class Dropout(Dropping):
    """Dropout by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self.dropped(x)


class AttentionRate(Dropping):
    """Dropout rate of attention, for a layer that has a separate rate itself."""

    drops = "attention"


class ResidualBlock(Dropping):
    """A block with residual branches over samples (B, ...).

    Attributes:
        path_rate: Drop path rate, a float32 scalar on the device, so that one graph serves all blocks.
    """

    drops_paths: bool = False
    path_rate: Tensor

    def joined(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add the output of a branch to x (B, ...).

        Args:
            x: Input of the branch.
            branch: Output of the branch, with the shape of x.
        """
        branch = self.dropped(branch)
        if self.drops_paths and self.training:
            kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= self.path_rate
            branch = branch * (kept / (1 - self.path_rate)).to(branch.dtype)
        return x + branch


def set_dropout(model: nn.Module, config: DropoutConfig) -> None:
    """Set the dropout rates of a model's layers.

    Args:
        model: The model, whose layers are changed in place.
        config: The rates.

    Raises:
        ValueError: No layer uses a nonzero rate, or `only` names a part that the model does not have.
    """
    parts = [name for name, _ in model.named_modules()]
    for one in config.only:
        if one not in parts:
            raise ValueError(f"dropout.only includes {one!r}, but a {type(model).__name__} has no such part")
    found = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, Dropping)
        and (not config.only or any(f"{path}.".startswith(f"{o}.") for o in config.only))
    }
    stacks: dict[str, list[ResidualBlock]] = defaultdict(list)
    for path, module in found.items():
        module.rate = getattr(config, module.drops)
        if isinstance(module, ResidualBlock):
            stacks[_stack(path)].append(module)
    if config.path:
        for blocks in stacks.values():
            for block, rate in zip(blocks, torch.linspace(0, config.path, len(blocks)), strict=True):
                block.drops_paths = True
                block.register_buffer("path_rate", rate.clone(), persistent=False)
    for name, able in (
        *((kind, any(one.drops == kind for one in found.values())) for kind in ("hidden", "inner", "attention")),
        ("path", bool(stacks)),
    ):
        if getattr(config, name) and not able:
            raise ValueError(f"no layer of a {type(model).__name__} uses dropout.{name}; leave it at 0")


def _stack(path: str) -> str:
    """Return the name of a block's stack: its path without its number in the list."""
    parts = path.split(".")
    last = max((i for i, part in enumerate(parts) if part.isdigit()), default=len(parts))
    first = last
    while first and parts[first - 1].isdigit():
        first -= 1
    return ".".join(parts[:first] + parts[last + 1 :])
