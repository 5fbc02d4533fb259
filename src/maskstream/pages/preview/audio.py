"""The preview of sounds: their waveforms and spectrograms with the mask over them, and the sounds to be heard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...pipelines.modalities.audio.batch import AudioBatch
from ...shards.format.manifest import component_of
from ..figures.chart import Tick, inner_ticks
from ..figures.pictures import Grid
from ..figures.sound import flac_uri, heard_samples, waveform_path
from ..figures.spectrogram import SpectrogramView, frequency_ticks, spectrogram_view
from ..figures.tokens import MaskCounts, MaskRow
from ..page import environment, render
from .opened import Opened, SampleName

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeardView:
    """Sound as the templates see it.

    seconds: of the clip; sound_s: how much of it is sound, behind which it was filled up. heard: a `data:` address of
    its first heard_s seconds.
    """

    seconds: float
    sound_s: float
    heard: str
    heard_s: float
    waveform: str
    spectrogram: SpectrogramView
    counts: MaskCounts | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundView:
    """One clip of a sound: where in its file it begins, and what is stored of the file."""

    name: SampleName
    start_s: float
    file_s: float
    stored: str
    sound: HeardView
    ticks: tuple[Tick, ...]


def heard_view(
    waveform: Floats,
    length: int,
    values: Floats,
    grid: Grid,
    mask: MaskRow | None,
    *,
    rate: int,
    frames: int,
    sounds: int,
) -> HeardView:
    """The view of a mono waveform (n,), of which the first `length` samples are sound, and of its spectrogram (T, F),
    of which the first `frames` frames are; the page holds so many `sounds`.
    """
    heard = heard_samples(len(waveform), sounds)
    return HeardView(
        seconds=len(waveform) / rate,
        sound_s=length / rate,
        heard=flac_uri(waveform[:heard], rate),
        heard_s=heard / rate,
        waveform=waveform_path(waveform),
        spectrogram=spectrogram_view(values, grid, mask, frames),
        counts=None if mask is None else mask.counts,
    )


def audio_page(opened: Opened) -> str:
    """One HTML file, complete in itself, about every sound of the batch."""
    loader, batch = opened.loader, opened.batch
    features = loader.spectrogram.features
    (columns, rows), (frames, bins) = loader.grid.shape, loader.grid.patch
    shift_ms = 1000 * features.shift / features.sample_rate
    facts = opened.facts(
        clip=f"{loader.clip.seconds:g} s at {loader.clip.sample_rate:,} Hz, {channels_words(loader.clip.n_channels)}",
        spectrogram=f"{columns * frames:,} frames of {shift_ms:g} ms, {rows * bins} bands, {type(features).__name__}",
        tokens=f"{columns} x {rows} of {frames} frames x {bins} bands",
    )
    return render(
        environment(),
        "preview_audio.html.j2",
        title=opened.title,
        facts=facts,
        sounds=_views(opened, batch),
        tones=frequency_ticks(features),
        token_s=frames * shift_ms / 1000,
        token_bins=bins,
    )


def _views(opened: Opened, batch: AudioBatch) -> list[SoundView]:
    loader, facts = opened.loader, component_of(opened.manifest.components, ("sound",)).facts
    spectrograms = spectrograms_of(batch)
    n_frames = loader.spectrogram.n_frames(batch.length).tolist()
    views = []
    for row, index in enumerate(opened.indexes()):
        mask = MaskRow.of(batch.mask, row) if batch.mask else None
        rate, start_s = int(facts["sample_rate"][index]), float(batch.start_s[row])
        sound = heard_view(
            batch.waveform[row].mean(dim=0).numpy(),
            int(batch.length[row]),
            spectrograms[row],
            loader.grid,
            mask,
            rate=loader.clip.sample_rate,
            frames=n_frames[row],
            sounds=len(batch),
        )
        views.append(
            SoundView(
                name=opened.name(row),
                start_s=start_s,
                file_s=int(facts["n_samples"][index]) / rate,
                stored=f"{rate:,} Hz, {channels_words(int(facts['channels'][index]))}",
                sound=sound,
                ticks=inner_ticks(start_s, start_s + sound.seconds, 8),
            )
        )
    return views


def spectrograms_of(batch: AudioBatch) -> Floats:
    """The spectrograms of a batch, float32 (B, T, F)."""
    if batch.spectrogram is None:
        raise ValueError("a page shows spectrograms, but the batch has none; take it from an audio_loader")
    values: Floats = batch.spectrogram.numpy()
    return values


def channels_words(channels: int) -> str:
    """`mono`, `2 channels`."""
    return "mono" if channels == 1 else f"{channels} channels"
