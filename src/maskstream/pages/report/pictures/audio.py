"""A report's pictures of sound: spectrograms with their masks, and what the model makes of the hidden tokens."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ....pipelines.masks.core.batch import MaskBatch
from ....pipelines.modalities.audio.batch import AudioBatch
from ....pipelines.modalities.audio.data import AudioData
from ....pipelines.modalities.audio.loader import audio_loader
from ....pipelines.stream.loader import Loader
from ....shards.format.manifest import Manifest
from ....train.models.masked_autoencoder import MaskedAutoencoder
from ....train.tokens.spectrogram import SpectrogramTokens
from ...figures.pictures import data_uri
from .pictures import Pictures

MEASURED = 512
"""As many samples at most go into the held-out loss."""
SIDE_PX = 480
_DARK = 0.25

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundView:
    """One clip: its spectrogram, what the encoder saw of it and what the model completes, as `data:` addresses."""

    key: str
    label: str
    start_s: float
    seconds: float
    original: str
    seen: str
    reconstruction: str


def report_pictures(config: AudioData, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """The loss on the split, beside that of guessing the mean, and `shown` of its clips, the same each time."""
    if not isinstance(model, MaskedAutoencoder) or not isinstance(model.tokens, SpectrogramTokens):
        raise ValueError(f"spectrograms are completed by a masked autoencoder of them, got {type(model).__name__}")
    loss, guessed, measured = held_out_loss(model, _open(config, data, 32, shuffle=False))
    batch = next(iter(_open(config, data, shown, shuffle=True)))
    names = tuple(map(str, Manifest.load(data).info.get("label_names", ())))
    facts = {
        "clip": f"{config.clip.seconds:g} s at {config.clip.sample_rate} Hz, {config.features.n_bins} bins",
        f"loss on {measured} of these sounds": f"{loss:.3f}"
        + ("" if loss < guessed else ": what was learned does not carry over to them"),
        "loss of guessing each token's mean": f"{guessed:.3f}",
        "mask": repr(config.mask),
    }
    context = {"sounds": sound_views(model.tokens, batch, completed(model, batch), names, config.clip.seconds)}
    return Pictures(
        template="audio.html.j2",
        context=context,
        facts=facts,
        loss="The mean squared error over the target tokens' normalised values",
        guess="predicting every token's mean",
    )


def held_out_loss(model: MaskedAutoencoder[AudioBatch], loader: Loader[AudioBatch]) -> tuple[float, float, int]:
    """The mean loss over the targets of up to 512 samples, that of predicting each token's mean, and the samples."""
    sums = torch.zeros(3, dtype=torch.float64)
    samples = 0
    with torch.inference_mode():
        for batch in islice(loader, -(-MEASURED // loader.order.global_batch)):
            spectrogram, mask = _parts(batch)
            patches = model.tokens.split(spectrogram)
            row = torch.arange(len(patches))[:, None]
            square = model.tokens.targets(patches[row, mask.target]).square().mean(dim=2)
            part = model(batch).parts["reconstruction"]
            sums += torch.stack((part.total, (square * mask.weight).sum(), part.weight)).double()
            samples += len(batch) if batch.weight is None else int(batch.weight.sum())
    return float(sums[0] / sums[2]), float(sums[1] / sums[2]), samples


def completed(model: MaskedAutoencoder[AudioBatch], batch: AudioBatch) -> Tensor:
    """The spectrograms with the model's predictions in place of the targets, float32 (B, T, F)."""
    if not isinstance(model.tokens, SpectrogramTokens):
        raise ValueError(f"spectrograms are completed by models of them, got one of {type(model.tokens).__name__}")
    _parts(batch)
    with torch.inference_mode():
        made = model.reconstructed(batch).spectrogram
    if made is None:
        raise ValueError("a model of spectrograms makes none")
    return made


def sound_views(
    tokens: SpectrogramTokens, batch: AudioBatch, made: Tensor, label_names: tuple[str, ...], seconds: float
) -> list[SoundView]:
    """The three pictures of each clip; `made` as of `completed`. Frequency rises upwards, time runs to the right."""
    spectrogram, mask = _parts(batch)
    rows, columns = tokens.patch
    hidden = mask.masked.reshape(-1, *tokens.grid).repeat_interleave(rows, 1).repeat_interleave(columns, 2)
    views = []
    for i, key in enumerate(batch.key):
        true, low, high = spectrogram[i].numpy(), float(spectrogram[i].min()), float(spectrogram[i].max())
        label = int(batch.label[i])
        views.append(
            SoundView(
                key=key,
                label=label_names[label] if 0 <= label < len(label_names) else str(label),
                start_s=float(batch.start_s[i]),
                seconds=seconds,
                original=picture(true, low, high),
                seen=picture(true, low, high, hidden[i].numpy()),
                reconstruction=picture(made[i].numpy(), low, high),
            )
        )
    return views


def picture(spectrogram: Floats, low: float, high: float, hidden: npt.NDArray[np.bool_] | None = None) -> str:
    """A spectrogram (T, F) in colours from `low` to `high`, with hidden values dark and grey."""
    grey = (np.clip((spectrogram - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    image = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
    if hidden is not None:
        dark = np.repeat((20 + _DARK * grey)[..., None], 3, axis=2).astype(np.uint8)
        image = np.where(hidden[..., None], dark, image)
    turned = np.ascontiguousarray(image.transpose(1, 0, 2)[::-1])
    scale = max(1, SIDE_PX // turned.shape[1])
    return data_uri(np.ascontiguousarray(turned.repeat(scale, axis=0).repeat(scale, axis=1)))


def _open(config: AudioData, data: str | Path, batch_size: int, *, shuffle: bool) -> Loader[AudioBatch]:
    return audio_loader(
        data,
        clip=config.clip,
        mask=config.mask,
        features=config.features,
        patch=config.patch,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=0,
        device="cpu",
        rank=0,
        world_size=1,
        steps=1,
    )


def _parts(batch: AudioBatch) -> tuple[Tensor, MaskBatch]:
    if batch.spectrogram is None or batch.mask is None:
        raise ValueError("a reconstruction is of masked spectrograms, but the batch has none; give the loader mask=")
    return batch.spectrogram, batch.mask
