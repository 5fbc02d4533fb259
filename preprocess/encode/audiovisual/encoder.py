"""The encoder of videos with audio: the members `mp4` and `flac` with a common clock.

Every audio sample between two times of the container's clock is read and keeps its time.
"""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame

from maskstream.preprocess.encode.audio.encoder import LEVEL, check_sound, encode_sound
from maskstream.preprocess.encode.audio.sound import Sound, frame_samples, integers, sample_format
from maskstream.preprocess.encode.encoder import Encoded, ProfiledEncoder
from maskstream.preprocess.encode.limits import check_sound_values, get_limits
from maskstream.preprocess.encode.video.kept import find_kept_video
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.preprocess.source import RejectError, Source, explain
from maskstream.shards.media.local_media import MediaError, open_media
from maskstream.shards.members.video import video_member

SILENT_DB = -60.0
"""Audio is silent if the root mean square of its loudest channel is below this level (0 dB is full scale)."""
MIN_SHARE = 0.5
"""Smallest fraction of a video's duration that must have audio."""


@dataclass(frozen=True, slots=True)
class AudioVisualEncoder(ProfiledEncoder):
    """Encodes videos as `VideoEncoder` does and their audio as `AudioEncoder` does, cut to the time of the video.

    Time 0 is the first frame. The fact `start_s` of `flac` is the time of the first audio sample: 0 (to within one
    sample), or later if the track begins later. Audio before the first frame and after the last one is dropped. If the
    track ends early, so does the member, and loaders append zeros; gaps within the track are stored as zeros. `json`
    contains `audio_start_s`, `audio_share` (fraction of the video's duration), `audio_level_db` (root mean square of
    the loudest channel; 0 is full scale), `audio_filled_s` (total gaps), and the description by `AudioEncoder` as
    `audio`.

    The encoder rejects everything that the two encoders reject, and videos without an audio track, with audio in less
    than half of their duration, with silent audio (below -60 dB), or without usable time stamps. A source's window is
    in frames, and its span cuts both. The profile `copy` is refused because it keeps no clock.
    """

    version: ClassVar[int] = 7
    modality: ClassVar[str] = "audiovisual"

    level: int = LEVEL

    def validate(self) -> None:
        if self.video.name == "copy":
            raise ValueError("profile 'copy' does not keep the time of the first frame; use profile 'train' or 'fps'")

    def encode(self, source: Source) -> Encoded:
        """Encode a video, or its window in frames or span, with its audio.

        Args:
            source: Source to encode.

        Raises:
            RejectError: The video or its audio cannot become a sample.
        """
        video = find_kept_video(source) or encode_video(source.path, self.video, source.span or source.window)
        if video.start_s is None:
            raise RejectError("decode", "its frames have no ordered time stamps, so audio cannot be aligned with them")
        duration_s = video.index.n_frames / video.index.fps
        track = read_track(source.path, video.start_s, video.start_s + duration_s, seeks=source.span is not None)
        sound = track.sound
        check_sound(sound)
        share, level_db = len(sound.samples) / sound.sample_rate / duration_s, _measure_level_db(sound)
        if level_db < SILENT_DB:
            raise RejectError(
                "check", f"its audio is silent: {level_db:.0f} dB, at least {SILENT_DB:.0f} dB are needed"
            )
        if share < MIN_SHARE:
            raise RejectError("check", f"has audio in only {share:.0%} of its duration; {MIN_SHARE:.0%} are needed")
        audio = encode_sound(sound, self.level)
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
            signals={**video.signals, **audio.signals},
        )


def _measure_level_db(sound: Sound) -> float:
    """Return the root mean square of the loudest channel in dB; 0 is full scale, -200 is digital silence."""
    full = float(1 << sound.bits - 1) if sound.bits else 1.0
    power = np.square(sound.samples / full, dtype=np.float64).mean(axis=0).max()
    return float(10 * np.log10(max(power, 1e-20)))


