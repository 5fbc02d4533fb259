"""Notes of 80 instruments, rendered while the shards are written: the programs 0 to 79 of General MIDI.

The label is the family, ten of eight programs each, or the pitch. No instrument is in both splits, nor is any recording
that two instruments share, so the validation instruments are new to a model. A note is held for 1 s of 1.5 s, at 16
kHz, at one of NSynth's five velocities.

The SoundFont is downloaded as Debian's timgm6mb-soundfont (5.4 MB, GPL-2). A copy of the file may be put at
ROOT/timgm6mb-soundfont/TimGM6mb.sf2. Rendering needs `pip install 'maskstream[notes]'`: the packages midirenderer and
mido (MIT). The synthesiser is RustySynth: it plays the recordings of a SoundFont 2 file, without any randomness.

The notes follow NSynth (Engel et al., Neural Audio Synthesis of Musical Notes with WaveNet Autoencoders, ICML 2017,
section 3), whose pitches HEAR uses (Turian et al., HEAR: Holistic Evaluation of Audio Representations, 2022).

Source: MIDI Manufacturers Association, General MIDI System Level 1, 1991: the programs; Standard MIDI Files 1.0, 1996:
the file.
"""

import io
import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import xxhash

from maskstream.preprocess.datasets.dataset import Dataset, choose_held_out_groups
from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.debian import fetch_debian_folder
from maskstream.samples.packages import require_version
from maskstream.shards.arrays import Float32s
from maskstream.shards.errors import DatasetError

