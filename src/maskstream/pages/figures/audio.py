"""Figures of audio, and of clips with audio: waveforms, spectrograms and frames with their masks over one time axis,
with a player; and reconstructions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.audio.batch import AudioBatch, NoisyBatch
from maskstream.pipelines.modalities.audio.reader import AudioClip
from maskstream.pipelines.modalities.audio.spectrogram import Spectrogram
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.shards.arrays import Float32s, UInt8s
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.fbank import Fbank
from maskstream.train.papers.ca_dense_unet.model import compute_si_sdr

from .card import Card, Lane, PlayedLanes, label_name
from .chart import choose_inner_ticks
from .figures import MaskRow, find_sample, received, sample_card
from .pictures import Grid, check_grid, compared, draw_panel, draw_runs, sized
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
from .video import (
    NAMES,
    choose_page_side,
    count_visible_per_step,
    describe_token_colours,
    draw_compared_frames,
    draw_picture_track,
    draw_seen_track,
    join_frame_rows,
    patch_words,
    per_step,
)
from .words import plural, span

Sounds = AudioBatch | AudioVisualBatch

FRAME_PX = 72
"""Minimum width of a frame of the score, unless the score would be wider than LONGEST_PX."""
LONGEST_PX = 6000


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """The audio of one row of a batch: a mono waveform and its spectrogram.

    Attributes:
        batch: The batch.
        row: Row of the audio.
        spectrogram: Settings of the spectrogram.
        grid: Grid of the tokens.
        masks: Masks of the batch, or None.
    """

    batch: Sounds
    row: int
    spectrogram: Spectrogram
    grid: Grid
    masks: MaskBatch | None

    @property
    def mask(self) -> MaskRow | None:
        """The mask of the audio."""
        return MaskRow.of(self.masks, self.row) if self.masks else None

    @property
    def waveform(self) -> Float32s:
        """Samples float32 (n,)."""
        waveform: Float32s = self.batch.waveform[self.row].mean(dim=0).numpy()
        return waveform

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return self.batch.waveform.shape[-1] / self.spectrogram.features.sample_rate

    @property
    def sound_s(self) -> float:
        """The length of the audio in seconds, before the padding."""
        return int(self.batch.length[self.row]) / self.spectrogram.features.sample_rate

    @property
    def filled(self) -> bool:
        """Whether the clip is longer than its audio."""
        return self.sound_s < self.seconds - 0.005

    def play(self, lanes: Sequence[Lane], start_s: float) -> PlayedLanes:
        """Return lanes over the time axis of the clip, with the audio and a note if only its beginning is played.

        Args:
            lanes: The lanes.
            start_s: Start of the clip.
        """
        rate = self.spectrogram.features.sample_rate
        heard = limit_heard_samples(len(self.waveform), len(self.batch))
        part = heard / rate < self.seconds - 0.005
        return PlayedLanes(
            lanes=tuple(lanes),
            from_s=start_s,
            seconds=self.seconds,
            sound=encode_flac_uri(self.waveform[:heard], rate),
            sound_s=start_s,
            note=f"This page contains only the first {heard / rate:.1f} s." if part else "",
        )

    def draw_wave(self, words: str) -> Lane:
        """Return the lane of the waveform."""
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

    def draw_spectrograms(self, words: str, mask_heading: str, mask_words: str) -> list[Lane]:
        """Return the lanes of the spectrogram and of its visible tokens.

        Args:
            words: Text above the spectrogram.
            mask_heading: Heading of the mask.
            mask_words: Text of the mask, with a field for the counts.
        """
        frames, mask = int(self.spectrogram.n_frames(self.batch.length)[self.row]), self.mask
        values, ticks = read_spectrograms(self.batch)[self.row], format_band_ticks(self.spectrogram.features)
        whole, seen = draw_spectrograms(values, self.grid, mask, frames, self.batch.key[self.row])
        words = f"{describe_bands(self.spectrogram.features)}{words}"
        lanes = [Lane(heading="Spectrogram.", words=words, height="tall", picture=whole, y_ticks=ticks)]
        if mask is not None:
            told = mask_words.format(f"{mask.visible:,} of {mask.masked.size:,}")
            lanes.append(Lane(heading=mask_heading, words=told, height="tall", picture=seen, y_ticks=ticks))
        return lanes


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
        heard = Heard(batch=batch, row=i, spectrogram=self.spectrogram, grid=self.grid, masks=batch.mask)
        mask, start_s, key = heard.mask, float(batch.start_s[i]), batch.key[i]
        wave, behind = "The loudest sample spans the full height.", ""
        if heard.filled:
            wave = (
                f"The audio ends after {heard.sound_s:.2f} s, and the rest of the clip is padding. Tokens that "
                "lie entirely in the padding have no weight in the loss."
            )
            behind = " Values in the padding are all equal, and brighter than silence."
        seen = "Coloured tokens are visible to the encoder, {}; grey ones are hidden."
        ticks = choose_inner_ticks(start_s, start_s + heard.seconds, 8)
        lanes = [heard.draw_wave(wave)]
        lanes += [
            replace(lane, x_ticks=ticks, x_name="seconds of the file")
            for lane in heard.draw_spectrograms(behind, "The mask.", seen)
        ]
        if mask is not None:
            columns, rows = self.grid.shape
            undecoded = draw_runs(upright(mask.masked & ~mask.targeted, self.grid))
            lanes.append(
                Lane(
                    heading="Visible tokens.",
                    words=f"{columns} columns of time, {rows} rows of frequency, the highest first.",
                    height="plot",
                    paths=(("undecoded", undecoded), ("visible", draw_runs(upright(~mask.masked, self.grid)))),
                    columns=columns,
                    rows=rows,
                    alt="Visible tokens by time and frequency",
                    keys=describe_token_colours(undecoded),
                )
            )
        facts, index = component_of(self.manifest.components, ("sound",)).facts, find_sample(self.manifest, key)
        n_samples, rate, channels = (int(facts[name][index]) for name in ("n_samples", "sample_rate", "channels"))
        words = (
            f"{start_s:.2f} to {start_s + heard.sound_s:.2f} s of {n_samples / rate:.2f} s, stored at {rate:,} Hz, "
            f"{format_channels(channels)}"
        )
        return sample_card(batch, i, words, (heard.play(lanes, start_s),), {"": mask}, names=self.label_names)

    def compared(self, batch: AudioBatch, made: AudioBatch, i: int) -> Card:
        """Draw the original spectrogram, its visible part, and the model's reconstruction.

        Args:
            batch: The original batch.
            made: The reconstructed batch.
            i: Row.
        """
        spectrograms = draw_compared_spectrograms(batch, made, batch.mask, i, self.grid)
        start_s, name = float(batch.start_s[i]), label_name(int(batch.label[i]), self.label_names)
        return Card(
            key=batch.key[i],
            words=f"{name}, {start_s:.2f} to {start_s + self.clip.seconds:.2f} s",
            figures=tuple(draw_panel(NAMES[kind], batch.key[i], one) for kind, one in spectrograms.items()),
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
            draw_panel(name, batch.key[i], enlarged(paint_loudness(one, low, high))) for name, one in values.items()
        ]
        return Card(key=batch.key[i], words=f"{before:.1f} dB before, {after:.1f} dB after", figures=tuple(grids))


def draw_compared_spectrograms(
    batch: Sounds, made: Sounds, mask: MaskBatch | None, i: int, grid: Grid
) -> dict[str, UInt8s]:
    """Draw the original spectrogram of row `i`, its visible part, and the model's reconstruction, in one colour
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
    low, high = float(values.min()), float(values.max())
    image, completed = (paint_loudness(read_spectrograms(one)[i], low, high)[None] for one in (batch, made))
    hidden = upright(MaskRow.of(mask, i).masked, grid)[None]
    shown = compared(image, completed, hidden, hidden) | {"reconstruction": completed}
    return {name: enlarged(one[0]) for name, one in shown.items()}


