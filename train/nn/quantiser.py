"""A quantiser of images: a convolutional encoder and decoder with quantisation in between; converts pixels to ids and
back.

Shapes: B samples, T frames, H x W pixels, h x w cells of f x f pixels, K ids, latents of C channels. An image is a clip
without the axis T: all functions take uint8 (B, [T,] H, W, 3) and treat frames as images.

    ids = quantiser.ids(pixels)          # int64 (B, [T,] h, w), from 0 to K - 1
    pixels = quantiser.decode(ids)       # uint8 (B, [T,] H, W, 3)

Ids come from finite scalar quantisation (FSQ, Mentzer et al., 2024): each of the few channels of a latent is rounded to
one of its levels, and the levels of all channels together are the id. It replaces the learnt codebook of VQ-VAE (van
den Oord et al., 2017). Since no codes can die, nothing is counted or restarted over ranks and micro-batches, and the
loss is only the reconstruction error.

A `FrozenQuantiser` is the quantiser of a finished run inside another model, where it is not trained:

    self.vq = FrozenQuantiser(config.quantiser, config.vq)
    ids = self.vq.ids(batch.image)       # int64 (B, h, w); of a clip (B, T, h, w)

The weights belong to the model: they are in every checkpoint and in model.safetensors. So a resumed run keeps its ids,
even if the file has changed, and a trained model needs no other file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.data import DataConfig, SplitConfig
from maskstream.pipelines.modalities.targets import TARGETS, check_targets
from maskstream.shards.config import Config
from maskstream.shards.limits import FILLED, AtLeastTwo, Bounds, PositiveInt
from maskstream.train.core.model import Grids
from maskstream.train.core.weights import compute_weights_sum, load_model

NO_FIELDS: Mapping[str, object] = {}
GROUPS = 8
"""The groups of channels of a norm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantiserConfig(Config):
    """The sizes of a quantiser.

    Attributes:
        levels: Number of levels of each of the C channels of a latent; K is their product.
        stem: Side of the patches of the first convolution, in pixels.
        widths: Channels at each resolution; each has half the side of the one before, so f = stem * 2 ** (len(widths) -
            1).
        rounds: Residual blocks at each resolution, in encoder and decoder.
    """

    levels: Annotated[tuple[AtLeastTwo, ...], FILLED] = (8, 4, 4, 4)
    stem: PositiveInt = 8
    widths: Annotated[tuple[Annotated[int, Bounds(min=GROUPS, multiple=GROUPS)], ...], FILLED] = (128,)
    rounds: PositiveInt = 2

    @property
    def codes(self) -> int:
        """K, the number of ids."""
        return prod(self.levels)

    @property
    def cell(self) -> int:
        """f, the side of a cell in pixels."""
        return int(self.stem * 2 ** (len(self.widths) - 1))