MAX_DRIFT_S = 0.008
"""How far time stamps may drift from the sample count before samples are inserted or dropped: less than half a frame at
60 frames per second, and more than the rounding of containers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundTrack:
    """A part of an audio track.

    Attributes:
        sound: Decoded audio.
        start_s: Time of its first sample on the container's clock.
        filled_s: Seconds of zeros that replace gaps.
    """

    sound: Sound
    start_s: float
    filled_s: float


@dataclass(kw_only=True, slots=True)
class _Timeline:
    """Decoded frames in sequence. Zeros fill the gaps where time stamps jump ahead; repeated samples are dropped."""

    rate: int
    start: Fraction
    n: int = 0
    filled: int = 0
    parts: list[tuple[int, npt.NDArray[Any]]] = field(default_factory=list)

    def add(self, samples: npt.NDArray[Any], at: Fraction | None) -> None:
        """Append a frame's samples (n, channels), which begin at `at` seconds; None: at the end of the last frame."""
        drift = 0 if at is None else round((at - self.start) * self.rate) - self.n
        if drift > MAX_DRIFT_S * self.rate:
            if drift > get_limits().sound_s * self.rate:
                raise RejectError("decode", f"its audio has damaged time stamps: a gap of {drift / self.rate:.0f} s")
            self._put(np.zeros((drift, samples.shape[1]), samples.dtype))
            self.filled += drift
        elif drift < -MAX_DRIFT_S * self.rate:
            samples = samples[-drift:]
        self._put(samples)

    def forget_before(self, time: Fraction) -> None:
        """Drop the frames that end before `time`."""
        first = (time - self.start) * self.rate
        self.parts = [(at, part) for at, part in self.parts if at + len(part) > first]

    def between(self, begin: Fraction, end: Fraction) -> tuple[npt.NDArray[Any], Fraction] | None:
        """Return the samples that begin at or after `begin` and end by `end`, and the time of the first one."""
        first = max(ceil((begin - self.start) * self.rate), 0)
        stop = min(floor((end - self.start) * self.rate), self.n)
        kept = [part[max(first - at, 0) : max(stop - at, 0)] for at, part in self.parts]
        if first >= stop or not sum(map(len, kept)):
            return None
        return np.concatenate(kept), self.start + Fraction(first, self.rate)

    def _put(self, samples: npt.NDArray[Any]) -> None:
        if len(samples):
            self.parts.append((self.n, samples))
            self.n += len(samples)


LEAD_S = 3
"""Decoding begins this many seconds before a part after a seek, because packets depend on earlier ones: MP3's bit
reservoir is 30 packets, 2.2 s at 8 kHz.
"""


def read_track(path: Path, begin_s: float, end_s: float, *, seeks: bool = False) -> SoundTrack:
    """Decode the first audio track from `begin_s` to `end_s`, or the part of this interval that it covers.

    FFmpeg applies edit lists, and drops the encoder's priming samples or gives them separate times.

    Args:
        path: Video file.
        begin_s: Start in seconds.
        end_s: End in seconds.
        seeks: Read only this part, from `LEAD_S` before it.

    Raises:
        RejectError: There is no track or no audio in the interval, or the track is damaged or changes its format.
    """
    begin, end = Fraction(begin_s), Fraction(end_s)
    try:
        with open_media(path) as container:
            if not container.streams.audio:
                raise RejectError("open", "has no audio track")
            stream = container.streams.audio[0]
            timeline: _Timeline | None = None
            form: tuple[str, int, int] | None = None
            if seeks:
                container.seek(floor((begin - LEAD_S) * av.time_base), backward=True)
            for frame in container.decode(stream):
                if timeline is None or form is None:
                    form, timeline = sample_format(frame), _begun(frame)
                    if seeks and timeline.start > begin - 1:
                        return read_track(path, begin_s, end_s)
                    check_sound_values(int((end - begin) * timeline.rate) * form[2])
                if sample_format(frame) != form:
                    raise RejectError("decode", f"its audio changes its format from {form} to {sample_format(frame)}")
                timeline.add(frame_samples(frame), _time(frame))
                timeline.forget_before(begin)
                if timeline.start + Fraction(timeline.n, timeline.rate) >= end:
                    break
            codec, name = stream.codec_context.name, container.format.name
    except MediaError as error:
        raise RejectError("open", str(error)) from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RejectError("decode", f"its audio cannot be decoded ({explain(error)})") from error
    found = None if timeline is None else timeline.between(begin, end)
    if timeline is None or form is None or found is None:
        raise RejectError("check", f"has no audio from {begin_s:.3f} to {end_s:.3f} s, the time of its video")
    samples, bits = found[0], 0
    if samples.dtype == np.int32:
        samples, bits = integers(form[0], samples)
    sound = Sound(samples=samples, bits=bits, sample_rate=form[1], codec=codec, container=name)
    return SoundTrack(sound=sound, start_s=float(found[1]), filled_s=timeline.filled / timeline.rate)


def _begun(frame: AudioFrame) -> _Timeline:
    start = _time(frame)
    if start is None:
        raise RejectError("decode", "its audio has no time stamps, so it cannot be aligned with the video")
    return _Timeline(rate=frame.sample_rate, start=start)


def _time(frame: AudioFrame) -> Fraction | None:
    return None if frame.pts is None or frame.time_base is None else Fraction(frame.pts) * frame.time_base
