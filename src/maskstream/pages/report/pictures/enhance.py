"""A report's pictures of enhancement: what went in, what came out, and what it should be."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from ....pipelines.modalities.audio.batch import NoisyBatch
from ....pipelines.modalities.audio.data import NoisyData
from ....pipelines.modalities.audio.log_mel import LogMel
from ....pipelines.modalities.audio.noisy import noisy_loader
from ....pipelines.stream.loader import Loader
from ....train.models.dense_unet import DenseUNet, si_sdr
from .audio import picture
from .pictures import Pictures

MEASURED = 128
"""As many samples at most go into the figures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnhancedView:
    """One sound at its first microphone, as spectrograms, and its SI-SDR in decibels before and after."""

    key: str
    snr_db: float
    before_db: float
    after_db: float
    mixture: str
    enhanced: str
    clean: str


def report_pictures(config: NoisyData, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """What the model gains on the split, and `shown` of its sounds, the same each time."""
    if not isinstance(model, DenseUNet):
        raise ValueError(f"noise is taken away by a DenseUNet, got {type(model).__name__}")
    loss, before, after, measured = held_out(model, _open(config, data, 8, shuffle=False))
    batch = next(iter(_open(config, data, shown, shuffle=True)))
    with torch.inference_mode():
        enhanced = model.enhance(batch.mixture)
    first = [x[:, 0] for x in (batch.mixture, enhanced, batch.clean)]
    mel = LogMel(sample_rate=config.clip.sample_rate, n_fft=512, hop=64)
    rows = [mel(x).numpy() for x in first]
    views = []
    for i, key in enumerate(batch.key):
        low, high = float(rows[0][i].min()), float(rows[0][i].max())
        pictures = [picture(row[i], low, high) for row in rows]
        decibels = [float(si_sdr(x[i], first[2][i])) for x in first[:2]]
        views.append(
            EnhancedView(
                key=key,
                snr_db=float(batch.snr_db[i]),
                before_db=decibels[0],
                after_db=decibels[1],
                mixture=pictures[0],
                enhanced=pictures[1],
                clean=pictures[2],
            )
        )
    facts = {
        "clip": f"{config.clip.seconds:g} s at {config.clip.sample_rate} Hz, {model.config.microphones} microphones",
        f"SI-SDR of {measured} of these sounds": f"{before:.1f} dB noisy, {after:.1f} dB enhanced",
        "error over that of the mixture": f"{loss:.3f}",
    }
    return Pictures(
        template="enhance.html.j2",
        context={"enhanced": views},
        facts=facts,
        learns="A network learns to find the clean sound in noisy ones of several microphones.",
        loss="The error of the enhanced sounds over that of the noisy ones",
        guess="leaving the noise in",
    )


def held_out(model: DenseUNet, loader: Loader[NoisyBatch]) -> tuple[float, float, float, int]:
    """The mean loss, SI-SDR in decibels before and after, and how many samples (up to 128) they are of."""
    kept: list[Tensor] = []
    with torch.inference_mode():
        for batch in islice(loader, -(-MEASURED // loader.order.global_batch)):
            real = torch.ones(len(batch)) if batch.weight is None else batch.weight
            enhanced = model.enhance(batch.mixture)
            left, noise = ((x - batch.clean).abs().mean(dim=(1, 2)) for x in (enhanced, batch.mixture))
            decibels = [si_sdr(x, batch.clean).mean(dim=1) for x in (batch.mixture, enhanced)]
            kept.append(torch.stack((left / noise, *decibels), dim=1)[real > 0])
    rows = torch.cat(kept).double()
    loss, before, after = rows.mean(dim=0).tolist()
    return loss, before, after, len(rows)


def _open(config: NoisyData, data: str | Path, batch_size: int, *, shuffle: bool) -> Loader[NoisyBatch]:
    return noisy_loader(
        data,
        noise=config.noise,
        clip=config.clip,
        line=config.line,
        snr_db=config.snr_db,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=0,
        device="cpu",
        rank=0,
        world_size=1,
    )
