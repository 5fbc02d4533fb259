"""Activations that become neurons: a quantised clip in training, an integrate-and-fire neuron in a simulation.

QCFS (Bu et al., 2022): h(x) = a clip(floor(x L / a + 1/2) / L, 0, 1), with a learned threshold a and L levels. A neuron
with the threshold a that starts at a / 2, adds its input at each step, fires where it reaches a and then loses a (soft
reset), has fired h(x) on average after L steps of a constant input x. So the weights of a network with this activation
are those of a spiking one.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

THRESHOLD = 2.0
"""The initial threshold, the authors' of the Masked Spiking Transformer."""


class Qcfs(nn.Module):
    """The activation, with a threshold of its own. levels: L."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor([THRESHOLD]))

    def forward(self, x: Tensor) -> Tensor:
        """h(x). The gradient of floor is taken as 1."""
        return cast(Tensor, _Clip.apply(x, self.threshold, self.levels))  # type: ignore[no-untyped-call]


class _Clip(torch.autograd.Function):
    """h(x) in few passes over x, which took most of the time of a training step.

    With the gradient of floor taken as 1, dh/dx is 1 where the clip lets x through, else 0, and dh/da is
    (h(x) - x dh/dx) / a. What is floored to the lowest or the highest level lies on a bound of the clip and passes, as
    in the authors' training: torch's clamp passed its bounds until 2.13, and no longer does. So dh/dx is 1 for
    -a / 2L <= x < a + a / 2L; the paper's formula ends at a - a / 2L, where the highest level begins.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, levels: int) -> Tensor:
        level = (x / threshold).mul_(levels).add_(0.5)
        passes = (level >= 0) & (level < levels + 1)
        fired = level.floor_().clamp_(0, levels).mul_(threshold / levels)
        ctx.save_for_backward(x, passes, fired, threshold)
        return fired

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, passes, fired, threshold = ctx.saved_tensors
        passed = gradients[0] * passes
        return passed, ((gradients[0] * fired).sum() - (passed * x).sum()) / threshold, None


class SpikingSimulation:
    """The neurons of a network in time steps, and what their spikes cost.

    step: the current one, from 0; call `tick` before each. spikes: of each kind of neuron, so far. neurons: of each
    kind, of one sample. additions: those that spikes caused, after each step; additions_of: in each kind of product.
    dense: the multiplications with additions of the same products without spikes, of all steps. kept: the spikes of
    each step, bool (B, neurons), of the kind that `keeps` names.
    """

    def __init__(self, keeps: str | None = None) -> None:
        self.step = -1
        self.spikes: dict[str, float] = {}
        self.neurons: dict[str, int] = {}
        self.dense = 0.0
        self.additions: list[float] = []
        self.additions_of: dict[str, float] = {}
        self.kept: list[Tensor] = []
        self._keeps = keeps
        self._membranes: dict[int, Tensor] = {}

    def fire(self, unit: Qcfs, x: Tensor, kind: str) -> Tensor:
        """Adds the input x to the neurons of `unit`: the spikes of this step, 0 or the threshold, as x in shape."""
        charge = self._membranes.get(id(unit), torch.full_like(x, 0.5)) + x / unit.threshold
        fired = charge >= 1
        self._membranes[id(unit)] = charge - fired.to(x.dtype)
        self.spikes[kind] = self.spikes.get(kind, 0.0) + float(fired.sum())
        if self.step == 0:
            self.neurons[kind] = self.neurons.get(kind, 0) + x[0].numel()
        if kind == self._keeps:
            self.kept.append(fired.flatten(1))
        return fired.to(x.dtype) * unit.threshold

    def count(self, kind: str, additions: float, dense: float) -> None:
        """Counts the additions of a kind of product in this step, and what it costs without spikes."""
        self.additions_of[kind] = self.additions_of.get(kind, 0.0) + additions
        self.additions[-1] += additions
        self.dense += dense

    def tick(self) -> None:
        """Begins the next step."""
        self.step += 1
        self.additions.append(self.additions[-1] if self.additions else 0.0)


def fired(unit: nn.Module, x: Tensor, kind: str, run: SpikingSimulation | None) -> Tensor:
    """The activation of x, or the spikes of its neurons in a simulation."""
    assert isinstance(unit, Qcfs)
    return cast(Tensor, unit(x)) if run is None else run.fire(unit, x, kind)


def through(layer: nn.Module, x: Tensor, run: SpikingSimulation | None) -> Tensor:
    """A linear layer of spikes: each spike is added once for each output."""
    assert isinstance(layer, nn.Linear)
    if run is not None:
        run.count("layers", float(x.count_nonzero()) * layer.out_features, float(x.numel()) * layer.out_features)
    return cast(Tensor, layer(x))