def read_spectrograms(batch: Sounds) -> Float32s:
    """Return the spectrograms of a batch, float32 (B, T, F); raise ValueError if it has none."""
    if batch.spectrogram is None:
        raise ValueError("a page shows spectrograms, but the batch has none; take it from an audio loader")
    values: Float32s = batch.spectrogram.numpy()
    return values


def format_channels(channels: int) -> str:
    """Format a number of channels: `mono`, `2 channels`."""
    return "mono" if channels == 1 else f"{channels} channels"


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualFigures:
    """Figures of clips with audio; `manifest` has the frame rates of the videos."""

    clip: VideoClip
    spectrogram: Spectrogram
    grid: Grid
    audio_grid: Grid
    manifest: Manifest
    label_names: Sequence[str] = ()

    def about(self, batch: AudioVisualBatch) -> tuple[str, dict[str, str]]:
        """Describe both parts and their tokens."""
        features = self.spectrogram.features
        (t, h, w), (columns, rows), (frames, bins) = self.grid.shape, self.audio_grid.shape, self.audio_grid.patch
        lede = (
            f"{received(len(batch), 'clip', ' with audio,')}: cropped, resized, converted to a spectrogram, and each "
            f"masked separately. A token of the frames is a block of {patch_words(self.grid)}; a token of the audio is "
            f"{frames * features.shift / features.sample_rate:g} s of {bins} frequency bands. All parts share one time "
            "axis, so simultaneous frames and audio are aligned."
        )
        return lede, {
            "clip": f"{self.clip.frames} frames, {self.clip.spacing}, {self.clip.size} px",
            "sound": f"{batch.waveform.shape[2] / features.sample_rate:g} s at {features.sample_rate:,} Hz, mono",
            "tokens": f"of the frames {t} x {h} x {w}, of the audio {columns} x {rows}",
        }

    def sample(self, batch: AudioVisualBatch, i: int) -> Card:
        """Draw frames, spectrogram and waveform, each with its visible tokens; frames repeated after the end of the
        video are left out.

        Args:
            batch: The batch.
            i: Row.
        """
        check_grid(self.grid, batch.video.shape[1:4], "the clips")
        heard = Heard(batch=batch, row=i, spectrogram=self.spectrogram, grid=self.audio_grid, masks=batch.audio_mask)
        mask = MaskRow.of(batch.video_mask, i) if batch.video_mask else None
        times, sound_s = batch.pts_s[i].tolist(), float(batch.audio_start_s[i])
        shown = [f for f, time in enumerate(times) if f == 0 or time > times[f - 1]]
        fps = component_of(self.manifest.components, ("video",)).facts["fps"]
        step_s = self.clip.step_s(float(fps[find_sample(self.manifest, batch.key[i])]))
        from_s = min(times[0], sound_s)
        seconds = max(times[shown[-1]] + step_s, sound_s + heard.seconds) - from_s
        lanes = self._draw_tracks(batch, i, shown, mask)
        ends = f"The audio ends after {heard.sound_s:.2f} s, and the rest of the clip is padded with zeros. "
        seen = "Coloured tokens are visible to the encoder: {}."
        wave = heard.draw_wave(f"{ends if heard.filled else ''}Seconds of the video.")
        wave = replace(wave, x_ticks=choose_inner_ticks(from_s, from_s + seconds, 12))
        lanes += [
            replace(lane, at=(sound_s - from_s) / seconds, share=heard.seconds / seconds)
            for lane in (*heard.draw_spectrograms("", "The mask of the audio.", seen), wave)
        ]
        played = replace(
            heard.play(lanes, sound_s),
            from_s=from_s,
            seconds=seconds,
            times=tuple(times[f] for f in shown),
            frame=step_s / seconds,
            width_px=min(ceil(FRAME_PX * seconds / step_s), LONGEST_PX),
            rules=tuple((times[f] - from_s) / seconds for f in shown),
        )
        again = ""
        if more := len(times) - len(shown):
            again = f" (the video ends: the last is repeated {plural(more, 'time')})"
        words = (
            f"{plural(len(shown), 'frame')}{again}, {times[0]:.2f} to {times[-1]:.2f} s; audio {sound_s:.2f} to "
            f"{sound_s + heard.sound_s:.2f} s of the video"
        )
        masks = {"Frames": mask, "Sound": heard.mask}
        return sample_card(batch, i, words, (played,), masks, names=self.label_names)

    def _draw_tracks(self, batch: AudioVisualBatch, i: int, shown: Sequence[int], mask: MaskRow | None) -> list[Lane]:
        """Draw the `shown` frames, and their visible tokens."""
        frames = sized(batch.video[i].numpy(), self.grid, choose_page_side(batch.video))
        words = "Each frame is at its time. Thin lines mark these times in the audio below."
        tracks = [replace(draw_picture_track(frames, self.grid), words=words)]
        if mask is not None:
            visible = f"{span(count_visible_per_step(mask, self.grid))} of {per_step(self.grid)}"
            words = f"Bright squares are visible to the encoder: {visible} per time step."
            seen = draw_seen_track(frames, mask, self.grid)
            tracks.append(replace(seen, heading="The mask of the frames.", words=words))
        lanes = []
        for track in tracks:
            kept = replace(track, pictures=tuple(track.pictures[f] for f in shown))
            lanes.append(Lane(heading=track.heading, words=track.words, height="track", track=kept))
        return lanes

    def compared(self, batch: AudioVisualBatch, made: AudioVisualBatch, i: int) -> Card:
        """Draw a few original frames and the spectrogram, their visible parts, and the model's reconstructions.

        Args:
            batch: The original batch.
            made: The reconstructed batch.
            i: Row.
        """
        if batch.video_mask is None:
            raise ValueError("a reconstruction needs masked clips and spectrograms; pass both masks to the loader")
        mask, start_s = MaskRow.of(batch.video_mask, i), float(batch.audio_start_s[i])
        rows = draw_compared_frames(
            batch.video[i].numpy(), made.video[i].numpy(), mask, self.grid, choose_page_side(batch.video)
        )
        sounds = draw_compared_spectrograms(batch, made, batch.audio_mask, i, self.audio_grid)
        end_s = start_s + batch.waveform.shape[2] / self.spectrogram.features.sample_rate
        return Card(
            key=batch.key[i],
            words=f"{label_name(int(batch.label[i]), self.label_names)}, audio {start_s:.2f} to {end_s:.2f} s",
            figures=join_frame_rows(rows, batch.pts_s[i].tolist(), sounds),
        )
