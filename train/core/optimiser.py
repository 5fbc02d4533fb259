"""AdamW as masked autoencoders use it: only matrices decay, and gradients are clipped."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from maskstream.shards.config import Config
from maskstream.shards.limits import (
    NaturalFloat,
    OpenProportion,
    PositiveFloat,
    PositiveInt,
    PositiveProportion,
    ProperProportion,
)

from .distributed import find_part, get_local_rows, is_divided, sum_over_ranks
from .parallel import named_blocks


class Average:
    """Exponential moving average of a model's parameters (Polyak and Juditsky, 1992), float32, on their device.

    If parameters are sharded, each rank averages its local rows.

    Attributes:
        decay: Weight of the average in each step, capped at (1 + step) / (10 + step) so that the initial weights are
            forgotten soon.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p.detach() for name, p in model.named_parameters()}
        self.values = {name: p.clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step `step`, counted from 0."""
        move_towards(self.values.values(), self._parameters.values(), min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Replace the average by a checkpoint's values."""
        for name, value in values.items():
            get_local_rows(self.values[name]).copy_(get_local_rows(value))


def move_towards(averages: Iterable[Tensor], weights: Iterable[Tensor], decay: float) -> None:
    """Change moving averages in place to `decay` of them and the rest of the weights.

    Args:
        averages: Moving averages.
        weights: Current weights, in the same order.
        decay: Weight of the old averages, in [0, 1].
    """
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    update([*map(get_local_rows, averages)], [*map(get_local_rows, weights)], None)


Shape = Literal["cosine", "linear", "exponential", "constant", "multistep", "trapezoid"]
"""How the learning rate falls after the warm-up: along half a cosine or a line, by a factor at each step or at some
steps, not at all, or only at the end of the run.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig(Config):
    """Learning-rate schedule and length of a run.

    Attributes:
        base_lr: Peak rate for 256 samples per step. The rate is proportional to the batch size (Goyal et al., 2017,
            2.1); repeated views of a sample do not count, as in VideoMAE V2.
        min_lr: Final rate for 256 samples per step.
        warmup: Fraction of all steps in which the rate rises linearly from 0.
        epochs: Length of the run in epochs, used if `steps` is None.
        steps: Length of the run in steps.
        shape: How the rate falls from base_lr to min_lr. "constant" stays at base_lr. "multistep" multiplies it by
            `factor` at each milestone and stays above min_lr. "trapezoid" stays at base_lr until the cooldown, in which
            it falls as 1 - sqrt of the cooldown's progress (warm-up, stable, decay: Hu et al., 2024; Haegele et al.,
            2024).
        milestones: Fractions of all steps at which "multistep" lowers the rate.
        factor: Factor of the rate at each milestone.
        cooldown: Final fraction of all steps in which "trapezoid" lowers the rate.
    """

    base_lr: PositiveFloat
    min_lr: NaturalFloat = 0.0
    warmup: ProperProportion = 0.05
    epochs: PositiveInt = 1
    steps: PositiveInt | None = None
    shape: Shape = "cosine"
    milestones: tuple[OpenProportion, ...] = ()
    factor: OpenProportion = 0.1
    cooldown: ProperProportion = 0.0

    def validate(self) -> None:
        if (self.shape == "multistep") != bool(self.milestones):
            raise ValueError(
                f"milestones must be set for shape='multistep' and for no other shape, got shape={self.shape!r} and "
                f"milestones={self.milestones}"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must be increasing, got {self.milestones}")
        if (self.shape == "trapezoid") != (self.cooldown > 0) or self.cooldown > 1 - self.warmup:
            raise ValueError(
                "cooldown must be above 0 and at most 1 - warmup for shape='trapezoid', and 0 for other shapes, got "
                f"shape={self.shape!r}, cooldown={self.cooldown} and warmup={self.warmup}"
            )
        if self.shape == "exponential" and self.min_lr == 0:
            raise ValueError("shape='exponential' needs min_lr > 0, since no factor reaches 0, got min_lr=0")
        if self.min_lr > self.base_lr:
            raise ValueError(f"min_lr must be at most base_lr={self.base_lr}, got {self.min_lr}")

    def run_length(self, steps_per_epoch: int) -> int:
        """Return the number of steps of a run."""
        return self.epochs * steps_per_epoch if self.steps is None else self.steps

    def lr(self, step: int, total: int, samples: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: Number of the step, from 0.
            total: Number of steps of the run.
            samples: Samples per step over all ranks; the rate is proportional to it.
        """
        scale = samples / 256
        warm = int(self.warmup * total)
        if step < warm:
            return self.base_lr * scale * (step + 1) / (warm + 1)
        done = min((step - warm) / max(total - warm, 1), 1.0)
        match self.shape:
            case "constant":
                return scale * self.base_lr
            case "exponential":
                return scale * self.base_lr * math.pow(self.min_lr / self.base_lr, done)
            case "multistep":
                passed = sum(step >= one * total for one in self.milestones)
                return scale * max(self.base_lr * math.pow(self.factor, passed), self.min_lr)
            case "trapezoid":
                cooled = 1 - (total - step) / max(self.cooldown * total, 1)
                return scale * (self.base_lr - (self.base_lr - self.min_lr) * math.sqrt(max(cooled, 0.0)))
        left = 1 - done if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return scale * (self.min_lr + (self.base_lr - self.min_lr) * left)