NAME = "gm-notes"
PACKAGE, INSIDE, FILE = "timgm6mb-soundfont", "usr/share/sounds/sf2", "TimGM6mb.sf2"
FAMILIES = {
    "piano": (28, 96),
    "chromatic percussion": (53, 96),
    "organ": (36, 84),
    "guitar": (40, 84),
    "bass": (28, 60),
    "strings": (36, 88),
    "ensemble": (40, 84),
    "brass": (36, 82),
    "reed": (44, 84),
    "pipe": (60, 96),
}
"""Families in the order of General MIDI, with the lowest and the highest pitch of their notes.

Later families are left out: synthesisers reuse a few recordings for them, and ethnic instruments, percussion and sound
effects are too diverse within their family.
"""
PROGRAMS = 8
"""Programs of a family."""
HIGHEST = {67: 79, 78: 78}
"""Highest pitch of programs that are silent above it."""
SHARED = (
    *((0, 1, 2, 3), (7, 27, 28), (15, 24, 25), (16, 19), (17, 18), (20, 21, 22, 23), (29, 30), (31, 34), (33, 35, 39)),
    *((40, 41), (42, 43), (44, 48, 49), (53, 54), (57, 58, 59, 60), (61, 62, 63), (72, 74), (75, 76)),
)
"""Programs of the SoundFont that share recordings."""
VELOCITIES = (25, 50, 75, 100, 127)
NOTES = 50
"""Number of notes of each program, no two of the same pitch and velocity."""
HELD_OUT = 0.25
VERSION = "0.1.3"
"""Version of the package, which determines the rendered audio."""
RATE = 48_000
"""Sample rate of the synthesiser in Hz."""
SAMPLE_RATE = 16_000
"""Sample rate of the stored audio in Hz."""
_TICKS_PER_QUARTER, _QUARTER_US = 500, 500_000
"""Chosen so that a tick is a millisecond."""
_VOLUME, _REVERB, _CHORUS = 7, 91, 93
"""Numbers of controllers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """A note of a program (0 to 127), with a pitch (0 to 127; 60 is middle C) and a velocity (1 to 127).

    It is held for `held_ms`, followed by a release of `release_ms`.
    """

    program: int
    pitch: int
    velocity: int
    held_ms: int = 1000
    release_ms: int = 500


def render_note(note: Note, soundfont: Path, sample_rate: int = RATE) -> Sound:
    """Render the note without reverberation and chorus: float32 (n, 1), the mean of both channels.

    Raises DatasetError if midirenderer is not installed in its `VERSION`, RejectError for a file that
    is not a SoundFont 2 file.
    """
    require_renderer()
    import midirenderer

    try:
        data = midirenderer.render_wave_from(soundfont.read_bytes(), encode_midi_file(note))
    except RuntimeError as error:
        raise RejectError("decode", f"{soundfont.name} cannot be played ({error})") from error
    with wave.open(io.BytesIO(data)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, file.getnchannels())
        rate = file.getframerate()
    mono: Float32s = samples.mean(axis=1, dtype=np.float32) / 32768
    if rate != sample_rate:
        import soxr

        mono = soxr.resample(mono, rate, sample_rate)
    return Sound(samples=mono[:, None], bits=0, sample_rate=sample_rate, codec="midi", container="sf2")


def require_renderer() -> None:
    """Raise DatasetError if midirenderer is not installed in its `VERSION`."""
    require_version("midirenderer", VERSION, work="notes are rendered", extra="notes")


def encode_midi_file(note: Note) -> bytes:
    """Return a Standard MIDI File of format 0 that plays the note, at full volume, and ends after its release."""
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


def gm_notes(root: Path, *, pitch: bool = False) -> Dataset:
    """Read 3,000 notes of 60 programs for train and 1,000 of 20 for val. The SoundFont is downloaded into `root`. With
    `pitch`, the labels are the 69 pitches instead of the families. Raises DatasetError if the download fails or
    midirenderer is not installed.
    """
    require_renderer()
    path = fetch_debian_folder(PACKAGE, INSIDE, root) / FILE
    if not path.is_file():
        raise DatasetError(f"{NAME}: {path.parent} has no {FILE}; remove it to download it again")
    programs = [
        (label, program)
        for label in range(len(FAMILIES))
        for program in range(label * PROGRAMS, (label + 1) * PROGRAMS)
    ]
    val = choose_held_out_groups(((label, find_shared_program(program)) for label, program in programs), HELD_OUT)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for label, program in programs:
        splits["val" if find_shared_program(program) in val else "train"] += _sources(label, program, path)
    if not pitch:
        return Dataset(name=NAME, label_names=tuple(FAMILIES), splits=splits, encoder=AudioEncoder())
    pitches = range(min(low for low, _ in FAMILIES.values()), max(high for _, high in FAMILIES.values()) + 1)
    splits = {
        split: [replace(source, label=pitches.index(source.meta["note"]["pitch"])) for source in sources]
        for split, sources in splits.items()
    }
    return Dataset(name=f"{NAME}-pitch", label_names=tuple(map(str, pitches)), splits=splits, encoder=AudioEncoder())


def find_shared_program(program: int) -> str:
    """Return the first of the programs that share recordings with this one."""
    return str(next((group[0] for group in SHARED if program in group), program))


def _sources(label: int, program: int, path: Path) -> Iterator[Source]:
    """Return the notes of a program, from low to high. The hash of a note's name decides whether it is included."""
    family, (lowest, highest) = list(FAMILIES.items())[label]
    pitches = range(lowest, min(highest, HIGHEST.get(program, highest)) + 1)
    notes = {
        f"{family}/{program:03d}/{pitch:03d}-{velocity:03d}": Note(program=program, pitch=pitch, velocity=velocity)
        for pitch in pitches
        for velocity in VELOCITIES
    }
    for name in sorted(sorted(notes, key=_hash)[:NOTES]):
        meta = {"note": asdict(notes[name])}
        yield Source(id=name, path=path, label=label, meta=meta, made_by=render_source)


def render_source(source: Source) -> Sound:
    """Return the note of a source, whose file is a SoundFont 2, at 16 kHz."""
    return render_note(Note(**source.meta["note"]), source.path, SAMPLE_RATE)


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{NAME}/{name}".encode())
