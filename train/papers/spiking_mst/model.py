"""The Masked Spiking Transformer: a classifier of images whose activations are spikes, some of which are dropped.

Shapes: B images, N tokens of D channels, in W windows of L tokens with H heads of d channels.

It is trained with activations that are quantised clips, and then simulated in time steps with the same weights. QCFS
(Bu et al., 2022): h(x) = a clip(floor(x L / a + 1/2) / L, 0, 1), with a learned threshold a and L levels. A neuron with
the threshold a that starts at a / 2, adds its input at each step, fires when it reaches a and then loses a (soft
reset), has fired h(x) on average after L steps of a constant input x. So a network with this activation can be
simulated as a spiking network with the same weights.

Random spike masking drops elements of queries, keys and attention maps, in training and in simulation, the same ones
each time a sample is used. Source: Wang et al. (2023), with a Swin transformer (Liu et al., 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import Draw
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.shards.config import Config
from maskstream.shards.limits import AtLeastTwo, PositiveInt, Proportion
from maskstream.train.core.dropout import ResidualBlock
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, of_labels
from maskstream.train.nn.grid import Windows, to_windows
from maskstream.train.nn.media_tokens import ImageTokens

_ODD = 0x5851_F42D_4C95_7F2D
_LOW_32 = 0xFFFF_FFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Spikes(Config):
    """Drops each element of a tensor independently with probability `ratio`; the others are not rescaled.

    This is not a mask of a token grid: elements of activations (queries, keys, attention maps) are dropped inside the
    model. Each sample has one seed. A hash of the seed, the element's index and the `site` (the number of the tensor in
    the model) decides whether the element is kept, on any device, in training and in inference: a sample drops the same
    elements in any batch.

        dropped = queries * spikes.keep(seeds, queries.shape[1:], site=0)

    Source: Masked Spiking Transformer (Wang et al. 2023, random spike masking), at 0.75.
    """

    ratio: Proportion = 0.75

    def seeds(self, draws: Sequence[Draw]) -> Tensor:
        """Return a seed for each view of a sample: int64 (B,)."""
        return torch.tensor([int(draw.rng.integers(1 << 62)) for draw in draws], dtype=torch.int64)

    def keep(self, seeds: Tensor, shape: Sequence[int], site: int = 0) -> Tensor:
        """Return whether each element is kept.

        Args:
            seeds: Seeds of the samples, int64 (B,).
            shape: Shape of a sample's tensor.
            site: Number of the tensor in the model.

        Returns:
            bool (B, *shape), on the device of `seeds`.
        """
        place = torch.arange(torch.Size(shape).numel(), dtype=torch.int64, device=seeds.device)
        start = _mix_bits(_mix_bits(seeds) + torch.tensor(site, device=seeds.device) * _ODD)
        bits = _mix_bits(start[:, None] + place * _ODD) & _LOW_32
        return (bits >= round(self.ratio * (1 << 32))).view(len(seeds), *shape)


def _mix_bits(x: Tensor) -> Tensor:
    """Hash int64 numbers by SplitMix64's finaliser (Steele et al. 2014) with wrapping products."""
    for shift, factor in ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)):
        x = (x ^ _shift_right(x, shift)) * (factor - (1 << 64))
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Shift logically to the right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


THRESHOLD = 2.0
"""The initial threshold, the authors' of the Masked Spiking Transformer."""
UNITS = ("in", "q", "k", "v", "scores", "seen", "out", "between", "hidden", "down")
"""The kinds of neurons of a block."""
SITES = 3
"""Number of tensors of a block with dropped elements."""


