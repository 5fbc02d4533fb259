"""Figures of sounds: waveforms and spectrograms with the mask over them, the sound to be heard, and completions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from maskstream.train.papers.ca_dense_unet.model import si_sdr

from .card import Card, Facts, Lane, Picture, PictureGrid, PlayedLanes, label_words
from .chart import inner_ticks
from .figures import MaskRow, mask_facts
from .pictures import Grid, darken, data_uri
from .spectrogram import (
    UNITS,
    SpectrogramView,
    bands_ticks,
    bands_words,
    enlarged,
    features_name,
    flac_uri,
    heard_samples,
    loudness_colours,
    spectrogram_view,
    waveform_path,
)
from .video import NAMES, token_keys
from .words import plural

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """One mono waveform float32 (n,) at `rate`, of which the first `length` samples are sound, and its spectrogram
    (T, F), of which the first `frames` frames are, over tokens of `grid`. share: how many sounds the page has.
    """

    waveform: Floats
    rate: int
    length: int
    values: Floats
    frames: int
    grid: Grid
    mask: MaskRow | None
    share: int

    @property
    def seconds(self) -> float:
        """Of the clip."""
        return len(self.waveform) / self.rate

    @property
    def sound_s(self) -> float:
        """The seconds of sound, before the padding."""
        return self.length / self.rate

    @property
    def filled(self) -> bool:
        """Whether the clip is longer than its sound."""
        return self.sound_s < self.seconds - 0.005

    def played(self) -> tuple[str, str]:
        """A `data:` address of the sound, and a note where it is only the beginning."""
        heard = heard_samples(len(self.waveform), self.share)
        part = heard / self.rate < self.seconds - 0.005
        note = f"Only the first {heard / self.rate:.1f} s are on this page." if part else ""
        return flac_uri(self.waveform[:heard], self.rate), note

    def view(self) -> SpectrogramView:
        """The spectrogram with its mask."""
        return spectrogram_view(self.values, self.grid, self.mask, self.frames)

    def wave_lane(self, words: str) -> Lane:
        """The waveform."""
        return Lane(
            heading="Waveform.",
            words=words,
            height="low",
            paths=(("wave", waveform_path(self.waveform)),),
            columns=UNITS,
            rows=UNITS,
            alt="Waveform",
            end=self.sound_s / self.seconds if self.filled else 1.0,
        )

    def lane(self, view: SpectrogramView, key: str, *, seen: bool, heading: str, words: str) -> Lane:
        """The spectrogram, or what the encoder sees of it."""
        picture = Picture(uri=view.picture, alt=f"spectrogram of {key}")
        if seen:
            alt = f"masked spectrogram of {key}"
            picture = Picture(uri=str(view.seen), alt=alt, outline=view.outline, columns=view.columns, rows=view.rows)
        return Lane(heading=heading, words=words, height="tall", picture=picture)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioFigures:
    """Of clips of sounds whose tokens are those of `grid`. manifest: what is stored of the files."""

    clip: AudioClip
    spectrogram: Spectrogram
    grid: Grid
    manifest: Manifest
    label_names: Sequence[str] = ()

    def about(self, batch: AudioBatch) -> tuple[str, dict[str, str]]:
        """A description of the spectrograms and of their tokens."""
        features, (columns, rows), (frames, bins) = self.spectrogram.features, self.grid.shape, self.grid.patch
        shift_ms = 1000 * features.shift / features.sample_rate
        n = len(batch)
        lede = (
            f"{plural(n, 'sound')} as the training loop receives {'it' if n == 1 else 'them'}: cut out, resampled, "
            "made into a spectrogram and masked. The model is shown only the visible tokens of a spectrogram and has "
            f"to reconstruct hidden ones. A token is {frames * shift_ms / 1000:g} s of {bins} frequency bands."
        )
        clip = self.clip
        return lede, {
            "clip": f"{clip.seconds:g} s at {clip.sample_rate:,} Hz, {channels_words(clip.n_channels)}",
            "spectrogram": f"{columns * frames:,} frames of {shift_ms:g} ms, {rows * bins} bands, "
            f"{features_name(features)}",
            "tokens": f"{columns} x {rows} of {frames} frames x {bins} bands",
        }

    def sample(self, batch: AudioBatch, i: int) -> Card:
        """The waveform, the spectrogram, and what the encoder sees of it, over one axis of time."""
        heard = Heard(
            waveform=batch.waveform[i].mean(dim=0).numpy(),
            rate=self.clip.sample_rate,
            length=int(batch.length[i]),
            values=read_spectrograms(batch)[i],
            frames=int(self.spectrogram.n_frames(batch.length[i : i + 1])[0]),
            grid=self.grid,
            mask=MaskRow.of(batch.mask, i) if batch.mask else None,
            share=len(batch),
        )
        facts = component_of(self.manifest.components, ("sound",)).facts
        index = find_sample(self.manifest, batch.key[i])
        rate, start_s = int(facts["sample_rate"][index]), float(batch.start_s[i])
        file_s, stored = int(facts["n_samples"][index]) / rate, channels_words(int(facts["channels"][index]))
        uri, note = heard.played()
        return Card(
            key=batch.key[i],
            words=f"{start_s:.2f} to {start_s + heard.sound_s:.2f} s of {file_s:.2f} s, stored at {rate:,} Hz, "
            f"{stored}",
            label=label_words(int(batch.label[i]), self.label_names),
            facts=() if heard.mask is None else (Facts(items=mask_facts(heard.mask.counts)),),
            figures=(
                PlayedLanes(
                    lanes=self._lanes(heard, start_s, batch.key[i]),
                    from_s=start_s,
                    seconds=heard.seconds,
                    sound=uri,
                    sound_s=start_s,
                    note=note,
                ),
            ),
            missing=() if heard.mask else ("The loader was built without a mask.",),
        )

    def _lanes(self, heard: Heard, start_s: float, key: str) -> tuple[Lane, ...]:
        view, tones = heard.view(), bands_ticks(self.spectrogram.features)
        wave = "The loudest sample has the full height."
        behind = ""
        if heard.filled:
            wave = (
                f"The sound ends after {heard.sound_s:.2f} s, and the rest of the clip is padding. Tokens that lie "
                "wholly in the padding have no weight in the loss."
            )
            behind = " In the padding all values are equal, and brighter than silence."
        words = f"{bands_words(self.spectrogram.features)}{behind}"
        lanes = [heard.lane(view, key, seen=False, heading="Spectrogram.", words=words)]
        if heard.mask is not None:
            counts = heard.mask.counts
            words = (
                f"Coloured tokens are what the encoder sees, {counts.visible:,} of {counts.tokens:,}; grey ones are "
                "hidden from it."
            )
            lanes.append(heard.lane(view, key, seen=True, heading="The mask.", words=words))
        ticks, name = inner_ticks(start_s, start_s + heard.seconds, 8), "seconds of the file"
        lanes = [replace(lane, y_ticks=tones, x_ticks=ticks, x_name=name) for lane in lanes]
        if heard.mask is not None:
            lanes.append(
                Lane(
                    heading="Visible tokens.",
                    words=f"{view.columns} columns of time, {view.rows} rows of frequency, the highest first.",
                    height="plot",
                    paths=(("undecoded", view.undecoded), ("visible", view.visible)),
                    columns=view.columns,
                    rows=view.rows,
                    alt="Visible tokens by time and frequency",
                    keys=token_keys(view.undecoded),
                )
            )
        return heard.wave_lane(wave), *lanes

    def compared(self, batch: AudioBatch, made: AudioBatch, i: int) -> Card:
        """The spectrogram as it was, as the encoder saw it, and as the model completes it."""
        if batch.mask is None:
            raise ValueError(
                "a reconstruction is of masked spectrograms, but the batch has none; give the loader mask="
            )
        pictures = compared_spectrograms(
            read_spectrograms(batch)[i], read_spectrograms(made)[i], batch.mask, i, self.grid, batch.key[i]
        )
        label, start_s = int(batch.label[i]), float(batch.start_s[i])
        name = self.label_names[label] if 0 <= label < len(self.label_names) else str(label)
        return Card(
            key=batch.key[i],
            words=f"{name}, {start_s:.2f} to {start_s + self.clip.seconds:.2f} s",
            figures=tuple(PictureGrid(items=(one,), across=1, title=NAMES[row]) for row, one in pictures.items()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyFigures:
    """Of sounds in noise, as the first microphone hears them."""

    clip: AudioClip

    def about(self, batch: NoisyBatch) -> tuple[str, dict[str, str]]:
        """What is heard."""
        words = f"{self.clip.seconds:g} s at {self.clip.sample_rate} Hz, {batch.mixture.shape[1]} microphones"
        return "Sounds in noise, as the first microphone hears them.", {"clip": words}

    def sample(self, batch: NoisyBatch, i: int) -> Card:
        """The sound with its noise, and the clean one."""
        card = self.compared(batch, batch, i)
        return replace(card, words=f"{float(batch.snr_db[i]):.1f} dB", figures=(card.figures[0], card.figures[-1]))

    def compared(self, batch: NoisyBatch, made: NoisyBatch, i: int) -> Card:
        """The sound with noise, without what the model took away, and the clean one."""
        bank = Fbank(sample_rate=self.clip.sample_rate, window_ms=32.0, shift_ms=4.0)
        sounds = {"With noise": batch.mixture, "Enhanced": made.clean, "Clean": batch.clean}
        with torch.inference_mode():
            values = {name: bank(sound[i : i + 1, 0])[0].numpy() for name, sound in sounds.items()}
        before, after = (float(si_sdr(sounds[name][i, 0], batch.clean[i, 0])) for name in ("With noise", "Enhanced"))
        low, high = float(values["With noise"].min()), float(values["With noise"].max())
        key = batch.key[i]
        return Card(
            key=key,
            words=f"{before:.1f} dB, then {after:.1f} dB",
            figures=tuple(
                PictureGrid(
                    items=(
                        Picture(
                            uri=data_uri(enlarged(loudness_colours(one, low, high))),
                            alt=f"{name}: spectrogram of {key}",
                        ),
                    ),
                    across=1,
                    title=name,
                )
                for name, one in values.items()
            ),
        )


def compared_spectrograms(
    values: Floats, made: Floats, mask: MaskBatch, i: int, grid: Grid, key: str
) -> dict[str, Picture]:
    """A spectrogram (T, F) as it was, as the encoder saw it, and as the model completes it, in one scale."""
    (columns, rows), (frames, bins) = grid.shape, grid.patch
    low, high = float(values.min()), float(values.max())
    image, completed = loudness_colours(values, low, high), loudness_colours(made, low, high)
    hidden = MaskRow.of(mask, i).masked.reshape(columns, rows).T[::-1].repeat(bins, axis=0).repeat(frames, axis=1)
    pictures = {"original": image, "seen": darken(image, hidden), "reconstruction": completed}
    return {
        name: Picture(uri=data_uri(enlarged(one)), alt=f"{NAMES[name]}: spectrogram of {key}")
        for name, one in pictures.items()
    }


def read_spectrograms(batch: AudioBatch | AudioVisualBatch) -> Floats:
    """The spectrograms of a batch, float32 (B, T, F)."""
    if batch.spectrogram is None:
        raise ValueError("a page shows spectrograms, but the batch has none; take it from a loader of sounds")
    values: Floats = batch.spectrogram.numpy()
    return values


def channels_words(channels: int) -> str:
    """`mono`, `2 channels`."""
    return "mono" if channels == 1 else f"{channels} channels"


def find_sample(manifest: Manifest, key: str) -> int:
    """The number of a sample in its manifest."""
    return next(i for i, one in enumerate(manifest.keys(range(len(manifest)))) if one == key)
