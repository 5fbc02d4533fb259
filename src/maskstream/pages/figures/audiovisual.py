"""Figures of clips with audio: frames and spectrogram with their masks over one time axis."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from maskstream.pipelines.modalities.audio.spectrogram import Spectrogram
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest

from .audio import Heard, draw_compared_spectrograms
from .card import Card, FrameTrack, Lane, PlayedLanes, label_name
from .chart import choose_inner_ticks
from .figures import MaskRow, find_sample, received, sample_card
from .pictures import Grid, check_grid, sized
from .spectrogram import describe_bands
from .video import (
    choose_page_side,
    count_visible_per_step,
    draw_compared_frames,
    draw_picture_track,
    draw_seen_track,
    join_frame_rows,
    patch_words,
    per_step,
)
from .words import plural, span

FRAME_PX = 72
"""Minimum width of a frame of the score, unless the score would be wider than LONGEST_PX."""
LONGEST_PX = 6000


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
        check_grid(self.grid, *batch.video.shape[1:4])
        heard = Heard.of(batch, i, self.spectrogram, self.audio_grid, batch.audio_mask)
        mask = MaskRow.of(batch.video_mask, i) if batch.video_mask else None
        times, sound_s = batch.pts_s[i].tolist(), float(batch.audio_start_s[i])
        shown = [f for f, time in enumerate(times) if f == 0 or time > times[f - 1]]
        fps = component_of(self.manifest.components, ("video",)).facts["fps"]
        step_s = self.clip.step_s(float(fps[find_sample(self.manifest, heard.key)]))
        from_s = min(times[0], sound_s)
        seconds = max(times[shown[-1]] + step_s, sound_s + heard.seconds) - from_s
        uri, note = heard.played()
        at, share = (sound_s - from_s) / seconds, heard.seconds / seconds
        sounds = [replace(lane, at=at, share=share) for lane in self._sounds(heard)]
        played = PlayedLanes(
            lanes=(
                *(_track_lane(track, shown) for track in self._draw_tracks(batch, i, mask)),
                *sounds[:-1],
                replace(sounds[-1], x_ticks=choose_inner_ticks(from_s, from_s + seconds, 12)),
            ),
            from_s=from_s,
            seconds=seconds,
            sound=uri,
            sound_s=sound_s,
            note=note,
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

    def _draw_tracks(self, batch: AudioVisualBatch, i: int, mask: MaskRow | None) -> list[FrameTrack]:
        """Draw the frames, and their visible tokens."""
        frames, times = sized(batch.video[i].numpy(), self.grid, choose_page_side(batch.video)), batch.pts_s[i].tolist()
        words = "Each frame is at its time. Thin lines mark these times in the audio below."
        tracks = [replace(draw_picture_track(frames, times, self.grid), words=words)]
        if mask is not None:
            visible = f"{span(count_visible_per_step(mask, self.grid))} of {per_step(self.grid)}"
            words = f"Bright squares are visible to the encoder: {visible} per time step."
            seen = draw_seen_track(frames, times, mask, self.grid)
            tracks.append(replace(seen, heading="The mask of the frames.", words=words))
        return tracks

    def _sounds(self, heard: Heard) -> list[Lane]:
        """Draw the spectrogram, its visible tokens, and the waveform."""
        seen = "Coloured tokens are visible to the encoder: {}."
        words = describe_bands(self.spectrogram.features)
        ends = f"The audio ends after {heard.sound_s:.2f} s, and the rest of the clip is padded with zeros. "
        wave = heard.draw_wave_lane(f"{ends if heard.filled else ''}Seconds of the video.")
        return [*heard.lanes(words, "The mask of the audio.", seen, self.spectrogram), wave]

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
        sounds["reconstruction"] = replace(sounds["reconstruction"], caption="audio")
        end_s = start_s + batch.waveform.shape[2] / self.spectrogram.features.sample_rate
        return Card(
            key=batch.key[i],
            words=f"{label_name(int(batch.label[i]), self.label_names)}, audio {start_s:.2f} to {end_s:.2f} s",
            figures=join_frame_rows(rows, batch.pts_s[i].tolist(), *sounds.items()),
        )


def _track_lane(track: FrameTrack, shown: Sequence[int]) -> Lane:
    """Return a lane with some frames of a track."""
    kept = replace(track, pictures=tuple(track.pictures[f] for f in shown), times=tuple(track.times[f] for f in shown))
    return Lane(heading=track.heading, words=track.words, height="track", track=kept)