class Quantiser(nn.Module):
    """Encoder, quantisation and decoder. Ids and decoded pixels are computed in float32 whatever a run's precision."""

    def __init__(self, config: QuantiserConfig) -> None:
        super().__init__()
        self.config = c = config
        self.down = nn.Sequential(*_build_encoder(c))
        self.rounding = Levels(c.levels)
        self.up = nn.Sequential(*_decoder(c))

    def ids(self, pixels: Tensor) -> Tensor:
        """Return the ids of the cells of pixels uint8 (B, [T,] H, W, 3): int64 (B, [T,] h, w)."""
        with torch.autocast(pixels.device.type, enabled=False):
            found = self.rounding.ids(self.latents(pixels))
        return found.view(*pixels.shape[:-3], *found.shape[1:])

    def decode(self, ids: Tensor) -> Tensor:
        """Return the pixels uint8 (B, [T,] H, W, 3) of ids int64 (B, [T,] h, w)."""
        with torch.autocast(ids.device.type, enabled=False):
            drawn = self.pixels(self.drawn(self.rounding.latents(ids.flatten(0, -3))))
        return drawn.reshape(*ids.shape[:-2], *drawn.shape[1:])

    def latents(self, pixels: Tensor) -> Tensor:
        """Return the latents before rounding, float32 (n, C, h, w) in [-1, 1], of all n = B * T images.

        Args:
            pixels: uint8 (B, [T,] H, W, 3).

        Raises:
            ValueError: The sides are not multiples of f.
        """
        height, width, _ = pixels.shape[-3:]
        if height % self.config.cell or width % self.config.cell:
            raise ValueError(
                f"images of {height} x {width} pixels cannot be divided into cells of {self.config.cell}; change their "
                "size, or stem and widths"
            )
        return cast(Tensor, self.down(to_inputs(pixels))).float().sigmoid() * 2 - 1

    def drawn(self, latents: Tensor) -> Tensor:
        """Return the decoder's images of latents (n, C, h, w): float32 (n, 3, H, W), about in [-1, 1]."""
        return cast(Tensor, self.up(latents)).float()

    def pixels(self, drawn: Tensor) -> Tensor:
        """Convert images float32 (n, 3, H, W) to uint8 (n, H, W, 3)."""
        return ((drawn + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class Levels(nn.Module):
    """Rounds latents float32 (n, C, h, w) in [-1, 1] to evenly spaced levels of each channel, both ends among them."""

    steps: Tensor
    places: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        each = torch.tensor(levels).view(-1, 1, 1)
        self.register_buffer("steps", (each - 1).float() / 2, persistent=False)
        places = torch.tensor([prod(levels[:i]) for i in range(len(levels))])
        self.register_buffer("places", places.view(-1, 1, 1), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        """Return the rounded latents with a straight-through gradient."""
        with torch.no_grad():
            moved = self._numbers(latents) / self.steps - 1 - latents
        return latents + moved

    def ids(self, latents: Tensor) -> Tensor:
        """Return the ids of latents, int64 (n, h, w)."""
        return (self._numbers(latents).long() * self.places).sum(dim=1)

    def latents(self, ids: Tensor) -> Tensor:
        """Return the rounded latents of ids int64 (n, h, w)."""
        levels = (2 * self.steps + 1).long()
        return (ids[:, None] // self.places % levels) / self.steps - 1

    def _numbers(self, latents: Tensor) -> Tensor:
        return ((latents + 1) * self.steps).round()


class Residual(nn.Module):
    """Two convolutions after norms, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x)))))))


def to_inputs(pixels: Tensor) -> Tensor:
    """Convert uint8 (B, [T,] H, W, 3) to float32 (n, 3, H, W) in [-1, 1]."""
    return pixels.flatten(0, -4).permute(0, 3, 1, 2).float() / 127.5 - 1


def _build_encoder(c: QuantiserConfig) -> Iterator[nn.Module]:
    yield nn.Conv2d(3, c.widths[0], c.stem, stride=c.stem) if c.stem > 1 else nn.Conv2d(3, c.widths[0], 3, padding=1)
    for i, width in enumerate(c.widths):
        if i:
            yield nn.Conv2d(c.widths[i - 1], width, 3, stride=2, padding=1)
        yield from (Residual(width) for _ in range(c.rounds))
    yield nn.Conv2d(c.widths[-1], len(c.levels), 1)


def _decoder(c: QuantiserConfig) -> Iterator[nn.Module]:
    yield nn.Conv2d(len(c.levels), c.widths[-1], 3, padding=1)
    for i, width in reversed(list(enumerate(c.widths))):
        yield from (Residual(width) for _ in range(c.rounds))
        if i:
            yield from (nn.Upsample(scale_factor=2.0), nn.Conv2d(width, c.widths[i - 1], 3, padding=1))
    yield from (nn.Conv2d(c.widths[0], 3 * c.stem**2, 3, padding=1), nn.PixelShuffle(c.stem))


def check_cells(config: QuantiserConfig, grids: Grids, name: str) -> None:
    """Raise ValueError unless the tokens of a grid are the cells of a quantiser, of one frame.

    Args:
        config: Sizes of the quantiser.
        grids: Token grids of the data.
        name: Name of the grid.
    """
    patch = grids[name].patch
    if patch != (*[1] * (len(patch) - 2), config.cell, config.cell):
        raise ValueError(
            f"the quantiser has cells of {config.cell} x {config.cell} pixels in one frame, but the data has tokens "
            f"of {' x '.join(map(str, patch))}; set data.patch={config.cell} (and data.tubelet=1), or other widths"
        )


def check_ids(data: DataConfig[Any], vq: str | None) -> None:
    """Raise ValueError if stored ids (`data.targets`) come from another quantiser than the file `vq`.

    Args:
        data: Data config of the run.
        vq: File of the quantiser.
    """
    if isinstance(data, SplitConfig) and vq is not None and Path(vq).is_file():
        check_targets(data.targets, compute_weights_sum(Path(vq))[0], f"model.vq={vq!r}")


BASE = QuantiserConfig(levels=(8, 8, 4, 4), stem=1, widths=(128, 128, 256, 256, 512), rounds=2)
"""The size of MAGE's VQGAN."""


class FrozenQuantiser(nn.Module):
    """A quantiser whose weights come from a run.

    A model whose weights are then loaded from its checkpoint no longer needs `path`.

    Args:
        config: Sizes of the quantiser.
        path: The model.safetensors of a run such as `vq-tiny`, read once, when a model is built; None keeps the initial
            weights, a random quantiser (as in BEST-RQ, Chiu et al., 2022).
    """

    loaded: Tensor

    def __init__(self, config: QuantiserConfig, path: str | None) -> None:
        super().__init__()
        self.config = config
        self.quantiser = Quantiser(config).requires_grad_(False)
        self.register_buffer("loaded", torch.tensor(path is None))
        self._missing = "" if path is None else self._read(Path(path))

    def ids(self, pixels: Tensor, fields: Mapping[str, object] = NO_FIELDS) -> Tensor:
        """Return the ids of the cells of pixels, from 0 to codes - 1.

        Args:
            pixels: uint8 (B, [T,] H, W, 3).
            fields: Fields of the batch. If they have ids, read by the loader (`data.targets`), these are returned.

        Returns:
            int64 (B, [T,] h, w); stored ids are int64 (B, N).

        Raises:
            ValueError: The weights are missing or did not fit.
        """
        self._check()
        if isinstance(stored := fields.get(TARGETS), Tensor):
            return stored.long()
        with torch.no_grad():
            return self.quantiser.ids(pixels)

    def latents(self, pixels: Tensor) -> Tensor:
        """Return the latents before rounding, float32 (B * T, C, h, w); raise ValueError like `ids`."""
        self._check()
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            return self.quantiser.latents(pixels)

    def rounded(self, pixels: Tensor) -> Tensor:
        """Return the rounded latents, float32 (B * T, C, h, w); raise ValueError like `ids`."""
        return cast(Tensor, self.quantiser.rounding(self.latents(pixels)))

    def decode(self, ids: Tensor) -> Tensor:
        """Return the pixels uint8 (B, [T,] H, W, 3) of ids int64 (B, [T,] h, w)."""
        with torch.no_grad():
            return self.quantiser.decode(ids)

    def drawn(self, latents: Tensor) -> Tensor:
        """Return the pixels uint8 (n, H, W, 3) of latents float32 (n, C, h, w), rounded or not."""
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            return self.quantiser.pixels(self.quantiser.drawn(latents))

    def _check(self) -> None:
        if self._missing:
            if not self.loaded:
                raise ValueError(self._missing)
            self._missing = ""

    def _read(self, path: Path) -> str:
        """Load the weights of a file; return the reason if this is not possible, for the first use of the quantiser."""
        if not path.is_file():
            return (
                f"the quantiser {path} is missing; train one (maskstream train vq-tiny) and set model.vq to its "
                "model.safetensors"
            )
        if self.loaded.is_meta:
            return ""
        model = load_model(path)
        trained = getattr(model, "quantiser", None)
        if not isinstance(trained, Quantiser) or trained.config != self.config:
            found = trained.config if isinstance(trained, Quantiser) else type(model).__name__
            return (
                f"the quantiser {path} is {found}, but the model expects {self.config}; set model.quantiser to "
                "its sizes"
            )
        self.quantiser.load_state_dict(trained.state_dict())
        self.loaded.fill_(True)
        return ""
