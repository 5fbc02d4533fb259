"""Rows of clips with audio: rows of clips and rows of audio on one clock.

The audio segment is chosen after the clip is decoded, because it depends on the frame times, and the manifest has only
the mean frame rate. The plan therefore announces all audio of the sample, and `fill` reads less.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, floor, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from maskstream.pipelines.augment.diffusion import LinearNoise
from maskstream.pipelines.masks import Cues, Maps
from maskstream.pipelines.modalities.audio.rows import CUES as SOUND_CUES
from maskstream.pipelines.modalities.audio.rows import AudioPlan, AudioRowMaker, mono
from maskstream.pipelines.modalities.audio.spectrogram import Spectrogram
from maskstream.pipelines.modalities.rows import (
    BatchRows,
    Drawn,
    Item,
    Items,
    Masked,
    Memory,
    RowMaker,
    SampleRows,
    Traits,
    list_late_masks,
)
from maskstream.pipelines.modalities.video.clip_plan import AroundClip, ClipPlan, join_flow
from maskstream.pipelines.modalities.video.rows import ClipRowMaker
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float32s, Float64s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.errors import DataError
from maskstream.shards.limits import NaturalFloat, NaturalInt
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.stores.base import Range

from .batch import AudioVisualBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrogramNoise(Config):
    """Add uniform noise to a spectrogram and shift it in time.

    Source: AVSiam (Lin and Bertasius, 2024); its code pre-trains with most 0.1 and roll 1024, which is all frames.

    **A shift desynchronises audio and video**: batch.audio_start_s is the start before the shift. Use it only for
    models that need no synchrony, such as AVSiam, which matches a clip with audio from around its time.

    Attributes:
        most: Noise is uniform in [0, level), with the level drawn uniformly from [0, most), in standard deviations of
            the dataset.
        roll: The shift is drawn uniformly from [-roll, roll] frames, and is circular over the valid frames.
    """

    most: NaturalFloat = 0.1
    roll: NaturalInt = 0

    def add(self, spectrogram: Float32s, heard: int, deviation: float, rng: np.random.Generator) -> None:
        """Change the first `heard` (valid) frames of a spectrogram, float32 (frames, bins), in place.

        `deviation` is the standard deviation of the dataset, in units of the spectrogram.
        """
        level, shift = rng.random() * self.most * deviation, int(rng.integers(-self.roll, self.roll + 1))
        sound = spectrogram[:heard]
        sound += np.float32(level) * rng.random(sound.shape, dtype=np.float32)
        if shift and heard:
            sound[:] = np.roll(sound, shift, axis=0)


Noise = tuple[int, Float32s]
"""Time of the noise schedule, and noise for M targets, float32 (M, values per token)."""

_LATEST_S = 1e9


@dataclass(kw_only=True, slots=True)
class AudioVisualPlan(AroundClip):
    """A clip and the views of its audio.

    The audio segment depends on the times of the decoded frames, so `ranges` contains the byte ranges of the clip and
    of all audio; `fill` reads only the segment.
    """

    clip: ClipPlan
    audio: AudioPlan
    ranges: tuple[Range, ...]
    noise: list[tuple[Noise, Noise]] = field(default_factory=list)
    """Noise for both masks of each view, once drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualRowMaker(RowMaker[AudioVisualPlan, AudioVisualBatch]):
    """Creates rows of clips with audio.

    A clip is drawn from the frames that have audio; the audio segment is centred on it and moved inside the audio.
    Video and audio are masked independently, with separate generators.
    """

    clips: ClipRowMaker
    audio: AudioRowMaker
    noise: LinearNoise | None
    """Noise schedule for the targets."""
    spectrogram_noise: SpectrogramNoise | None
    """Augmentation of spectrograms."""

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Masks of the clip and of the audio."""
        both = zip(("video_mask", "audio_mask"), (*self.clips.masks, *self.audio.masks), strict=True)
        return tuple(mask._replace(field=name) for name, mask in both)

    @property
    def traits(self) -> Traits:
        """Parts of a mixture must all have flow or none, and the same tensors of audio augmentations."""
        form = self.audio.traits.form
        own = {name: form[name] for name in ("spec_augment", "on_device")}
        return Traits(form={"flow": self.clips.traits.form["flow"], **own})

    def plan(self, items: Items) -> list[AudioVisualPlan]:
        """Draw clips and their crops and find the byte ranges of clips and audio."""
        return [self._plan(item) for item in items]

    def _plan(self, item: Item) -> AudioVisualPlan:
        clip, sound = self.clips.plan_of(item, self._numbers), self.audio.sounds.planned(item.index, 0, 1)
        whole = (sound.member,) if sound.header else sound.ranges
        audio = AudioPlan(sound=sound, partners=(None,) * item.views)
        return AudioVisualPlan(clip=clip, audio=audio, ranges=(*clip.ranges, *whole))

    def layout(self, memory: Memory[AudioVisualPlan]) -> AudioVisualBatch:
        """Create the empty batch."""
        clips = self.clips.layout(memory.of([plan.clip for plan in memory.plans]))
        sounds = self.audio.layout(memory.of([plan.audio for plan in memory.plans]))
        return AudioVisualBatch(
            video=clips.video,
            waveform=sounds.waveform,
            length=sounds.length,
            spectrogram=sounds.spectrogram,
            video_mask=None,
            audio_mask=None,
            flow=None,
            pts_s=clips.pts_s,
            audio_start_s=sounds.start_s,
            strips=sounds.strips,
            key=memory.key,
            label=memory.label,
        )

    def fill(self, rows: BatchRows[AudioVisualPlan], batch: AudioVisualBatch, stats: Stats) -> None:
        """Read and decode clips and their audio.

        Raises:
            SampleError: A sample is unusable.
        """
        self.clips.fill(rows.of([plan.clip for plan in rows.plans]), batch.clips, stats)
        name, placed = self.audio.sounds.component, []
        for item, plan, own in rows:
            with item.manifest.reading(item.index, name):
                first, stop = self._segment(item, own.of(batch.pts_s)[0])
            placed.append(replace(plan.audio, sound=replace(plan.audio.sound, first=first, stop=stop)))
        self.audio.fill(rows.of(placed), batch.sounds, stats)
        late = list_late_masks(self.masks)
        for n, (item, plan, own) in enumerate(rows):
            own.of(batch.audio_start_s)[:] += float(item.manifest.components[name].facts["start_s"][item.index])
            if self.spectrogram_noise is not None:
                with stats.stage("convert"):
                    self._add_disturbance(self.spectrogram_noise, item, batch, own)
            if self.noise is not None:  # for the targets, so the masks are drawn first
                with stats.stage("mask"):
                    self.draw_masks(rows, batch, n, late)
                with stats.stage("convert"):
                    plan.noise = self._draw_noises(self.noise, item, rows.maps, own)

    def cues(
        self,
        rows: BatchRows[AudioVisualPlan],
        batch: AudioVisualBatch,
        n: int,
        view: int,
        part: str,
        needs: frozenset[str],
    ) -> Cues:
        """Return the frames, flow and audio of a view."""
        plan = rows.plans[n]
        seen = self.clips.cues_of(plan.clip, batch.clips, rows.starts[n] + view, view, needs)
        if not needs & SOUND_CUES:
            return seen
        heard = self.audio.cues(rows.of([one.audio for one in rows.plans]), batch.sounds, n, view, part, needs)
        return replace(seen, waveform=heard.waveform, spectrogram=heard.spectrogram)

    def join(
        self, batch: AudioVisualBatch, plans: Iterable[AudioVisualPlan], made: Mapping[str, Any]
    ) -> AudioVisualBatch:
        """Add flow and noise to the batch; targets completely inside the padding have weight 0."""
        own, added = list(plans), dict(made)
        if self.noise is not None:
            pairs = [pair for plan in own for pair in plan.noise]
            for name, drawn in zip(("video", "audio"), zip(*pairs, strict=True), strict=True):
                added[f"{name}_time"], added[f"{name}_noise"] = _stack_noises(drawn)
        added["audio_mask"] = self.audio.weighted(made.get("audio_mask"), batch.length)
        return replace(batch, flow=join_flow([plan.clip for plan in own]), **added)

    def _draw_noises(self, noise: LinearNoise, item: Item, maps: Drawn, own: SampleRows) -> list[tuple[Noise, Noise]]:
        """Draw the noise for the targets of both masks of each view."""
        sizes = {"video": prod((*self.clips.grid.patch, 3)), "audio": prod(self.audio.grid.patch)}
        parts, none = (self.clips.camera, self.audio.part), [None] * item.views
        masked = [maps[part][own.slice] if part in maps else none for part in parts]

        def drawn(view: int, which: int, name: str) -> Noise:
            return self._noise(noise, item, view, name, masked[which][view], sizes[name])

        return [(drawn(view, 0, "video"), drawn(view, 1, "audio")) for view in range(item.views)]

    def _numbers(self, item: Item, video: VideoIndex) -> Int64s:
        """Draw the frame numbers of a clip from the frames that have audio.

        If fewer frames than a clip spans have audio, the range is extended to the span of a clip.
        """
        with item.manifest.reading(item.index, self.audio.sounds.component):
            first, stop = self._heard(item, video)
        gops = video.first_frame[video.first_frame >= first] - first
        return first + self.clips.clip.numbers(stop - first, item.rng("clip"), gops, fps=video.fps)

    def _heard(self, item: Item, video: VideoIndex) -> tuple[int, int]:
        index, clip = item.index, self.clips.clip
        facts, align = item.manifest.components[self.audio.sounds.component].facts, clip.align
        start_s = float(facts["start_s"][index])
        n_samples, rate = int(facts["n_samples"][index]), int(facts["sample_rate"][index])
        if not abs(start_s) < _LATEST_S or min(video.fps, n_samples, rate) <= 0:
            raise DataError(
                f"has impossible values in the manifest: {n_samples} samples at {rate} Hz from {start_s} s "
                f"on, with video at {video.fps} frames per second"
            )
        stop_s = start_s + n_samples / rate
        stop = min(max(floor(stop_s * video.fps + 0.5), 1), video.n_frames)
        first = max(ceil(start_s * video.fps - 0.5), 0)
        legal = video.first_frame.tolist() if align == "gop" else range(0, video.n_frames, align or 1)
        span = clip.span(video.fps)
        first = legal[max(min(bisect_left(legal, first), bisect_right(legal, stop - span) - 1), 0)]
        return first, min(max(stop, first + span), video.n_frames)

    def _segment(self, item: Item, pts_s: Float64s) -> tuple[int, int]:
        """Return the audio segment [first, stop) around the middle of a clip, in samples at the stored rate.

        `pts_s` is float64 (T,), the times of the clip's frames in seconds.
        """
        manifest, index, clip = item.manifest, item.index, self.audio.sounds.clip
        fps = manifest.components[self.clips.component].facts["fps"]
        facts = manifest.components[self.audio.sounds.component].facts
        middle_s = float(pts_s[0] + pts_s[-1] + 1 / fps[index]) / 2
        begin_s = middle_s - clip.seconds / 2 - float(facts["start_s"][index])
        return clip.segment_at(int(facts["n_samples"][index]), int(facts["sample_rate"][index]), begin_s)

    def _add_disturbance(self, noise: SpectrogramNoise, item: Item, batch: AudioVisualBatch, own: SampleRows) -> None:
        """Add noise to the spectrogram of each view, in place."""
        if batch.spectrogram is None:
            raise ValueError("spectrogram_noise needs per-sample spectrograms, got on_device=True; use on_device=False")
        heard, scale = self.audio.spectrogram.n_frames(batch.length[own.slice]).tolist(), self.audio.spectrogram.scale
        spectrograms, rngs = own.of(batch.spectrogram), item.rngs("spectrogram noise")
        for spectrogram, frames, rng in zip(spectrograms, heard, rngs, strict=True):
            noise.add(spectrogram, frames, 1 / scale, rng)

    def _noise(self, noise: LinearNoise, item: Item, view: int, part: str, maps: Maps | None, values: int) -> Noise:
        """Draw the noise for the targets of a mask; `values` is the number of values per token."""
        return noise.draw((_count_targets(maps), values), item.rng(f"noise {part}", view))


@dataclass(frozen=True, slots=True)
class HeardSpectrograms:
    """Device transform that computes the spectrograms of a whole batch with torch."""

    of: Spectrogram

    def __call__(self, batch: AudioVisualBatch, device: torch.device) -> AudioVisualBatch:
        """Add spectrograms to the batch."""
        return replace(batch, spectrogram=self.of(mono(batch.waveform), batch.length, batch.strips))


def _count_targets(maps: Maps | None) -> int:
    """Count the tokens to reconstruct; 0 without a mask."""
    return 0 if maps is None else int((maps.hidden if maps.target is None else maps.target).sum())


def _stack_noises(drawn: Sequence[Noise]) -> tuple[Tensor, Tensor]:
    """Stack times, int64 (B,), and noise, float32 (B, M, values), padded with 0 to the largest M."""
    longest = max(len(noise) for _, noise in drawn)
    rows = [pad(torch.from_numpy(noise), (0, 0, 0, longest - len(noise))) for _, noise in drawn]
    return torch.tensor([time for time, _ in drawn]), torch.stack(rows)