RATE = "rate"
"""The entry of a group of parameters with the factor of its learning rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiserConfig(Config):
    """Settings of AdamW.

    Attributes:
        betas: Decay rates of the two moments.
        eps: Term added to the denominator.
        weight_decay: Weight decay of matrices.
        max_grad_norm: Gradients are clipped to this norm; None disables clipping.
        layer_decay: Factor of the learning rate from each encoder block to the block before it (Clark et al., 2020,
            section 3; BEiT). Parameters before the first block are scaled once more.
        average: Decay of the moving average of the weights, such as 0.9999 (see `Average`); None disables it.
        last_weight_decay: Final weight decay, reached along half a cosine over the run (DINO, Caron et al., 2021); None
            keeps weight_decay constant.
    """

    betas: tuple[ProperProportion, ProperProportion] = (0.9, 0.95)
    eps: PositiveFloat = 1e-8
    weight_decay: NaturalFloat = 0.05
    max_grad_norm: PositiveFloat | None = None
    layer_decay: PositiveProportion = 1.0
    average: ProperProportion | None = None
    last_weight_decay: PositiveFloat | None = None

    def validate(self) -> None:
        if self.last_weight_decay is not None and self.weight_decay == 0:
            raise ValueError(
                f"a changing weight decay must be above 0 at both ends, got {self.weight_decay} and "
                f"last_weight_decay={self.last_weight_decay}"
            )


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """Build AdamW with two groups per learning rate: only matrices decay, not biases, norms and embedding tables.

    Sharded parameters have separate groups. The learning rate is 0 until a schedule sets it (see `set_lr`).

    Args:
        model: The model.
        config: Settings of the optimiser.
    """
    decays, rates = find_matrices(model), compute_layer_rates(model, config.layer_decay)
    by_name = {name: p for name, p in model.named_parameters() if p.requires_grad}
    kinds = {name: (rates[name], name in decays, is_divided(p)) for name, p in by_name.items()}
    groups = [
        {
            "params": [p for n, p in by_name.items() if kinds[n] == (rate, decay, divided)],
            "weight_decay": config.weight_decay if decay else 0.0,
            RATE: rate,
        }
        for rate in sorted(set(rates.values()), reverse=True)
        for decay in (True, False)
        for divided in sorted({is_divided(p) for p in by_name.values()})
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)


def compute_layer_rates(model: nn.Module, decay: float) -> dict[str, float]:
    """Return each parameter's learning-rate factor by name: `decay` to the power of the number of blocks above it.

    The blocks are the model's first stack (see `named_blocks`). Parameters created before the stack belong below it,
    all others above it.

    Args:
        model: The model.
        decay: Factor per block; with 1, all parameters have the same rate.

    Raises:
        ValueError: `decay` is not 1 and the model has no blocks.
    """
    names = [name for name, _ in model.named_parameters()]
    blocks = named_blocks(model) if decay != 1 else []
    if decay != 1 and not blocks:
        raise ValueError(f"layer_decay={decay} needs a model with blocks, but a {type(model).__name__} has none; use 1")
    stack = [path for path, _ in blocks if path.rpartition(".")[0] == blocks[0][0].rpartition(".")[0]]
    rates, above = {}, len(stack) + 1 if stack else 0
    for name in names:
        own = next((i for i, path in enumerate(stack) if name.startswith(f"{path}.")), None)
        if own is not None:
            above = len(stack) - own
        elif stack and above <= len(stack):
            above = 0
        rates[name] = decay**above
    return rates


def find_matrices(model: nn.Module) -> set[str]:
    """Return the names of the parameters that multiply activations.

    These have two or more dimensions. Exceptions are biases of experts (`..._bias`), tables of vectors that are added
    to tokens (`nn.Embedding`), and parameters that a module names in `TABLES`: such tables, or exceptions of a paper.
    """
    found = set()
    for path, module in model.named_modules():
        if not isinstance(module, nn.Embedding):
            tables: Collection[str] = getattr(module, "TABLES", ())
            own = module.named_parameters(prefix=path, recurse=False)
            found |= {name for name, p in own if p.ndim > 1 and name.rpartition(".")[2] not in tables}
    return {name for name in found if not name.endswith("bias")}


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step, multiplied by each group's factor.

    Args:
        optimiser: The optimiser, from `build_optimiser`.
        lr: Learning rate.
    """
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get(RATE, 1.0)


