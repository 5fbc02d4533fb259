"""The encoder of videos with sound: the members `mp4` and `flac` on one clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from maskstream.preprocess.encode.audio.encoder import LEVEL, check_sound, encoded_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.encode.video.profile import PROFILES, VideoProfile
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.config import Config
from maskstream.shards.members.video import video_member

from .sound_track import read_track

SILENT_DB = -60.0
"""A sound is silent if the root mean square of its loudest channel is below this level (0 dB is full scale)."""
MIN_SHARE = 0.5
"""The smallest share of a video's duration that must have sound."""


@dataclass(frozen=True, slots=True)
class AudioVisualEncoder(Config):
    """Encodes videos as `VideoEncoder` does and their sound as `AudioEncoder` does, cut to the time of the video.

    Time 0 is the first frame. The fact `start_s` of `flac` is the time of the first sound sample: 0 (to within one
    sample), or later if the track begins later. Sound before the first frame and after the last one is left out. If the
    track ends early, so does the member, and loaders append zeros; gaps within the track are stored as zeros. `json`
    holds `audio_start_s`, `audio_share` (of the video's duration), `audio_level_db` (root mean square of the loudest
    channel; 0 is full scale), `audio_filled_s` (of gaps), and the description by `AudioEncoder` as `audio`.

    The encoder rejects what the two encoders reject, and videos without a sound track, with sound in less than half of
    their duration, with silent sound (below -60 dB), or without usable time stamps. A source's window is in frames. The
    profile `copy` is refused because it keeps no clock.
    """

    version: ClassVar[int] = 7
    modality: ClassVar[str] = "audiovisual"

    video: VideoProfile = PROFILES["train"]
    level: int = LEVEL

    def __post_init__(self) -> None:
        if self.video.name == "copy":
            raise ValueError("profile 'copy' does not keep the time of the first frame; use profile 'train' or 'fps'")

    def in_profile(self, profile: VideoProfile) -> AudioVisualEncoder:
        """The same with videos in another profile."""
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The name of the video profile."""
        return self.video.name

    def encode(self, source: Source) -> Encoded:
        """Encode the video, or its window in frames, and its sound."""
        video = encode_video(source.path, self.video, source.window)
        if video.start_s is None:
            raise RejectError("decode", "its frames have no ordered time stamps, so sound cannot be aligned with them")
        duration_s = video.index.n_frames / video.index.fps
        track = read_track(source.path, video.start_s, video.start_s + duration_s)
        sound = track.sound
        check_sound(sound)
        share, level_db = len(sound.samples) / sound.sample_rate / duration_s, _level_db(sound)
        if level_db < SILENT_DB:
            raise RejectError(
                "check", f"its sound is silent: {level_db:.0f} dB, at least {SILENT_DB:.0f} dB are needed"
            )
        if share < MIN_SHARE:
            raise RejectError("check", f"has sound in only {share:.0%} of its duration; {MIN_SHARE:.0%} are needed")
        audio = encoded_sound(sound, self.level)
        audio_start_s = track.start_s - video.start_s
        flac = audio.members["flac"]
        flac = replace(flac, facts={**flac.facts, "start_s": audio_start_s})
        meta = {
            **video.meta,
            "audio_start_s": audio_start_s,
            "audio_share": share,
            "audio_level_db": level_db,
            "audio_filled_s": track.filled_s,
            "audio": audio.meta,
        }
        return Encoded(
            members={"mp4": video_member(video.data, video.index), "flac": flac},
            meta=meta,
            sums=audio.sums,
        )


def _level_db(sound: Sound) -> float:
    """The root mean square of the loudest channel in dB; 0 is full scale, -200 is digital silence."""
    full = float(1 << sound.bits - 1) if sound.bits else 1.0
    power = np.square(sound.samples / full, dtype=np.float64).mean(axis=0).max()
    return float(10 * np.log10(max(power, 1e-20)))
