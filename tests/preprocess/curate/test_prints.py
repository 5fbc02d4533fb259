"""Changed copies of sounds and texts are found, and nothing else; a thousand leaks are found among ten thousand."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
import soxr

from maskstream.pages.curated import writing_curated
from maskstream.preprocess.curate import curate, measure
from maskstream.preprocess.curate.copies import alike
from maskstream.preprocess.encode.audio.encoder import encode_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.media.sound_packets import decode_whole
from maskstream.shards.members.member import Member
from maskstream.shards.members.text import TEXT, make_text_member

from ...splits import write_samples
from .test_curation import jpeg, pictures_of, scene, write_images

Floats = npt.NDArray[np.float64]
RATE = 16000


def write(out: Path, samples: Sequence[Sample], modality: str) -> Path:
    return write_samples(out, samples, modality, profile="t")


def tune(seed: int, seconds: float = 4.0) -> Floats:
    """Notes of three harmonics that fade, float64 (N,), others for each seed."""
    rng = np.random.default_rng(seed)
    made = np.zeros(round(seconds * RATE))
    for begin in np.cumsum(rng.uniform(0.1, 0.5, 12)):
        first = round(begin * RATE)
        time = np.arange(max(len(made) - first, 0)) / RATE
        pitch = 220 * 2 ** (rng.integers(0, 30) / 12)
        for harmonic in (1, 2, 3):
            made[first:] += np.sin(2 * np.pi * pitch * harmonic * time) * np.exp(-4 * time) * rng.uniform(0.2, 1)
    return 0.3 * made / np.abs(made).max()


def mp3(samples: Floats) -> Floats:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=RATE, layout="mono")
        stream.bit_rate = 32000
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return np.concatenate(list(decode_whole(buffer.getvalue(), "mp3")))[:, 0].astype(np.float64)


def noisy(samples: Floats) -> Floats:
    noise = np.random.default_rng(7).normal(0, 1, len(samples))
    return samples + 0.1 * np.sqrt(np.square(samples).mean()) * noise


SOUNDS: dict[str, Callable[[Floats], Floats]] = {
    "coded again": mp3,
    "with noise": noisy,
    "trimmed": lambda one: one[len(one) // 4 + 333 :],
    "quieter": lambda one: 0.2 * one,
    "higher": lambda one: np.asarray(soxr.resample(one, RATE * 2 ** (1 / 12), RATE)),
    "lower": lambda one: np.asarray(soxr.resample(one, RATE, RATE * 2 ** (1 / 12))),
}


def sounds_of(out: Path, made: dict[str, Floats]) -> Path:
    samples = []
    for key, one in made.items():
        whole = np.round(one * 32767).astype(np.int32)[:, None]
        encoded = encode_sound(Sound(samples=whole, bits=16, sample_rate=RATE, codec="pcm_s16le", container="wav"))
        samples.append(Sample(key=key, members=encoded.members, source=key, sums=encoded.sums))
    return write(out, samples, "audio")


def test_changed_copies_of_sounds_are_found_and_nothing_else(tmp_path: Path) -> None:
    tunes = [tune(seed) for seed in range(12)]
    made = {f"a{n}": one for n, one in enumerate(tunes)} | {"silent": np.zeros(RATE), "short": tunes[0][:300]}
    for at, (name, change) in enumerate(SOUNDS.items()):
        made |= {f"{name.replace(' ', '-')}{n}": change(tunes[n]) for n in (2 * at, 2 * at + 1)}
    found = measure(sounds_of(tmp_path / "split", made))
    keys = found.manifest.keys(found.index)
    first = len(tunes) + 2
    wanted = [[n, first + n] for n in range(12)]
    assert alike(found, found, mirrored=True).tolist() == wanted
    assert alike(found, found).tolist() == wanted[:8]
    assert found.signals["seconds"][keys.index("a0")] == 4
    assert np.isnan(found.signals["sharpness"]).all()
    assert np.diff(found.start)[keys.index("silent")] == 0
    other = measure(sounds_of(tmp_path / "other", {f"b{n}": SOUNDS["lower"](one) for n, one in enumerate(tunes[:3])}))
    for pair in ((found, other), (other, found)):
        places = alike(*pair, mirrored=True).tolist()
        assert {(min(a, b), max(a, b)) for a, b in places} >= {(n, n) for n in range(3)}
        assert not len(alike(*pair))


def passage(seed: int, words: int = 60) -> list[str]:
    rng = np.random.default_rng([9, seed])
    return ["".join(chr(97 + c) for c in rng.integers(0, 26, rng.integers(2, 9))) for _ in range(words)]


TEXTS: dict[str, Callable[[list[str]], str]] = {
    "again": " ".join,
    "case-and-lines": lambda one: "\n  ".join(one).upper() + "!",
    "three-words-changed": lambda one: " ".join("other" if n in (5, 25, 50) else word for n, word in enumerate(one)),
    "cut": lambda one: " ".join(one[:48]),
    "swapped": lambda one: " ".join(one[30:] + one[:30]),
}


def texts_of(out: Path, made: dict[str, str]) -> Path:
    samples = [Sample(key=key, members={"txt": make_text_member(one)}, source=key) for key, one in made.items()]
    return write(out, samples, "text")


def test_copies_and_leaks_of_texts_go_and_the_page_shows_them_as_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> <img src=x onerror=alert(2)> "
    made = {f"a{n}": hostile * (n == 0) + " ".join(passage(n)) for n in range(50)}
    made |= {name: change(passage(10 + n)) for n, (name, change) in enumerate(TEXTS.items())}
    made |= {"longer": made["a0"] + " so", "empty": " .. ", "other-letters": "日本語の文です"}
    split = texts_of(tmp_path / "split", made)
    exam = texts_of(tmp_path / "exam", {"leak": " ".join(passage(30)) + " and more", "new": " ".join(passage(99))})
    found = curate(split, copies=True, best="bytes", against=[exam])
    keys = found.measures.manifest.keys(found.measures.index)
    gone = {keys[one.place]: (one.why, one.of) for one in found.gone}
    of = {frozenset((key, said)) for key, (why, said) in gone.items() if why == "copy"}
    assert of == {frozenset((name, f"a{10 + n}")) for n, name in enumerate(TEXTS)} | {frozenset(("longer", "a0"))}
    assert gone["a30"] == ("leak", f"leak of {exam}")
    assert Manifest.load(split).version == 2
    with writing_curated(found, tmp_path / "page.html"):
        pass
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_leaks_are_of_the_same_medium(tmp_path: Path) -> None:
    sounds = sounds_of(tmp_path / "sounds", {"a": tune(0)})
    texts = texts_of(tmp_path / "texts", {"a": "one text"})
    with pytest.raises(
        ValueError, match=r"contains audio, but .* contains texts: leaks can only be found within one medium"
    ):
        curate(sounds, against=[texts])


def test_a_text_that_is_no_utf8_is_unreadable(tmp_path: Path) -> None:
    bad = Sample(key="bad", members={"txt": Member(kind=TEXT.name, data=b"one \xff")}, source="bad")
    good = Sample(key="good", members={"txt": make_text_member("one text")}, source="good")
    assert curate(write(tmp_path / "split", [bad, good], "text"), copies=True).counts == {"unreadable": 1}


@pytest.mark.slow
def test_a_thousand_leaks_are_found_and_none_is_invented(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    leaked = rng.permutation(11_000)[:1000]
    made = [scene(seed, 72, 96) for seed in range(11_000)]
    split = write_images(tmp_path / "split", [(f"{n:05d}", jpeg(one), one.shape[:2]) for n, one in enumerate(made)])
    changed = [cv2.resize(made[n], (64, 48), interpolation=cv2.INTER_AREA).astype(np.uint8) for n in leaked.tolist()]
    exam = pictures_of(tmp_path / "exam", {f"e{at}": one for at, one in enumerate(changed)}, quality=35)
    found = curate(split, against=[exam], dry_run=True)
    told = {(one.place, one.of.split(" ")[0]) for one in found.gone}
    wanted = {(int(n), f"e{at}") for at, n in enumerate(leaked)}
    assert told == wanted