def set_decay(optimiser: torch.optim.Optimizer, config: OptimiserConfig, progress: float) -> None:
    """Set the weight decay of the next step. It changes only with a cosine schedule.

    Args:
        optimiser: The optimiser, from `build_optimiser`.
        config: Settings of the optimiser.
        progress: Position in the run, in [0, 1].
    """
    if config.last_weight_decay is not None:
        left = 0.5 * (1 + math.cos(math.pi * progress))
        value = config.last_weight_decay + (config.weight_decay - config.last_weight_decay) * left
        for group in optimiser.param_groups:
            if group["weight_decay"]:
                group["weight_decay"] = value


def limit_gradients(model: nn.Module, config: OptimiserConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Clip the gradients to `max_grad_norm`.

    Args:
        model: The model.
        config: Settings of the optimiser.

    Returns:
        The norm before clipping, a float32 scalar, and the norm of each part of the model by name, the first word of
            its parameters' names.
    """
    found = [(name.partition(".")[0], p.grad) for name, p in model.named_parameters() if p.grad is not None]
    divided, others = ([(part, g) for part, g in found if is_divided(g) == yes] for yes in (True, False))
    norms = _compute_norms(others) if others else {}
    if divided:
        own = _compute_norms(divided)
        first = next(one for _, one in divided if is_divided(one))
        copies = first.device_mesh.size() // find_part(first)[1]
        among = sum_over_ranks(torch.stack([*own.values()]).square()) / copies
        squares = dict(zip(own, among, strict=True))
        norms = squares | {name: squares.get(name, 0) + one.square() for name, one in norms.items()}
        norms = {name: one.sqrt() for name, one in norms.items()}
    norm = norms.pop(_ALL)
    if config.max_grad_norm is not None:
        fused = False if divided else None  # torch's fused kernels refuse a mix of sharded and other gradients
        clip_grads_with_norm_(model.parameters(), config.max_grad_norm, norm, foreach=fused)
    return norm, norms


_ALL = ""


def _compute_norms(gradients: Sequence[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return the norm of all gradients, under the name "", and the norm of each part's consecutive gradients."""
    each = torch.stack([torch.linalg.vector_norm(get_local_rows(one)) for _, one in gradients])
    counts = Counter(part for part, _ in gradients)
    parts = dict(zip(counts, map(torch.linalg.vector_norm, torch.split(each, list(counts.values()))), strict=True))
    return {_ALL: torch.linalg.vector_norm(each), **parts}


def scale_gradients(model: nn.Module, factor: Tensor) -> None:
    """Multiply all gradients by a scalar.

    Args:
        model: The model.
        factor: The scalar.
    """
    for gradient in list_gradients(model):
        get_local_rows(gradient).mul_(factor)


def list_gradients(model: nn.Module) -> list[Tensor]:
    """Return the gradients of all parameters that have one."""
    return [p.grad for p in model.parameters() if p.grad is not None]
