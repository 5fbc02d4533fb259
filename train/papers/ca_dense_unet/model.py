"""The Channel-Attention Dense U-Net: several microphones in, a complex ratio mask for each out.

Source: Tolooshams et al., 2020 (arXiv 2001.11542): a U-Net of dense blocks over the spectra of all microphones, with
attention between the channels of every level; the estimate is the complex product of mask and mixture. The sizes are
this project's choices.

Shapes: B samples, M microphones, n time samples, C feature channels, F frequencies, T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.audio.batch import NoisyBatch
from maskstream.pipelines.modalities.audio.data import NoisyData
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.shards.config import Config
from maskstream.shards.limits import PositiveFloat, PositiveInt
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, weighted

Bound = Literal["parts", "magnitude", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComplexRatio(Config):
    """The mask M = S / Y of a clean spectrum S and a mixture Y, compressed to a bounded target for a model.

    Spectra are complex tensors of equal shape (..., F, T) with any leading axes. M is S conj(Y) / max(|Y|^2, eps), so M
    Y = S exactly wherever |Y|^2 >= eps; the product is complex, so it also corrects the phase. Used by the
    Channel-Attention Dense U-Net (Tolooshams et al. 2020) on each microphone.

    Attributes:
        bound: "parts" replaces the real and the imaginary part x each by limit * tanh(steepness / 2 * x), published as
            K (1 - exp(-C x)) / (1 + exp(-C x)) with K = 10 and C = 0.1 (Williamson et al. 2016). "magnitude" compresses
            only the magnitude in the same way (Choi et al. 2019, Deep Complex U-Net, with limit 1 and steepness 2).
            "none" does nothing.
        limit: Limit of the bounded values.
        steepness: Steepness of the compression.
        eps: Smallest power of the mixture.
    """

    bound: Bound = "parts"
    limit: PositiveFloat = 10.0
    steepness: PositiveFloat = 0.1
    eps: PositiveFloat = 1e-8

    def target(self, mixture: Tensor, clean: Tensor) -> Tensor:
        """Return the bounded mask of a mixture and its clean spectrum: complex, of the same shape.

        Args:
            mixture: Spectrum of the mixture.
            clean: Clean spectrum.

        Raises:
            ValueError: Shapes differ, or a spectrum is not complex.
        """
        if mixture.shape != clean.shape or not (mixture.is_complex() and clean.is_complex()):
            raise ValueError(
                f"mixture and clean must be complex spectra of one shape, got {tuple(mixture.shape)} {mixture.dtype}, "
                f"{tuple(clean.shape)} {clean.dtype}"
            )
        power = mixture.real.square() + mixture.imag.square()
        return self.bounded(clean * mixture.conj() / power.clamp_min(self.eps))

    def bounded(self, mask: Tensor) -> Tensor:
        """Compress a mask to the bound: complex, of the same shape."""
        if self.bound == "parts":
            return torch.complex(self._squeeze_values(mask.real), self._squeeze_values(mask.imag))
        if self.bound == "magnitude":
            return _with_magnitude(mask, self._squeeze_values)
        return mask

    def invert_bounds(self, mask: Tensor) -> Tensor:
        """Invert `bounded`. Values at the limit are first reduced to the largest number below it."""
        if self.bound == "parts":
            return torch.complex(self._stretch_values(mask.real), self._stretch_values(mask.imag))
        if self.bound == "magnitude":
            return _with_magnitude(mask, self._stretch_values)
        return mask

    def apply(self, mask: Tensor, mixture: Tensor) -> Tensor:
        """Return the enhanced spectrum, the unbounded mask times the mixture. Differentiable.

        Args:
            mask: The bounded mask.
            mixture: Spectrum of the noisy audio.
        """
        return self.invert_bounds(mask) * mixture

    def _squeeze_values(self, x: Tensor) -> Tensor:
        return self.limit * torch.tanh(self.steepness / 2 * x)

    def _stretch_values(self, x: Tensor) -> Tensor:
        most = 1 - torch.finfo(x.dtype).eps
        return 2 / self.steepness * torch.atanh((x / self.limit).clamp(-most, most))


def _with_magnitude(mask: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `function` to the magnitude and keep the phase; 0 remains 0 and has a gradient."""
    magnitude = mask.abs().clamp_min(1e-12)
    return mask * (function(magnitude) / magnitude)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseUNetConfig(ModelConfig[NoisyBatch]):
    """The sizes of the network.

    Attributes:
        microphones: Number of microphones.
        n_samples: Number of samples of the input.
        n_fft: Window of the STFT, in samples.
        hop: Hop of the STFT, in samples.
        width: Channels of the first level.
        depth: Number of times that frequency and time are halved.
        layers: Layers of a dense block.
        growth: Channels that each layer of a dense block adds.
        attention: Length of queries and keys.
        target: Compared in the loss: the enhanced audio ("sound") or the bounded complex ratio mask ("ratio").
    """

    microphones: PositiveInt = 4
    n_samples: PositiveInt = 16384
    n_fft: PositiveInt = 512
    hop: PositiveInt = 128
    width: PositiveInt = 16
    depth: PositiveInt = 3
    layers: PositiveInt = 3
    growth: PositiveInt = 12
    attention: PositiveInt = 20
    target: Literal["sound", "ratio"] = "sound"

    def validate(self) -> None:
        if self.n_samples % self.hop or self.n_fft % (2 << self.depth) or self.frames % (1 << self.depth):
            raise ValueError(
                f"{self.frames} frames of n_samples={self.n_samples} and {self.n_fft // 2} frequencies must be "
                f"multiples of 2 ** depth = {1 << self.depth}; change n_samples, hop, n_fft or depth"
            )

    def check(self, data: DataConfig[NoisyBatch]) -> None:
        """Raise ValueError if the data have another number of microphones or samples."""
        if isinstance(data, NoisyData) and (data.microphones, data.clip.n_samples) != (
            self.microphones,
            self.n_samples,
        ):
            raise ValueError(
                f"the model takes {self.microphones} microphones and {self.n_samples} samples, but the loader returns "
                f"{data.microphones} and {data.clip.n_samples}"
            )

    @property
    def frames(self) -> int:
        """The number of frames that the network processes; the last one, beyond the end, is dropped."""
        return self.n_samples // self.hop


