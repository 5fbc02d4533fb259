"""Notes of a SoundFont that the test writes: at their pitch, louder at a higher velocity, and of their length."""

from __future__ import annotations

import io
import struct
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from maskstream.preprocess.datasets import Dataset, named_dataset
from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.audio import gm_notes
from maskstream.samples.audio.gm_notes import (
    FAMILIES,
    FILE,
    PACKAGE,
    SHARED,
    VELOCITIES,
    Note,
    render_note,
    render_source,
)
from maskstream.shards.errors import DatasetError

A4 = Note(program=0, pitch=69, velocity=100, held_ms=200, release_ms=100)
TOP = 96
"""The highest pitch that the SoundFont plays."""


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def soundfont(path: Path) -> Path:
    """A SoundFont 2 (its specification, 2.04, sections 5 to 7) whose one program plays a sine in a loop."""
    period, rate = 100, 44_000
    wave = (16_000 * np.sin(2 * np.pi * np.arange(20 * period) / period)).astype("<i2")
    name = struct.pack("20s", b"sine")
    key_range, instrument, sample, modes = 43, 41, 53, 54
    pitch = struct.pack("<Bb", 69, 0)  # 440 Hz
    hydra = {
        b"phdr": b"".join(name + struct.pack("<HHHIII", 0, 0, bag, 0, 0, 0) for bag in (0, 1)),
        b"pbag": struct.pack("<4H", 0, 0, 1, 0),
        b"pmod": bytes(10),
        b"pgen": struct.pack("<4H", instrument, 0, 0, 0),
        b"inst": b"".join(name + struct.pack("<H", bag) for bag in (0, 1)),
        b"ibag": struct.pack("<4H", 0, 0, 3, 0),
        b"imod": bytes(10),
        b"igen": struct.pack("<HBBHHHHHH", key_range, 0, TOP, modes, 1, sample, 0, 0, 0),
        b"shdr": name
        + struct.pack("<IIIII", 0, len(wave), 5 * period, 15 * period, rate)
        + pitch
        + struct.pack("<HH", 0, 1)
        + bytes(46),
    }
    info = chunk(b"ifil", struct.pack("<HH", 2, 4)) + chunk(b"isng", b"EMU8000\0") + chunk(b"INAM", b"sine\0\0")
    lists = (
        b"INFO" + info,
        b"sdta" + chunk(b"smpl", wave.tobytes() + bytes(92)),
        b"pdta" + b"".join(chunk(kind, data) for kind, data in hydra.items()),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(chunk(b"RIFF", b"sfbk" + b"".join(chunk(b"LIST", one) for one in lists)))
    return path


@pytest.fixture(scope="module")
def sine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return soundfont(tmp_path_factory.mktemp("sine") / "sine.sf2")


def hertz(samples: np.ndarray, rate: int) -> float:
    """The frequency of the strongest partial."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    return float(spectrum.argmax() * rate / (8 * len(samples)))


@pytest.mark.parametrize("pitch", [45, 60, 69, 84])
def test_a_note_has_the_frequency_of_its_pitch(sine: Path, pitch: int) -> None:
    sound = render_note(replace(A4, pitch=pitch), sine)
    assert sound.samples.shape == (14_400, 1)
    assert sound.samples.dtype == np.float32
    held = sound.samples[1000:8000, 0]
    assert hertz(held, 48_000) == pytest.approx(440 * 2 ** ((pitch - 69) / 12), rel=5e-3)


def test_a_note_is_louder_at_a_higher_velocity_and_ends_after_its_release(sine: Path) -> None:
    soft, loud = (render_note(replace(A4, velocity=velocity), sine).samples for velocity in (40, 120))
    assert np.abs(loud).max() > 3 * np.abs(soft).max() > 0
    assert np.abs(loud[11_000:]).max() < 0.05 * np.abs(loud[1000:9000]).max()
    longer = render_note(replace(A4, velocity=120, held_ms=400), sine).samples
    assert len(longer) - len(loud) == 9600
    np.testing.assert_array_equal(longer[:9000], loud[:9000])


def source(path: Path, note: Note) -> Source:
    return Source(id="a", path=path, meta={"note": asdict(note)}, made_by=render_source)


def test_a_sample_is_the_note_at_16_khz(sine: Path) -> None:
    encoded = AudioEncoder().encode(source(sine, A4))
    assert (encoded.meta["sample_rate"], encoded.meta["channels"], encoded.meta["bits"]) == (16_000, 1, 16)
    samples, rate = soundfile.read(io.BytesIO(encoded.members["flac"].data))
    assert (len(samples), rate) == (4800, 16_000)
    assert hertz(samples[400:3000], rate) == pytest.approx(440, rel=5e-3)
    assert AudioEncoder().encode(source(sine, A4)).members["flac"].data == encoded.members["flac"].data


def test_a_silent_note_and_a_file_that_is_no_soundfont_are_rejects(sine: Path, tmp_path: Path) -> None:
    with pytest.raises(RejectError, match="is silent"):
        AudioEncoder().encode(source(sine, replace(A4, pitch=TOP + 1)))
    (tmp_path / "cut.sf2").write_bytes(sine.read_bytes()[:2000])
    with pytest.raises(RejectError, match=r"cut\.sf2 cannot be played"):
        AudioEncoder().encode(source(tmp_path / "cut.sf2", A4))


# --- the dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("gm-notes")
    soundfont(found / PACKAGE / FILE)
    return found


@pytest.fixture(scope="module")
def dataset(root: Path) -> Dataset:
    return named_dataset("gm-notes")(root)


def programs(dataset: Dataset) -> dict[str, set[int]]:
    """The programs of each split."""
    return {split: {source.meta["note"]["program"] for source in sources} for split, sources in dataset.splits.items()}


def test_without_the_package_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gm_notes, "VERSION", "99.0")
    with pytest.raises(DatasetError, match=r"midirenderer 99\.0, .* is installed: pip install 'maskstream\[notes\]'"):
        named_dataset("gm-notes")(tmp_path)


def test_every_family_is_in_both_splits_and_no_instrument_or_recording_is(dataset: Dataset) -> None:
    assert {split: len(sources) for split, sources in dataset.splits.items()} == {"train": 3000, "val": 1000}
    for sources in dataset.splits.values():
        assert {source.label for source in sources} == set(range(10))
    found = programs(dataset)
    assert found["train"] | found["val"] == set(range(80))
    assert not found["train"] & found["val"]
    for group in SHARED:
        assert len([split for split, own in found.items() if own & set(group)]) == 1, group


def test_no_two_notes_are_the_same(dataset: Dataset) -> None:
    every = [source for sources in dataset.splits.values() for source in sources]
    assert len({source.id for source in every}) == 4000
    notes = {Note(**source.meta["note"]) for source in every}
    assert len(notes) == 4000
    assert {note.velocity for note in notes} == set(VELOCITIES)
    for source in every:
        lowest, highest = FAMILIES[dataset.label_names[source.label]]
        assert lowest <= source.meta["note"]["pitch"] <= highest
        assert source.meta["note"]["program"] // 8 == source.label


def test_the_same_notes_can_be_labelled_by_pitch(dataset: Dataset, root: Path) -> None:
    by_pitch = named_dataset("gm-notes")(root, pitch=True)
    for split, sources in dataset.splits.items():
        own = by_pitch.splits[split]
        assert [replace(source, label=0) for source in own] == [replace(source, label=0) for source in sources]
        assert all(by_pitch.label_names[source.label] == str(source.meta["note"]["pitch"]) for source in own)
    assert {source.label for source in by_pitch.splits["train"]} == set(range(69))


def recordings(data: bytes) -> list[set[str]]:
    """The names of the recordings of each program of a SoundFont 2 (its specification, 2.04, section 7), without the
    side of a stereo pair.
    """
    table = {}
    at = data.index(b"pdta") + 4
    while at < len(data):
        kind, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        table[kind] = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    instrument, sample = 41, 53

    def values(first: int, stop: int, bags: bytes, entries: bytes, wanted: int) -> list[int]:
        """What the generator `wanted` says in the bags from `first` on."""
        begin, end = (struct.unpack_from("<H", bags, 4 * bag)[0] for bag in (first, stop))
        found = (struct.unpack_from("<HH", entries, 4 * n) for n in range(begin, end))
        return [amount for kind, amount in found if kind == wanted]

    def bag(kind: bytes, number: int, size: int, offset: int) -> int:
        return int(struct.unpack_from("<H", table[kind], number * size + offset)[0])

    names = [table[b"shdr"][n : n + 20].split(b"\0")[0].decode() for n in range(0, len(table[b"shdr"]), 46)]
    programs: list[set[str]] = [set() for _ in range(128)]
    for preset in range(len(table[b"phdr"]) // 38 - 1):
        program, bank = struct.unpack_from("<HH", table[b"phdr"], preset * 38 + 20)
        if bank == 0:
            own = (bag(b"phdr", preset + n, 38, 24) for n in (0, 1))
            for one in values(*own, table[b"pbag"], table[b"pgen"], instrument):
                bags = (bag(b"inst", one + n, 22, 20) for n in (0, 1))
                played = values(*bags, table[b"ibag"], table[b"igen"], sample)
                programs[program] |= {names[number].rstrip("LR-_ ()") for number in played}
    return programs


@pytest.mark.slow
def test_the_real_soundfont_shares_what_the_dataset_says_and_no_note_is_silent(tmp_path: Path) -> None:
    found = named_dataset("gm-notes")(tmp_path)
    every = [source for sources in found.splits.values() for source in sources]
    played = recordings(every[0].path.read_bytes())[:80]
    assert all(played)
    group = {program: own for own in SHARED for program in own}
    for a in range(80):
        for b in range(a):
            assert not played[a] & played[b] or b in group.get(a, ()), (b, a, played[a] & played[b])
    last = {Note(**source.meta["note"]).program: source for source in every}  # a program's highest note
    for program, source in last.items():
        sound = render_note(replace(Note(**source.meta["note"]), velocity=VELOCITIES[0]), source.path)
        assert np.abs(sound.samples).max() > 5e-4, program
