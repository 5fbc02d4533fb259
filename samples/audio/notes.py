"""Renders single notes of the programs of General MIDI from a SoundFont, with the packages midirenderer and mido (MIT).

Source: MIDI Manufacturers Association, General MIDI System Level 1, 1991: the programs; Standard MIDI Files 1.0, 1996:
the file. The synthesiser is RustySynth: it plays the recordings of a SoundFont 2 file, and nothing in it is random.

They become sounds as those of files do (`NoteEncoder`).
"""

import io
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.audio.encoder import LEVEL, check_sound, encoded_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.package_version import require_version
from maskstream.shards.config import Config

VERSION = "0.1.3"
"""The version of the package, which decides what is rendered."""
RATE = 48_000
"""The rate of the synthesiser in Hz."""
_TICKS_PER_QUARTER, _QUARTER_US = 500, 500_000
"""So that a tick is a millisecond."""
_VOLUME, _REVERB, _CHORUS = 7, 91, 93
"""The numbers of controllers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """A note of a program (0 to 127), at a pitch (0 to 127; 60 is the middle C) and a velocity (1 to 127).

    It is held for `held_ms`, and sounds on for `release_ms`. Raises ValueError for other numbers.
    """

    program: int
    pitch: int
    velocity: int
    held_ms: int = 1000
    release_ms: int = 500

    def __post_init__(self) -> None:
        if not (0 <= self.program <= 127 and 0 <= self.pitch <= 127 and 1 <= self.velocity <= 127):
            raise ValueError(
                "program and pitch must be 0 to 127 and velocity 1 to 127, got "
                f"{self.program}, {self.pitch}, {self.velocity}"
            )
        if self.held_ms < 1 or self.release_ms < 0:
            raise ValueError(
                f"held_ms must be at least 1 and release_ms at least 0, got {self.held_ms}, {self.release_ms}"
            )


def rendered(note: Note, soundfont: Path, sample_rate: int = RATE) -> Sound:
    """The note without reverberation and chorus: float32 (n, 1), the mean of both channels.

    Raises DatasetError if midirenderer is not installed in its `VERSION`, RejectError for a file that
    is not a SoundFont 2 file.
    """
    require_renderer()
    import midirenderer

    try:
        data = midirenderer.render_wave_from(soundfont.read_bytes(), midi_file(note))
    except RuntimeError as error:
        raise RejectError("decode", f"{soundfont.name} cannot be played ({error})") from error
    with wave.open(io.BytesIO(data)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, file.getnchannels())
        rate = file.getframerate()
    mono: npt.NDArray[np.float32] = samples.mean(axis=1, dtype=np.float32) / 32768
    if rate != sample_rate:
        import soxr

        mono = soxr.resample(mono, rate, sample_rate)
    return Sound(samples=mono[:, None], bits=0, sample_rate=sample_rate, codec="midi", container="sf2")


def require_renderer() -> None:
    """Raise DatasetError if midirenderer is not installed in its `VERSION`."""
    require_version("midirenderer", VERSION, work="notes are rendered", extra="notes")


def midi_file(note: Note) -> bytes:
    """A Standard MIDI File of format 0 that plays the note, at full volume, and ends after its release."""
    from mido import Message, MetaMessage, MidiFile, MidiTrack

    track = MidiTrack(
        (
            MetaMessage("set_tempo", tempo=_QUARTER_US),
            *(
                Message("control_change", control=controller, value=value)
                for controller, value in ((_VOLUME, 127), (_REVERB, 0), (_CHORUS, 0))
            ),
            Message("program_change", program=note.program),
            Message("note_on", note=note.pitch, velocity=note.velocity),
            Message("note_off", note=note.pitch, velocity=0, time=note.held_ms),
            MetaMessage("end_of_track", time=note.release_ms),
        )
    )
    found = io.BytesIO()
    MidiFile(type=0, ticks_per_beat=_TICKS_PER_QUARTER, tracks=[track]).save(file=found)
    return found.getvalue()


@dataclass(frozen=True, slots=True)
class NoteEncoder(Config):
    """Renders notes and encodes them as `AudioEncoder` does, in 16 bits and one channel. The file of a source is a
    SoundFont 2, and meta["note"] has the arguments of `Note`. sample_rate: in Hz, 8,000 to 48,000.
    """

    modality: ClassVar[str] = "audio"

    sample_rate: int = 16_000
    level: int = LEVEL

    def __post_init__(self) -> None:
        if not 8_000 <= self.sample_rate <= RATE:
            raise ValueError(f"sample_rate={self.sample_rate} is not in 8000 to {RATE} Hz")

    @property
    def profile(self) -> str:
        """The codec: flac."""
        return "flac"

    def encode(self, source: Source) -> Encoded:
        """Render and encode the note. Raises RejectError if it is silent, or the file is not a SoundFont."""
        sound = rendered(Note(**source.meta["note"]), source.path, self.sample_rate)
        check_sound(sound)
        return encoded_sound(sound, self.level)