class ChannelAttention(nn.Module):
    """Self-attention between channels at each frequency, (B, C, F, T); queries and keys are linear in the frames."""

    def __init__(self, frames: int, length: int) -> None:
        super().__init__()
        self.query = nn.Linear(frames, length)
        self.key = nn.Linear(frames, length)
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the attention output times a learnt factor."""
        rows = x.transpose(1, 2)
        seen = F.scaled_dot_product_attention(self.query(rows), self.key(rows), rows)
        return x + self.share * seen.transpose(1, 2)


class DenseBlock(nn.Module):
    """A dense block (B, C, F, T) to (B, out, F, T): each convolution reads all channels before it; then attention."""

    def __init__(self, channels: int, out: int, frames: int, config: DenseUNetConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, channels + i * config.growth),
                nn.Conv2d(channels + i * config.growth, config.growth, 3, padding=1),
                nn.ELU(),
            )
            for i in range(config.layers)
        )
        self.join = nn.Conv2d(channels + config.layers * config.growth, out, 1)
        self.attention = ChannelAttention(frames, config.attention)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat((x, layer(x)), dim=1)
        return cast(Tensor, self.attention(self.join(x)))


class Up(nn.Module):
    """Upsamples frequencies and frames by 2 and concatenates the skip connection."""

    def __init__(self, channels: int, out: int, frames: int, config: DenseUNetConfig) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose2d(channels, out, 2, stride=2)
        self.join = DenseBlock(2 * out, out, frames, config)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return cast(Tensor, self.join(torch.cat((self.grow(x), skip), dim=1)))


class DenseUNet(Model[NoisyBatch], config=DenseUNetConfig):
    """Predicts masks and clean audio from mixtures. With initial weights every mask is 1."""

    whole_graph = True

    window: Tensor

    def __init__(self, config: DenseUNetConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.ratio = ComplexRatio()
        self.register_buffer("window", torch.hann_window(c.n_fft).sqrt(), persistent=False)
        widths = [c.width << level for level in range(c.depth + 1)]
        frames = [c.frames >> level for level in range(c.depth + 1)]
        self.enter = DenseBlock(2 * c.microphones, widths[0], frames[0], c)
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[level], widths[level], 2, stride=2),
                DenseBlock(widths[level], widths[level + 1], frames[level + 1], c),
            )
            for level in range(c.depth)
        )
        self.up = nn.ModuleList(
            Up(widths[level + 1], widths[level], frames[level], c) for level in reversed(range(c.depth))
        )
        self.leave = nn.Conv2d(widths[0], 2 * c.microphones, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast(Tensor, self.leave.bias))

    def loss(self, batch: NoisyBatch) -> Losses:
        """Return the error of the estimate relative to the error of the mixture, so that a mask of 1 has loss 1.

        The error is the mean absolute error of the audio or, with the target "ratio", the squared error of the bounded
        masks, weighted by the mixture's magnitude. Samples are weighted by their weight.
        """
        mixture, clean = batch.mixture, batch.clean
        spectrum = self.spectra(mixture)
        mask = self.mask(spectrum)
        if self.config.target == "sound":
            error = (self._sound(mask * spectrum) - clean).abs().mean(dim=(1, 2))
            alone = (mixture - clean).abs().mean(dim=(1, 2))
        else:
            target, weight = self.ratio.target(spectrum, self.spectra(clean)), spectrum.abs()
            error = ((self.ratio.bounded(mask) - target).abs().square() * weight).mean(dim=(1, 2, 3))
            alone = ((self.ratio.bounded(torch.ones_like(mask)) - target).abs().square() * weight).mean(dim=(1, 2, 3))
        counted = torch.ones_like(alone) if batch.weight is None else batch.weight
        relative = error / alone.clamp_min(1e-8)
        return Losses(parts={"error": weighted(relative, counted)})

    def reconstructed(self, batch: NoisyBatch) -> NoisyBatch:
        """Return the batch with the estimates as its clean audio."""
        return replace(batch, clean=self.enhance(batch.mixture))

    def enhance(self, mixture: Tensor) -> Tensor:
        """Return the estimated clean audio, float32 (B, M, n)."""
        spectrum = self.spectra(mixture)
        return self._sound(self.mask(spectrum) * spectrum)

    def spectra(self, sound: Tensor) -> Tensor:
        """Return the STFT of audio float32 (B, M, n): complex (B, M, F, T), without the highest frequency and the last
        frame.

        Raises:
            ValueError: The audio has another number of microphones or samples.
        """
        c = self.config
        if sound.shape[1:] != (c.microphones, c.n_samples):
            raise ValueError(
                f"audio has the shape {tuple(sound.shape)}, but the model takes (B, {c.microphones}, {c.n_samples}); "
                "use the same clip and microphones for the loader and the model"
            )
        flat = sound.reshape(-1, c.n_samples).float()
        full = torch.stft(flat, c.n_fft, c.hop, window=self.window, pad_mode="constant", return_complex=True)
        return full[:, :-1, :-1].reshape(-1, c.microphones, c.n_fft // 2, c.frames)

    def mask(self, spectrum: Tensor) -> Tensor:
        """Return the complex mask (B, M, F, T) for the spectra of mixtures."""
        level = spectrum.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-8)
        scaled = spectrum / level
        squeezed = scaled / scaled.abs().clamp_min(1e-4).sqrt()
        x = self.enter(torch.cat((squeezed.real, squeezed.imag), dim=1))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up in self.up:
            x = up(x, skips.pop())
        real, imag = self.leave(x).float().chunk(2, dim=1)
        return torch.complex(real + 1.0, imag)

    def _sound(self, spectrum: Tensor) -> Tensor:
        c = self.config
        full = F.pad(spectrum, (0, 1, 0, 1)).reshape(-1, c.n_fft // 2 + 1, c.frames + 1)
        sound = torch.istft(full, c.n_fft, c.hop, window=self.window, length=c.n_samples)
        return sound.reshape(-1, c.microphones, c.n_samples)


def compute_si_sdr(estimate: Tensor, clean: Tensor) -> Tensor:
    """Return the scale-invariant signal-to-distortion ratio in dB over the last axis (Le Roux et al., 2019).

    Args:
        estimate: Estimated signal.
        clean: Clean signal.
    """
    estimate, clean = (x - x.mean(dim=-1, keepdim=True) for x in (estimate, clean))
    scale = (estimate * clean).sum(-1, keepdim=True) / clean.square().sum(-1, keepdim=True).clamp_min(1e-12)
    target = scale * clean
    noise = (estimate - target).square().sum(-1).clamp_min(1e-12)
    return 10 * torch.log10(target.square().sum(-1).clamp_min(1e-12) / noise)
