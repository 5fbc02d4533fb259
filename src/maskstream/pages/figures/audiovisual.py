"""Figures of clips with their sound: frames and spectrogram with their masks over one axis of time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from maskstream.pipelines.modalities.audio.spectrogram import Spectrogram
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest

from .audio import Heard, compared_spectrograms, find_sample, read_spectrograms
from .card import Card, Facts, FrameTrack, Lane, PlayedLanes, label_words
from .chart import inner_ticks
from .figures import ClipTokens, MaskRow, mask_facts
from .pictures import Grid, cell_size, check_grid, resize
from .spectrogram import bands_ticks, bands_words
from .video import compared_frames, frame_rows, patch_words, picture_side, picture_track, seen_track
from .words import plural, span

FRAME_PX = 72
"""A frame of the score is at least so wide, unless the score would be wider than LONGEST_PX."""
LONGEST_PX = 6000


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualFigures:
    """Of clips and sounds whose tokens are those of two grids. manifest: the frame rates of the videos."""

    clip: VideoClip
    spectrogram: Spectrogram
    grid: Grid
    audio_grid: Grid
    manifest: Manifest
    label_names: Sequence[str] = ()

    def about(self, batch: AudioVisualBatch) -> tuple[str, dict[str, str]]:
        """How both are made, and into which tokens they are cut."""
        features, n = self.spectrogram.features, len(batch)
        (t, h, w), (columns, rows), (frames, bins) = self.grid.shape, self.audio_grid.shape, self.audio_grid.patch
        lede = (
            f"{plural(n, 'clip')} with sound, as the training loop receives {'it' if n == 1 else 'them'}: cropped, "
            "resized, made into a spectrogram, and each masked on its own. A token of the frames is a block of "
            f"{patch_words(self.grid)}; one of the sound is {frames * features.shift / features.sample_rate:g} s of "
            f"{bins} frequency bands. Everything lies over one axis: what is seen and what is heard at one time stand "
            "one above the other."
        )
        return lede, {
            "clip": f"{self.clip.frames} frames, {self.clip.spacing}, {self.clip.size} px",
            "sound": f"{batch.waveform.shape[2] / features.sample_rate:g} s at {features.sample_rate:,} Hz, mono",
            "tokens": f"of the frames {t} x {h} x {w}, of the sound {columns} x {rows}",
        }

    def sample(self, batch: AudioVisualBatch, i: int) -> Card:
        """Frames, spectrogram and waveform, each with what the encoder sees of it. A frame that is shown again, because
        the video ended, is left out.
        """
        check_grid(self.grid, *batch.video.shape[1:4])
        heard, tokens = self._heard(batch, i), None
        if batch.video_mask is not None:
            tokens = ClipTokens.of(batch.video_mask, i, self.grid)
        times, sound_s, key = batch.pts_s[i].tolist(), float(batch.audio_start_s[i]), batch.key[i]
        shown = [f for f, time in enumerate(times) if f == 0 or time > times[f - 1]]
        fps = component_of(self.manifest.components, ("video",)).facts["fps"]
        step_s = self.clip.step_s(float(fps[find_sample(self.manifest, key)]))
        from_s = min(times[0], sound_s)
        seconds = max(times[shown[-1]] + step_s, sound_s + heard.seconds) - from_s
        uri, note = heard.played()
        lanes = [_track_lane(track, shown) for track in self._tracks(batch, i, tokens)]
        at, share = (sound_s - from_s) / seconds, heard.seconds / seconds
        sounds = [replace(lane, at=at, share=share) for lane in self._sounds(heard, key)]
        ticks = inner_ticks(from_s, from_s + seconds, 12)
        again = ""
        if more := len(times) - len(shown):
            again = f" (the video ends: the last is given {plural(more, 'time')} more)"
        facts = [("Frames", tokens and tokens.counts), ("Sound", heard.mask and heard.mask.counts)]
        missing = [
            f"The loader was built without a mask of the {what}."
            for what, mask in (("frames", tokens), ("sound", heard.mask))
            if mask is None
        ]
        return Card(
            key=key,
            words=f"{plural(len(shown), 'frame')}{again}, {times[0]:.2f} to {times[-1]:.2f} s; sound {sound_s:.2f} to "
            f"{sound_s + heard.sound_s:.2f} s of the video",
            label=label_words(int(batch.label[i]), self.label_names),
            facts=tuple(Facts(title=title, items=mask_facts(counts)) for title, counts in facts if counts),
            figures=(
                PlayedLanes(
                    lanes=(*lanes, *sounds[:-1], replace(sounds[-1], x_ticks=ticks)),
                    from_s=from_s,
                    seconds=seconds,
                    sound=uri,
                    sound_s=sound_s,
                    note=note,
                    frame=step_s / seconds,
                    width_px=min(ceil(FRAME_PX * seconds / step_s), LONGEST_PX),
                    rules=tuple((times[f] - from_s) / seconds for f in shown),
                ),
            ),
            missing=tuple(missing),
        )

    def _heard(self, batch: AudioVisualBatch, i: int) -> Heard:
        return Heard(
            waveform=batch.waveform[i].mean(dim=0).numpy(),
            rate=self.spectrogram.features.sample_rate,
            length=int(batch.length[i]),
            values=read_spectrograms(batch)[i],
            frames=int(self.spectrogram.n_frames(batch.length[i : i + 1])[0]),
            grid=self.audio_grid,
            mask=MaskRow.of(batch.audio_mask, i) if batch.audio_mask else None,
            share=len(batch),
        )

    def _tracks(self, batch: AudioVisualBatch, i: int, tokens: ClipTokens | None) -> list[FrameTrack]:
        """The frames, and what the encoder sees of them."""
        cell = cell_size(self.grid, picture_side(len(batch) * batch.video.shape[1]))
        size = (self.grid.shape[1] * cell[0], self.grid.shape[2] * cell[1])
        frames, times = resize(batch.video[i].numpy(), *size), batch.pts_s[i].tolist()
        words = "Each stands where it is shown. Thin lines mark their times in the sound below."
        tracks = [replace(picture_track(frames, times, self.grid), words=words)]
        if tokens is not None:
            counts = tokens.counts
            words = (
                f"Bright squares are what the encoder sees: {span(counts.visible_per_step)} of {counts.per_step} per "
            )
            seen = seen_track(frames, times, tokens, self.grid, cell)
            tracks.append(replace(seen, heading="The mask of the frames.", words=f"{words}time step."))
        return tracks

    def _sounds(self, heard: Heard, key: str) -> list[Lane]:
        """The spectrogram, what the encoder sees of it, and the waveform."""
        view, tones = heard.view(), bands_ticks(self.spectrogram.features)
        words = bands_words(self.spectrogram.features)
        lanes = [heard.lane(view, key, seen=False, heading="Spectrogram.", words=words)]
        if heard.mask is not None:
            counts = heard.mask.counts
            words = f"Coloured tokens are what the encoder sees: {counts.visible:,} of {counts.tokens:,}."
            lanes.append(heard.lane(view, key, seen=True, heading="The mask of the sound.", words=words))
        ends = f"The sound ends after {heard.sound_s:.2f} s, and the rest of the clip is padded with zeros. "
        wave = heard.wave_lane(f"{ends if heard.filled else ''}Seconds of the video.")
        return [*(replace(lane, y_ticks=tones) for lane in lanes), wave]

    def compared(self, batch: AudioVisualBatch, made: AudioVisualBatch, i: int) -> Card:
        """A few frames and the spectrogram as they were, as the encoder saw them, and as the model completes them."""
        if (
            batch.video_mask is None
            or batch.audio_mask is None
            or batch.spectrogram is None
            or made.spectrogram is None
        ):
            raise ValueError("a reconstruction is of masked clips and spectrograms; give the loader both masks")
        key, label, start_s = batch.key[i], int(batch.label[i]), float(batch.audio_start_s[i])
        side = picture_side(len(batch) * batch.video.shape[1])
        rows = compared_frames(batch.video[i].numpy(), made.video[i].numpy(), batch.video_mask, i, self.grid, side)
        values, completed = (read_spectrograms(one)[i] for one in (batch, made))
        sounds = compared_spectrograms(values, completed, batch.audio_mask, i, self.audio_grid, key)
        sounds["reconstruction"] = replace(sounds["reconstruction"], caption="sound")
        name = self.label_names[label] if 0 <= label < len(self.label_names) else str(label)
        seconds = batch.waveform.shape[2] / self.spectrogram.features.sample_rate
        return Card(
            key=key,
            words=f"{name}, sound {start_s:.2f} to {start_s + seconds:.2f} s",
            figures=frame_rows(rows, batch.pts_s[i].tolist(), *sounds.items()),
        )


def _track_lane(track: FrameTrack, shown: Sequence[int]) -> Lane:
    """The frames of a track that are shown."""
    kept = replace(track, frames=tuple(track.frames[f] for f in shown))
    return Lane(heading=track.heading, words=track.words, height="track", track=kept)
