"""The preview of clips with their sound: frames and spectrogram with their masks over one axis of time."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ...pipelines.modalities.audiovisual.batch import AudioVisualBatch
from ...pipelines.modalities.video.batch import VideoBatch
from ...shards.format.manifest import component_of
from ..figures.chart import Tick, inner_ticks
from ..figures.spectrogram import frequency_ticks
from ..figures.tokens import MaskRow
from ..page import environment, render
from .audio import HeardView, heard_view
from .clip_view import ClipView, FrameView, clip_view
from .opened import Opened, SampleName
from .page import GridWords, picture_side

FRAME_PX = 72
"""A frame of the score is at least so wide, unless the score would be wider than LONGEST_PX."""
LONGEST_PX = 6000


@dataclass(frozen=True, kw_only=True, slots=True)
class PairView:
    """A clip and its sound. All places are shares of the score, which spans seconds [from_s, from_s + seconds) of the
    video: of each frame, one frame's width, and where the sound begins and how much it takes.
    """

    name: SampleName
    clip: ClipView
    sound: HeardView
    audio_start_s: float
    from_s: float
    seconds: float
    frames: tuple[tuple[float, FrameView], ...]
    frame: float
    sound_at: float
    sound_share: float
    ticks: tuple[Tick, ...]

    @property
    def width_px(self) -> int:
        """What the score is at least wide."""
        return min(ceil(FRAME_PX / self.frame), LONGEST_PX)


def audiovisual_page(opened: Opened) -> str:
    """One HTML file, complete in itself, about every clip of the batch and its sound."""
    loader, batch = opened.loader, opened.batch
    clip, features = loader.clip, loader.spectrogram.features
    (columns, rows), (frames, bins) = loader.audio_grid.shape, loader.audio_grid.patch
    grid = GridWords.of(loader.video_grid)
    facts = opened.facts(
        clip=f"{clip.frames} frames, stride {clip.stride}, {clip.size} px",
        sound=f"{batch.waveform.shape[2] / features.sample_rate:g} s at {features.sample_rate:,} Hz, mono",
        tokens=f"of the frames {grid.steps} x {grid.rows} x {grid.columns}, of the sound {columns} x {rows}",
    )
    return render(
        environment(),
        "preview_audiovisual.html.j2",
        title=opened.title,
        facts=facts,
        pairs=_views(opened, batch),
        grid=grid,
        tones=frequency_ticks(features),
        token_s=frames * features.shift / features.sample_rate,
        token_bins=bins,
    )


def _views(opened: Opened, batch: AudioVisualBatch) -> list[PairView]:
    loader = opened.loader
    if batch.spectrogram is None:
        raise ValueError("a page shows spectrograms, but the batch has none; take it from an audiovisual_loader")
    video = VideoBatch(
        video=batch.video, mask=batch.video_mask, flow=None, label=batch.label, key=batch.key, pts_s=batch.pts_s
    )
    n_frames = loader.spectrogram.n_frames(batch.length).tolist()
    side = picture_side(len(batch) * batch.video.shape[1])
    fps = component_of(opened.manifest.components, ("video",)).facts["fps"]
    views = []
    for row, index in enumerate(opened.indexes()):
        sound = heard_view(
            batch.waveform[row].mean(dim=0).numpy(),
            int(batch.length[row]),
            batch.spectrogram[row].numpy(),
            loader.audio_grid,
            MaskRow.of(batch.audio_mask, row) if batch.audio_mask else None,
            rate=loader.spectrogram.features.sample_rate,
            frames=n_frames[row],
            sounds=len(batch),
        )
        clip = clip_view(video, row, loader.video_grid, side, opened.label_names)
        step_s = loader.clip.stride / float(fps[index])
        views.append(pair_view(opened.name(row), clip, sound, float(batch.audio_start_s[row]), step_s))
    return views


def pair_view(name: SampleName, clip: ClipView, sound: HeardView, audio_start_s: float, step_s: float) -> PairView:
    """Both on one axis, which begins with the first of them and ends with the last; frames are `step_s` apart. A frame
    that is shown again, because the video ended, is left out.
    """
    shown = [frame for before, frame in zip((None, *clip.frames), clip.frames, strict=False) if _new(before, frame)]
    from_s = min(shown[0].pts_s, audio_start_s)
    seconds = max(shown[-1].pts_s + step_s, audio_start_s + sound.seconds) - from_s
    return PairView(
        name=name,
        clip=clip,
        sound=sound,
        audio_start_s=audio_start_s,
        from_s=from_s,
        seconds=seconds,
        frames=tuple(((frame.pts_s - from_s) / seconds, frame) for frame in shown),
        frame=step_s / seconds,
        sound_at=(audio_start_s - from_s) / seconds,
        sound_share=sound.seconds / seconds,
        ticks=inner_ticks(from_s, from_s + seconds, 12),
    )


def _new(before: FrameView | None, frame: FrameView) -> bool:
    return before is None or frame.pts_s > before.pts_s
