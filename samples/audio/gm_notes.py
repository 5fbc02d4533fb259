"""Notes of 80 instruments, rendered while the shards are written: the programs 0 to 79 of General MIDI.

The label is the family, ten of eight programs each, or the pitch. No instrument is in both splits, nor any recording
that two instruments share, so a model meets the validation instruments for the first time. A note is held for 1 s of
1.5 s, at 16 kHz, at one of NSynth's five velocities.

The SoundFont is downloaded as Debian's timgm6mb-soundfont (5.4 MB, GPL-2). A copy of the file may be put at
ROOT/timgm6mb-soundfont/TimGM6mb.sf2. Rendering needs `pip install 'maskstream[notes]'`.

The manner is that of NSynth (Engel et al., Neural Audio Synthesis of Musical Notes with WaveNet Autoencoders, ICML
2017, section 3), whose pitches HEAR asks for (Turian et al., HEAR: Holistic Evaluation of Audio Representations, 2022).
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import xxhash

from maskstream.preprocess.datasets.dataset import Dataset, held_out_groups
from maskstream.preprocess.source import Source
from maskstream.samples.debian import debian_folder
from maskstream.shards.errors import DatasetError

from .notes import Note, NoteEncoder, require_renderer

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
"""The families in the order of General MIDI, with the lowest and the highest pitch of their notes.

Those that follow are left out: the synthesisers play a few recordings in common, and ethnic instruments, percussion and
sound effects do not sound alike within their family.
"""
PROGRAMS = 8
"""The programs of a family."""
HIGHEST = {67: 79, 78: 78}
"""The highest pitch of programs that are silent above it."""
SHARED = (
    *((0, 1, 2, 3), (7, 27, 28), (15, 24, 25), (16, 19), (17, 18), (20, 21, 22, 23), (29, 30), (31, 34), (33, 35, 39)),
    *((40, 41), (42, 43), (44, 48, 49), (53, 54), (57, 58, 59, 60), (61, 62, 63), (72, 74), (75, 76)),
)
"""The programs of the SoundFont that share recordings."""
VELOCITIES = (25, 50, 75, 100, 127)
NOTES = 50
"""The notes of each program, no two of the same pitch and velocity."""
HELD_OUT = 0.25


def gm_notes(root: Path, *, pitch: bool = False) -> Dataset:
    """3,000 notes of 60 programs for train and 1,000 of 20 for val. The SoundFont is downloaded into `root`. With
    `pitch`, the labels are the 69 pitches instead of the families.
    Raises DatasetError if the download fails or midirenderer is not installed.
    """
    require_renderer()
    path = debian_folder(PACKAGE, INSIDE, root) / FILE
    if not path.is_file():
        raise DatasetError(f"{NAME}: {path.parent} has no {FILE}; remove it to download it again")
    programs = [(label, program) for label in range(len(FAMILIES)) for program in family_programs(label)]
    val = held_out_groups(((label, shared_program(program)) for label, program in programs), HELD_OUT)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for label, program in programs:
        splits["val" if shared_program(program) in val else "train"] += _sources(label, program, path)
    if not pitch:
        return Dataset(name=NAME, label_names=tuple(FAMILIES), splits=splits, encoder=NoteEncoder())
    pitches = range(min(low for low, _ in FAMILIES.values()), max(high for _, high in FAMILIES.values()) + 1)
    splits = {
        split: [replace(source, label=pitches.index(source.meta["note"]["pitch"])) for source in sources]
        for split, sources in splits.items()
    }
    return Dataset(name=f"{NAME}-pitch", label_names=tuple(map(str, pitches)), splits=splits, encoder=NoteEncoder())


def family_programs(label: int) -> range:
    """The programs of a family."""
    return range(label * PROGRAMS, (label + 1) * PROGRAMS)


def shared_program(program: int) -> str:
    """The first of the programs that share recordings with this one."""
    return str(next((group[0] for group in SHARED if program in group), program))


def _sources(label: int, program: int, path: Path) -> Iterator[Source]:
    """The notes of a program, from low to high. The hash of a note's name decides whether it is one of them."""
    family, (lowest, highest) = list(FAMILIES.items())[label]
    pitches = range(lowest, min(highest, HIGHEST.get(program, highest)) + 1)
    notes = {
        f"{family}/{program:03d}/{pitch:03d}-{velocity:03d}": Note(program=program, pitch=pitch, velocity=velocity)
        for pitch in pitches
        for velocity in VELOCITIES
    }
    for name in sorted(sorted(notes, key=_hash)[:NOTES]):
        yield Source(id=name, path=path, label=label, meta={"note": asdict(notes[name])})


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{NAME}/{name}".encode())
