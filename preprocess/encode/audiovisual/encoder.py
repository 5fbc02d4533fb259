"""One video with its sound to the members `mp4` and `flac` of a sample, both on one clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ....shards.config import Config
from ....shards.members.video import video_member
from ...source import Source
from ..audio.encoder import LEVEL, check_sound, encoded_sound
from ..audio.sound import Sound
from ..encoder import Encoded
from ..reject import RejectError
from ..video.profile import PROFILES, VideoProfile
from ..video.video import encode_video
from .sound_track import read_track

SILENT_DB = -60.0
"""A sound whose loudest channel has less than this, as root mean square below full scale, is taken for silent."""
MIN_SHARE = 0.5
"""The least share of a video's time that has sound."""


@dataclass(frozen=True, slots=True)
class AudioVisualEncoder(Config):
    """Videos as `VideoEncoder` makes them, and their sound as `AudioEncoder` does, cut to the time of the video.

    Time 0 is the first frame. The fact `start_s` of `flac` says when the first sample of sound begins: 0, to within a
    sample, unless the track begins later. What sound has before the first frame or after the end of the last one is
    left out; a track that ends earlier ends earlier in the sample too, and loaders fill up with zeros. Gaps within it
    are zeros already. `json` says of the sound: `audio_start_s`, `audio_share` (of the video's time),
    `audio_level_db` (of the loudest channel, root mean square, 0 is full scale), `audio_filled_s` (of gaps), and as
    `audio` what `AudioEncoder` says.

    Rejected are, besides what both encoders reject, videos without a sound track, those with sound in less than half of
    their time, silent ones (below -60 dB), and those whose time stamps do not say when frames or sound come.
    A source's window is in frames, as for videos. The profile `copy` keeps no clock and is refused.
    """

    modality: ClassVar[str] = "audiovisual"

    video: VideoProfile = PROFILES["train"]
    level: int = LEVEL

    def __post_init__(self) -> None:
        if self.video.name == "copy":
            raise ValueError("profile 'copy' does not keep the time of a video's first frame; use 'train' or 'fps'")

    def in_profile(self, profile: VideoProfile) -> AudioVisualEncoder:
        """The same with videos in another profile."""
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The video's."""
        return self.video.name

    def encode(self, source: Source) -> Encoded:
        """The video, or its window in frames, and its sound."""
        made = encode_video(source.path, self.video, source.window)
        if made.start_s is None:
            raise RejectError("decode", "its frames have no time stamps in their order, to put sound beside them by")
        duration_s = made.index.n_frames / made.index.fps
        track = read_track(source.path, made.start_s, made.start_s + duration_s)
        sound = track.sound
        check_sound(sound)
        share, level_db = len(sound.samples) / sound.sample_rate / duration_s, _level_db(sound)
        if level_db < SILENT_DB:
            raise RejectError("check", f"its sound is silent: {level_db:.0f} dB of full scale, below {SILENT_DB:.0f}")
        if share < MIN_SHARE:
            raise RejectError("check", f"has sound in only {share:.0%} of its time; {MIN_SHARE:.0%} are needed")
        audio = encoded_sound(sound, self.level)
        audio_start_s = track.start_s - made.start_s
        heard = audio.members["flac"]
        heard = replace(heard, facts={**heard.facts, "start_s": audio_start_s})
        meta = {
            **made.meta,
            "audio_start_s": audio_start_s,
            "audio_share": share,
            "audio_level_db": level_db,
            "audio_filled_s": track.filled_s,
            "audio": audio.meta,
        }
        return Encoded(
            members={"mp4": video_member(made.data, made.index), "flac": heard},
            meta=meta,
            sums=audio.sums,
        )


def _level_db(sound: Sound) -> float:
    """The level of the loudest channel, 0 for full scale; -200 for nothing at all."""
    full = float(1 << sound.bits - 1) if sound.bits else 1.0
    power = np.square(sound.samples / full, dtype=np.float64).mean(axis=0).max()
    return float(10 * np.log10(max(power, 1e-20)))
