"""Figures of audio: waveforms and spectrograms with their masks, a player, and reconstructions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.audio.batch import AudioBatch, NoisyBatch
from maskstream.pipelines.modalities.audio.reader import AudioClip
from maskstream.pipelines.modalities.audio.spectrogram import Spectrogram
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.fbank import Fbank
from maskstream.train.papers.ca_dense_unet.model import compute_si_sdr

from .card import Card, Lane, Picture, PlayedLanes, join_picture_row, label_name
from .chart import choose_inner_ticks
from .figures import MaskRow, find_sample, received, sample_card
from .pictures import Grid, draw_runs, grown, make_darker, picture
from .spectrogram import (
    UNITS,
    describe_bands,
    draw_spectrograms,
    draw_waveform,
    encode_flac_uri,
    enlarged,
    format_band_ticks,
    limit_heard_samples,
    name_features,
    paint_loudness,
    upright,
)
from .video import NAMES, describe_token_colours

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """One mono waveform and its spectrogram.

    Attributes:
        key: Key of the sample.
        waveform: Samples float32 (n,).
        rate: Sampling rate in Hz.
        length: Number of samples before the padding.
        values: Spectrogram (T, F).
        frames: Number of its frames before the padding.
        grid: Grid of its tokens.
        mask: The mask, or None.
        share: Number of players on the page, which share the space for audio data.
    """

    key: str
    waveform: Floats
    rate: int
    length: int
    values: Floats
    frames: int
    grid: Grid
    mask: MaskRow | None
    share: int

    @classmethod
    def of(
        cls, batch: AudioBatch | AudioVisualBatch, i: int, spectrogram: Spectrogram, grid: Grid, mask: MaskBatch | None
    ) -> Self:
        """Return the audio of row `i` of a batch.

        Args:
            batch: The batch.
            i: Row.
            spectrogram: Settings of the spectrogram.
            grid: Grid of the tokens.
            mask: Masks of the batch.
        """
        return cls(
            key=batch.key[i],
            waveform=batch.waveform[i].mean(dim=0).numpy(),
            rate=spectrogram.features.sample_rate,
            length=int(batch.length[i]),
            values=read_spectrograms(batch)[i],
            frames=int(spectrogram.n_frames(batch.length[i : i + 1])[0]),
            grid=grid,
            mask=MaskRow.of(mask, i) if mask else None,
            share=len(batch),
        )

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return len(self.waveform) / self.rate

    @property
    def sound_s(self) -> float:
        """The length of the audio in seconds, before the padding."""
        return self.length / self.rate

    @property
    def filled(self) -> bool:
        """Whether the clip is longer than its audio."""
        return self.sound_s < self.seconds - 0.005

    def played(self) -> tuple[str, str]:
        """Return a `data:` address of the audio, and a note if it is only the beginning."""
        heard = limit_heard_samples(len(self.waveform), self.share)
        part = heard / self.rate < self.seconds - 0.005
        note = f"This page contains only the first {heard / self.rate:.1f} s." if part else ""
        return encode_flac_uri(self.waveform[:heard], self.rate), note

    def draw_wave_lane(self, words: str) -> Lane:
        """Return the waveform."""
        return Lane(
            heading="Waveform.",
            words=words,
            height="low",
            paths=(("wave", draw_waveform(self.waveform)),),
            columns=UNITS,
            rows=UNITS,
            alt="Waveform",
            end=self.sound_s / self.seconds if self.filled else 1.0,
        )

    def lanes(self, words: str, mask_heading: str, mask_words: str, spectrogram: Spectrogram) -> list[Lane]:
        """Return the spectrogram, and its visible tokens.

        Args:
            words: Text above the spectrogram.
            mask_heading: Heading of the mask.
            mask_words: Text of the mask, with a field for the counts.
            spectrogram: Settings of the spectrogram.
        """
        whole, seen = draw_spectrograms(self.values, self.grid, self.mask, self.frames, self.key)
        lanes = [Lane(heading="Spectrogram.", words=words, height="tall", picture=whole)]
        if self.mask is not None:
            told = mask_words.format(f"{self.mask.visible:,} of {self.mask.masked.size:,}")
            lanes.append(Lane(heading=mask_heading, words=told, height="tall", picture=seen))
        return [replace(lane, y_ticks=format_band_ticks(spectrogram.features)) for lane in lanes]


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioFigures:
    """Figures of audio clips; `grid` is the grid of tokens, and `manifest` has facts about the files."""

    clip: AudioClip
    spectrogram: Spectrogram
    grid: Grid
    manifest: Manifest
    label_names: Sequence[str] = ()

    def about(self, batch: AudioBatch) -> tuple[str, dict[str, str]]:
        """Describe the spectrograms and their tokens."""
        features, (columns, rows), (frames, bins) = self.spectrogram.features, self.grid.shape, self.grid.patch
        shift_ms, clip = 1000 * features.shift / features.sample_rate, self.clip
        lede = (
            f"{received(len(batch), 'audio clip')}: cut out, resampled, converted to a spectrogram and masked. The "
            "model sees only the visible tokens of a spectrogram and reconstructs hidden ones. A token is "
            f"{frames * shift_ms / 1000:g} s of {bins} frequency bands."
        )
        return lede, {
            "clip": f"{clip.seconds:g} s at {clip.sample_rate:,} Hz, {format_channels(clip.n_channels)}",
            "spectrogram": f"{columns * frames:,} frames of {shift_ms:g} ms, {rows * bins} bands, "
            f"{name_features(features)}",
            "tokens": f"{columns} x {rows} of {frames} frames x {bins} bands",
        }

    def sample(self, batch: AudioBatch, i: int) -> Card:
        """Draw the waveform, the spectrogram, and its visible tokens, over one time axis.

        Args:
            batch: The batch.
            i: Row.
        """
        heard = Heard.of(batch, i, self.spectrogram, self.grid, batch.mask)
        facts = component_of(self.manifest.components, ("sound",)).facts
        index = find_sample(self.manifest, heard.key)
        rate, start_s = int(facts["sample_rate"][index]), float(batch.start_s[i])
        file_s, stored = int(facts["n_samples"][index]) / rate, format_channels(int(facts["channels"][index]))
        uri, note = heard.played()
        played = PlayedLanes(
            lanes=self._draw_lanes(heard, start_s),
            from_s=start_s,
            seconds=heard.seconds,
            sound=uri,
            sound_s=start_s,
            note=note,
        )
        end_s = start_s + heard.sound_s
        words = f"{start_s:.2f} to {end_s:.2f} s of {file_s:.2f} s, stored at {rate:,} Hz, {stored}"
        return sample_card(batch, i, words, (played,), {"": heard.mask}, names=self.label_names)

    def _draw_lanes(self, heard: Heard, start_s: float) -> tuple[Lane, ...]:
        wave, behind = "The loudest sample spans the full height.", ""
        if heard.filled:
            wave = (
                f"The audio ends after {heard.sound_s:.2f} s, and the rest of the clip is padding. Tokens that "
                "lie entirely in the padding have no weight in the loss."
            )
            behind = " Values in the padding are all equal, and brighter than silence."
        seen = "Coloured tokens are visible to the encoder, {}; grey ones are hidden."
        lanes = heard.lanes(describe_bands(self.spectrogram.features) + behind, "The mask.", seen, self.spectrogram)
        ticks = choose_inner_ticks(start_s, start_s + heard.seconds, 8)
        lanes = [replace(lane, x_ticks=ticks, x_name="seconds of the file") for lane in lanes]
        if (mask := heard.mask) is not None:
            columns, rows = heard.grid.shape
            undecoded = draw_runs(upright(mask.masked & ~mask.targeted, heard.grid))
            lanes.append(
                Lane(
                    heading="Visible tokens.",
                    words=f"{columns} columns of time, {rows} rows of frequency, the highest first.",
                    height="plot",
                    paths=(("undecoded", undecoded), ("visible", draw_runs(upright(~mask.masked, heard.grid)))),
                    columns=columns,
                    rows=rows,
                    alt="Visible tokens by time and frequency",
                    keys=describe_token_colours(undecoded),
                )
            )
        return heard.draw_wave_lane(wave), *lanes

    def compared(self, batch: AudioBatch, made: AudioBatch, i: int) -> Card:
        """Draw the original spectrogram, its visible part, and the model's reconstruction.

        Args:
            batch: The original batch.
            made: The reconstructed batch.
            i: Row.
        """
        pictures = draw_compared_spectrograms(batch, made, batch.mask, i, self.grid)
        start_s, name = float(batch.start_s[i]), label_name(int(batch.label[i]), self.label_names)
        return Card(
            key=batch.key[i],
            words=f"{name}, {start_s:.2f} to {start_s + self.clip.seconds:.2f} s",
            figures=tuple(join_picture_row(one, title=NAMES[kind]) for kind, one in pictures.items()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyFigures:
    """Figures of noisy audio of the first microphone."""

    clip: AudioClip

    def about(self, batch: NoisyBatch) -> tuple[str, dict[str, str]]:
        """Describe the clips."""
        words = f"{self.clip.seconds:g} s at {self.clip.sample_rate} Hz, {batch.mixture.shape[1]} microphones"
        return "Noisy audio of the first microphone.", {"clip": words}

    def sample(self, batch: NoisyBatch, i: int) -> Card:
        """Draw the noisy and the clean audio.

        Args:
            batch: The batch.
            i: Row.
        """
        card = self.compared(batch, batch, i)
        return replace(card, words=f"{float(batch.snr_db[i]):.1f} dB", figures=(card.figures[0], card.figures[-1]))

    def compared(self, batch: NoisyBatch, made: NoisyBatch, i: int) -> Card:
        """Draw the noisy audio, the enhanced one, and the clean one.

        Args:
            batch: The original batch.
            made: The enhanced batch.
            i: Row.
        """
        bank = Fbank(sample_rate=self.clip.sample_rate, window_ms=32.0, shift_ms=4.0)
        sounds = {"With noise": batch.mixture, "Enhanced": made.clean, "Clean": batch.clean}
        with torch.inference_mode():
            values = {name: bank(sound[i : i + 1, 0])[0].numpy() for name, sound in sounds.items()}
        before, after = (
            float(compute_si_sdr(sounds[name][i, 0], batch.clean[i, 0])) for name in ("With noise", "Enhanced")
        )
        low, high = float(values["With noise"].min()), float(values["With noise"].max())
        grids = [
            join_picture_row(
                picture(enlarged(paint_loudness(one, low, high)), f"{name}: spectrogram of {batch.key[i]}"),
                title=name,
            )
            for name, one in values.items()
        ]
        return Card(key=batch.key[i], words=f"{before:.1f} dB before, {after:.1f} dB after", figures=tuple(grids))


def draw_compared_spectrograms(
    batch: AudioBatch | AudioVisualBatch,
    made: AudioBatch | AudioVisualBatch,
    mask: MaskBatch | None,
    i: int,
    grid: Grid,
) -> dict[str, Picture]:
    """Return the original spectrogram of row `i`, its visible part, and the model's reconstruction, in one colour
    scale.

    Args:
        batch: The original batch.
        made: The reconstructed batch.
        mask: Masks of the batch.
        i: Row.
        grid: Grid of the tokens.
    """
    if mask is None:
        raise ValueError("a reconstruction needs masked spectrograms, but the batch has none; pass mask= to the loader")
    values = read_spectrograms(batch)[i]
    image, completed = (
        paint_loudness(read_spectrograms(one)[i], float(values.min()), float(values.max())) for one in (batch, made)
    )
    seen = make_darker(image, grown(upright(MaskRow.of(mask, i).masked, grid), *image.shape[:2]))
    pictures = {"original": image, "seen": seen, "reconstruction": completed}
    return {
        name: picture(enlarged(one), f"{NAMES[name]}: spectrogram of {batch.key[i]}") for name, one in pictures.items()
    }


def read_spectrograms(batch: AudioBatch | AudioVisualBatch) -> Floats:
    """Return the spectrograms of a batch, float32 (B, T, F); raise ValueError if it has none."""
    if batch.spectrogram is None:
        raise ValueError("a page shows spectrograms, but the batch has none; take it from an audio loader")
    values: Floats = batch.spectrogram.numpy()
    return values


def format_channels(channels: int) -> str:
    """Format a number of channels: `mono`, `2 channels`."""
    return "mono" if channels == 1 else f"{channels} channels"
