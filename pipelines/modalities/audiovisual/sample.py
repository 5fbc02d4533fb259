"""The audiovisual sampler: a video sampler and an audio sampler on one clock.

The segment of sound is chosen after the clip is decoded: it depends on the times of the frames, of which the manifest
has only the mean rate. So a request names the whole sound, and `fill` reads less.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from ....shards.errors import DataError
from ....shards.media.video_index import VideoIndex
from ....shards.stores.base import Announcement, Range
from ...augment.diffusion import LinearNoise
from ...masks import Maps
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from ..audio.sample import AudioSampler, SoundDraft, SoundRequest
from ..video.sample import ClipRequest, VideoDraft, VideoSampler
from .batch import AudioVisualBatch
from .spectrogram_noise import SpectrogramNoise

Noise = tuple[int, npt.NDArray[np.float32]]
"""A time of the noise schedule, and noise for M targets, float32 (M, values per token)."""

_LATEST_S = 1e9


@dataclass(frozen=True, kw_only=True)
class HeardVideoSampler(VideoSampler):
    """A `VideoSampler` that draws clips from the frames that have sound.

    If fewer frames than a clip spans have sound, the range is extended to the span of a clip. sound: the component that
    holds the sound.
    """

    sound: str = "flac"

    def numbers(self, index: int, video: VideoIndex, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        with self.manifest.reading(index, self.sound):
            first, stop = self._heard(index, video)
        gops = video.first_frame[video.first_frame >= first] - first
        return first + self.clip.numbers(stop - first, rng, gops, fps=video.fps)

    def _heard(self, index: int, video: VideoIndex) -> tuple[int, int]:
        facts, align = self.manifest.components[self.sound].facts, self.clip.align
        start_s = float(facts["start_s"][index])
        n_samples, rate = int(facts["n_samples"][index]), int(facts["sample_rate"][index])
        if not abs(start_s) < _LATEST_S or min(video.fps, n_samples, rate) <= 0:
            raise DataError(
                f"has {n_samples} samples at {rate} Hz from {start_s} s on, beside {video.fps} frames per second, in "
                "the manifest, which is impossible"
            )
        stop_s = start_s + n_samples / rate
        stop = min(max(floor(stop_s * video.fps + 0.5), 1), video.n_frames)
        first = max(ceil(start_s * video.fps - 0.5), 0)
        legal = video.first_frame.tolist() if align == "gop" else range(0, video.n_frames, align or 1)
        span = self.clip.span(video.fps)
        first = legal[max(min(bisect_left(legal, first), bisect_right(legal, stop - span) - 1), 0)]
        return first, min(max(stop, first + span), video.n_frames)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualRequest:
    """The draws of a sample: its clip, and the views of its sound.

    The segment of the sound depends on the times of the decoded frames, so `ranges` names the byte ranges of the clip
    and the whole sound; `fill` reads only the segment.
    """

    video: ClipRequest
    audio: SoundRequest
    ranges: tuple[Range, ...]

    @property
    def key(self) -> str:
        """The key of the sample."""
        return self.video.key

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """The frame numbers of the clip."""
        return self.video.numbers

    @property
    def n_frames(self) -> int:
        """The number of frames of the whole video."""
        return self.video.n_frames


@dataclass(kw_only=True, slots=True)
class AudioVisualDraft:
    """The memory of a batch: the drafts of both samplers, and per view the noise for both masks, None without noise."""

    video: VideoDraft
    audio: SoundDraft
    noise: list[tuple[Noise, Noise] | None]


@dataclass(frozen=True, kw_only=True)
class AudioVisualSampler:
    """Makes host batches of clips with sound. It holds only settings, so it can be sent to worker processes.

    The clip is drawn by `video`; the sound segment is centred on it and moved inside the sound. Both samplers draw from
    generators of their own, so video and sound are masked independently. noise: the schedule of the diffusion noise for
    the targets. spectrogram_noise: an augmentation of spectrograms.
    """

    video: VideoSampler
    audio: AudioSampler
    noise: LinearNoise | None = None
    spectrogram_noise: SpectrogramNoise | None = None

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.video.seed

    @property
    def needs_progress(self) -> bool:
        """Whether a mask depends on the progress of the run."""
        return self.video.needs_progress or self.audio.needs_progress

    def request(self, wanted: Wanted) -> AudioVisualRequest:
        """Draws the clip and its crops, and finds the byte ranges of the clip and of the sound."""
        video, audio = self.video.request(wanted), self.audio.request_of(wanted, 0, 1)
        sound = (audio.plan.member,) if audio.plan.header else (*audio.plan.ranges,)
        return AudioVisualRequest(video=video, audio=audio, ranges=(*video.ranges, *sound))

    def announce(self, request: AudioVisualRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.video.manifest.store.announce(request.ranges)

    def allocate(self, requests: Sequence[object]) -> AudioVisualDraft:
        """The memory of a batch of some requests."""
        noise: list[tuple[Noise, Noise] | None] = [None] * (len(requests) * self.video.views)
        return AudioVisualDraft(video=self.video.allocate(requests), audio=self.audio.allocate(requests), noise=noise)

    def mask(self, request: AudioVisualRequest, draft: AudioVisualDraft, row: int) -> None:
        """Draws the masks of a row that need no content."""
        self.video.mask(request.video, draft.video, row)
        self.audio.mask(request.audio, draft.audio, row)

    def fill(self, request: AudioVisualRequest, draft: AudioVisualDraft, row: int, stats: Stats) -> None:
        """Reads and decodes a row, and makes its views; raises SampleError if the video or the sound is unusable."""
        self.video.fill(request.video, draft.video, row, stats)
        own, wanted = self.video.views_of(row), request.audio.wanted
        with self.audio.manifest.reading(wanted.index, self.audio.component):
            first, stop = self._segment(wanted.index, draft.video.pts_s[own.start])
        placed = replace(request.audio, plan=replace(request.audio.plan, first=first, stop=stop))
        self.audio.fill(placed, draft.audio, row, stats)
        starts = self.video.manifest.components[self.audio.component].facts["start_s"]
        draft.audio.start_s[own] += float(starts[wanted.index])
        with stats.stage("convert"):
            if self.spectrogram_noise is not None:
                self._disturb(self.spectrogram_noise, draft.audio, own, wanted.epoch, request.video.key)
            if self.noise is not None:
                for view in range(self.video.views):
                    maps = [part.maps[own.start + view] for part in (draft.video, draft.audio)]
                    draft.noise[own.start + view] = self._noise(self.noise, maps, wanted.epoch, request.video.key, view)

    def join(self, draft: AudioVisualDraft) -> AudioVisualBatch:
        """The host batch; the views of a sample are consecutive rows."""
        video, audio = self.video.join(draft.video), self.audio.join(draft.audio)
        added: dict[str, Any] = {}
        if self.noise is not None:
            pairs = [pair for pair in draft.noise if pair is not None]
            for name, drawn in zip(("video", "audio"), zip(*pairs, strict=True), strict=True):
                added[f"{name}_time"], added[f"{name}_noise"] = _stacked(drawn)
        return AudioVisualBatch(
            video=video.video,
            waveform=audio.waveform,
            length=audio.length,
            spectrogram=audio.spectrogram,
            video_mask=video.mask,
            audio_mask=audio.mask,
            flow=video.flow,
            label=video.label,
            key=video.key,
            pts_s=video.pts_s,
            audio_start_s=audio.start_s,
            strips=audio.strips,
            **added,
        )

    def _segment(self, index: int, pts_s: npt.NDArray[np.float64]) -> tuple[int, int]:
        """The segment [first, stop) of the sound around the middle of a clip, in samples at the stored rate.

        pts_s: float64 (T,), the times of the clip's frames in seconds.
        """
        manifest, clip = self.video.manifest, self.audio.clip
        fps = manifest.components[self.video.component].facts["fps"]
        facts = manifest.components[self.audio.component].facts
        middle_s = float(pts_s[0] + pts_s[-1] + 1 / fps[index]) / 2
        begin_s = middle_s - clip.seconds / 2 - float(facts["start_s"][index])
        return clip.segment_at(int(facts["n_samples"][index]), int(facts["sample_rate"][index]), begin_s)

    def _disturb(self, noise: SpectrogramNoise, draft: SoundDraft, own: slice, epoch: int, key: str) -> None:
        """Adds noise to the spectrogram of each view, in place."""
        if draft.spectrogram is None:
            raise ValueError("spectrogram_noise needs spectrograms of samples, got on_device=True; use on_device=False")
        heard = self.audio.spectrogram.n_frames(draft.length[own]).tolist()
        for view, (spectrogram, frames) in enumerate(zip(draft.spectrogram[own].numpy(), heard, strict=True)):
            rng = sample_rng(self.seed, epoch, key, view, "spectrogram noise")
            noise.add(spectrogram, frames, 1 / self.audio.spectrogram.scale, rng)

    def _noise(
        self, noise: LinearNoise, maps: list[Maps | None], epoch: int, key: str, view: int
    ) -> tuple[Noise, Noise]:
        """Draws the noise for the targets of a view's video mask and of its audio mask."""
        n_video, n_audio = map(_n_targets, maps)
        of_video = (n_video, 3 * prod(self.video.grid.patch))
        of_audio = (n_audio, prod(self.audio.grid.patch))
        rngs = [sample_rng(self.seed, epoch, key, view, f"noise {part}") for part in ("video", "audio")]
        return noise.draw(of_video, rngs[0]), noise.draw(of_audio, rngs[1])


def _n_targets(maps: Maps | None) -> int:
    """The number of tokens that are reconstructed; 0 without a mask."""
    return 0 if maps is None else int((maps.hidden if maps.target is None else maps.target).sum())


def _stacked(drawn: Sequence[Noise]) -> tuple[Tensor, Tensor]:
    """The times, int64 (B,), and the noise, float32 (B, M, values), padded with 0 to the largest M."""
    longest = max(len(noise) for _, noise in drawn)
    rows = [pad(torch.from_numpy(noise), (0, 0, 0, longest - len(noise))) for _, noise in drawn]
    return torch.tensor([time for time, _ in drawn]), torch.stack(rows)
