"""The encoder of notes: rendered from a SoundFont, and stored as sounds are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from maskstream.preprocess.encode.audio.encoder import LEVEL, check_sound, encoded_sound
from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.source import Source
from maskstream.shards.config import Config

from .note import RATE, Note, rendered


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
        """Render and encode the note. Raises RejectError if it is silent, or the file is no SoundFont."""
        sound = rendered(Note(**source.meta["note"]), source.path, self.sample_rate)
        check_sound(sound)
        return encoded_sound(sound, self.level)