class Qcfs(nn.Module):
    """The activation with a learnt threshold and `levels` levels, L."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor([THRESHOLD]))

    def forward(self, x: Tensor) -> Tensor:
        """Return h(x). The gradient of floor is 1."""
        return cast(Tensor, _Clip.apply(x, self.threshold, self.levels))  # type: ignore[no-untyped-call]


class _Clip(torch.autograd.Function):
    """Computes h(x) in few passes over x, which took most of the time of a training step.

    With a gradient of 1 for floor, dh/dx is 1 inside the clip, else 0, and dh/da is (h(x) - x dh/dx) / a. Values
    floored to the lowest or the highest level are on a bound of the clip and are treated as inside, as in the authors'
    training: torch's clamp passed gradients at its bounds until 2.13, and no longer does. So dh/dx is 1 for -a / 2L <=
    x < a + a / 2L; the paper's formula ends at a - a / 2L, where the highest level begins.
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
    """The neurons of a network in time steps, and the cost of their spikes.

    `step` is the current step, from 0; call `tick` before each. `spikes` counts each kind's spikes so far, `neurons`
    each kind's neurons of one sample. `additions` are the additions caused by spikes after each step, `additions_of` by
    kind of product. `dense` counts the multiplications with additions of the same products without spikes, over all
    steps. `kept` has the spikes of each step, bool (B, neurons), of the kind `keeps`.
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
        """Add inputs to neurons and return the spikes of this step, 0 or the threshold, in the shape of `x`.

        Args:
            unit: Activation of the neurons.
            x: Inputs.
            kind: Kind of the neurons.
        """
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
        """Count the operations of a kind of product in this step.

        Args:
            kind: Kind of product.
            additions: Additions caused by spikes.
            dense: Multiplications with additions without spikes.
        """
        self.additions_of[kind] = self.additions_of.get(kind, 0.0) + additions
        self.additions[-1] += additions
        self.dense += dense

    def tick(self) -> None:
        """Begin the next step."""
        self.step += 1
        self.additions.append(self.additions[-1] if self.additions else 0.0)


def apply_activation(unit: nn.Module, x: Tensor, kind: str, run: SpikingSimulation | None) -> Tensor:
    """Return the activation of x, or the spikes of its neurons in a simulation.

    Args:
        unit: The activation.
        x: Inputs.
        kind: Kind of the neurons.
        run: The simulation, or None.
    """
    assert isinstance(unit, Qcfs)
    return cast(Tensor, unit(x)) if run is None else run.fire(unit, x, kind)


def add_spikes(layer: nn.Module, x: Tensor, run: SpikingSimulation | None) -> Tensor:
    """Apply a linear layer to spikes; each spike is added once for each output.

    Args:
        layer: The linear layer.
        x: Spikes.
        run: The simulation, or None.
    """
    assert isinstance(layer, nn.Linear)
    if run is not None:
        run.count("layers", float(x.count_nonzero()) * layer.out_features, float(x.numel()) * layer.out_features)
    return cast(Tensor, layer(x))


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikingTransformerConfig(ModelConfig[ImageBatch]):
    """The sizes of the network.

    Attributes:
        width: Channels of the first stage; each further stage has twice as many, and a quarter of the tokens.
        depths: Blocks of each stage.
        heads: Attention heads of each stage.
        window: Side of a window in tokens; smaller grids are one window.
        mlp_ratio: Hidden channels of an MLP per channel.
        levels: Levels of the activations.
        labels: Number of classes.
        places: Whether tokens have a learned position vector, which a network with one window needs to distinguish a
            sleeve from a sole.
        spikes: Dropped spikes.
    """

    version: ClassVar[int] = 2
    needs_labels: ClassVar[bool] = True

    width: PositiveInt = 96
    depths: tuple[PositiveInt, ...] = (2, 2, 6, 2)
    heads: tuple[PositiveInt, ...] = (3, 6, 12, 24)
    window: PositiveInt = 7
    mlp_ratio: PositiveInt = 4
    levels: PositiveInt = 16
    labels: AtLeastTwo = 1000
    places: bool = False
    spikes: Spikes = field(default_factory=Spikes)

    def validate(self) -> None:
        if len(self.depths) != len(self.heads):
            raise ValueError(f"each stage needs a depth and heads, got depths={self.depths}, heads={self.heads}")
        if any((self.width << stage) % heads for stage, heads in enumerate(self.heads)):
            raise ValueError(
                f"heads must divide the channels of their stage, got width={self.width}, heads={self.heads}"
            )

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.labels


class Affine(nn.Module):
    """A factor and a summand per channel, like a batch norm in inference."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class SpikingBlock(ResidualBlock):
    """Attention between spikes within a window, added to the input, and a feed-forward part, added after the norm."""

    def __init__(self, config: SpikingTransformerConfig, width: int, heads: int, window: int, first: int) -> None:
        super().__init__()
        self.heads, self.spikes, self.first = heads, config.spikes, first
        self.norm1, self.norm2 = Affine(width), Affine(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, config.mlp_ratio * width), nn.Linear(config.mlp_ratio * width, width)
        self.units = nn.ModuleDict({name: Qcfs(config.levels) for name in UNITS})
        self.near = nn.Parameter(torch.zeros(heads, (2 * window - 1) ** 2))
        place = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        apart = place[:, None] - place + window - 1
        self.register_buffer("apart", apart[..., 0] * (2 * window - 1) + apart[..., 1], persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None, *, seeds: Tensor, run: SpikingSimulation | None) -> Tensor:
        """Run the block.

        Args:
            x: Tokens (B, W, L, D).
            mask: Attention mask, as in `Windows`.
            seeds: Seeds of dropped spikes, int64 (B,).
            run: The simulation, or None.
        """

        def fire(name: str, value: Tensor) -> Tensor:
            return apply_activation(self.units[name], value, name, run)

        every = add_spikes(self.qkv, fire("in", self.norm1(x)), run)
        q, k, v = every.view(*every.shape[:-1], 3, self.heads, -1).unbind(-3)
        q, k, v = (fire(name, one.transpose(-2, -3)) for name, one in (("q", q), ("k", k), ("v", v)))
        q, k = self._kept(q, seeds, 0, run), self._kept(k, seeds, 1, run)
        if run is not None:  # a spike of a query meets the spikes of its channel in all keys of the window
            meetings = (q != 0).sum(-2).double() * (k != 0).sum(-2)
            run.count("scores", float(meetings.sum()), float(q.numel()) * k.shape[-2])
            run.count("seen", float(v.count_nonzero()) * v.shape[-2], float(v.numel()) * v.shape[-2])
        scores = self._kept(fire("scores", q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5), seeds, 2, run)
        scores = scores + self.near[:, cast(Tensor, self.apart)]
        weights = (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(dim=-1)
        seen = fire("seen", (weights @ v).transpose(-2, -3).flatten(-2))
        x = self.norm2(self.joined(x, fire("out", add_spikes(self.out, seen, run))))
        hidden = fire("hidden", add_spikes(self.up, fire("between", x), run))
        return self.joined(x, fire("down", add_spikes(self.down, hidden, run)))

    def _kept(self, x: Tensor, seeds: Tensor, site: int, run: SpikingSimulation | None) -> Tensor:
        """Apply random spike masking, with other elements in each step of a simulation."""
        if not self.spikes.ratio:
            return x
        step = 0 if run is None else run.step
        return x * self.spikes.keep(seeds, x.shape[1:], (step << 16) + self.first + site)


class SpikingTransformer(Model[ImageBatch], config=SpikingTransformerConfig):
    """Stages of blocks within windows, between which 2 x 2 tokens become one of twice the channels; the mean of the
    last stage's tokens through a linear layer.
    """

    TABLES = ("places",)

    whole_graph = True

    def __init__(self, config: SpikingTransformerConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.tokens = ImageTokens(grids["image"])
        self.embed = nn.Linear(self.tokens.n_inputs, c.width)
        self.places = nn.Parameter(torch.empty(self.tokens.n_tokens, c.width).normal_()) if c.places else None
        self.unit = Qcfs(c.levels)
        self.stages, self.windows = nn.ModuleList(), nn.ModuleList()
        self.merges, self.units = nn.ModuleList(), nn.ModuleList()
        sides: tuple[int, ...] = grids["image"].shape
        for stage, (depth, heads) in enumerate(zip(c.depths, c.heads, strict=True)):
            width = c.width << stage
            if stage:
                if any(side % 2 for side in sides):
                    raise ValueError(
                        f"a grid of {sides} tokens is too small for another stage; use fewer depths or a different size"
                    )
                self.merges.append(nn.Linear(2 * width, width, bias=False))
                self.units.append(Qcfs(c.levels))
                sides = tuple(side // 2 for side in sides)
            window = min(c.window, *sides)
            self.windows.append(Windows(sides, (window, window)))
            first = SITES * sum(c.depths[:stage])
            self.stages.append(
                nn.ModuleList(SpikingBlock(c, width, heads, window, first + SITES * n) for n in range(depth))
            )
        self.norm = Affine(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # no norm scales the input, so the weights must preserve its variance
                nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")
        self.head = nn.Linear(width, c.labels)

    def scores(self, batch: ImageBatch, run: SpikingSimulation | None = None) -> Tensor:
        """Return the logits of the classes, float32 (B, labels); in a simulation the logits of this step, to be
        averaged.

        Args:
            batch: The batch.
            run: The simulation, or None.
        """
        x = self.tokens.inputs(self.tokens.split(batch.image))
        return self._logits(x, torch.tensor([derive_key_seed(key) for key in batch.key], device=x.device), run)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the part of the model after the seeds, which are computed from keys on the host."""
        setattr(self, "_logits", torch.compile(self._logits, *args, **kwargs))  # noqa: B010

    def _logits(self, x: Tensor, seeds: Tensor, run: SpikingSimulation | None) -> Tensor:
        x = self.embed(x)
        x = apply_activation(self.unit, x if self.places is None else x + self.places, "embedded", run)
        for stage, (blocks, windows) in enumerate(zip(self.stages, self.windows, strict=True)):
            assert isinstance(windows, Windows)
            assert isinstance(blocks, nn.ModuleList)
            if stage:
                before = cast(Windows, self.windows[stage - 1]).grid
                four = to_windows(x, before, (2, 2)).flatten(2)
                x = apply_activation(
                    self.units[stage - 1], add_spikes(self.merges[stage - 1], four, run), "merged", run
                )
            x = windows(x, [partial(block, seeds=seeds, run=run) for block in blocks])
        return cast(Tensor, self.head(self.norm(x).mean(dim=1))).float()

    def simulated(
        self, batch: ImageBatch, steps: int, keeps: str | None = None
    ) -> tuple[list[Tensor], SpikingSimulation]:
        """Simulate the network in time steps.

        Args:
            batch: The batch.
            steps: Number of time steps.
            keeps: Kind of neurons whose spikes are recorded.

        Returns:
            The mean logits up to each step, and the simulation.
        """
        run, total, found = SpikingSimulation(keeps), None, []
        for step in range(steps):
            run.tick()
            now = self.scores(batch, run)
            total = now if total is None else total + now
            found.append(total / (step + 1))
        return found, run

    def count_embedding_work(self, images: int) -> float:
        """Return the multiplications with additions of the first layer, which reads pixels instead of spikes, for
        `images`.
        """
        return float(images * self.tokens.n_tokens * self.tokens.n_inputs * self.config.width)

    def loss(self, batch: ImageBatch) -> Losses:
        """Return the cross-entropy of the label in nats; images without a label are ignored."""
        return Losses(parts={"classification": of_labels(self.scores(batch), batch.label)})


def derive_key_seed(key: str) -> int:
    """Return the seed of a sample's dropped spikes, the same in training and in simulation."""
    return int(sample_rng(0, 0, key, 0, "spikes").integers(1 << 62))
