"""A split of sounds in tars that others wrote is one like any other: loaded, resumed, verified, inspected."""

import io
import json
import shutil

import numpy as np
import pytest
import soundfile as sf

from maskstream.pipelines import AudioClip, audio_loader, masks
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.preprocess import index_tars
from maskstream.preprocess.encode.audio.encoder import encode_sound
from maskstream.preprocess.encode.audio.sound import read_sound
from maskstream.preprocess.foreign.tar_file import TarFile
from maskstream.preprocess.foreign.task import choose_indexer
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.format.verify import verify

from ...damaged_files import flip
from ...pipelines.recording import check_what_is_read, recorded
from ...splits import write_samples
from ..encode.sounds import wave, write_sound
from .foreign_tars import rejects, write_tar

FORMS = [("wav", 16000), ("flac", 44100), ("mp3", 44100), ("ogg", 16000), ("wav", 48000), ("mp3", 22050)]


def sound_bytes(folder, ending, rate, seed, seconds=2.0):
    path = folder / f"{seed}.{ending}"
    samples = wave(int(rate * seconds), 1 + seed % 2, seed=seed)
    if ending == "mp3":
        data = write_sound(path, samples, rate, "libmp3lame", options={"b": "64000"})
    else:
        sf.write(path, samples, rate, subtype="VORBIS" if ending == "ogg" else "PCM_16")
        data = path.read_bytes()
    path.unlink()
    return data


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Ending and bytes of six sounds."""
    folder = tmp_path_factory.mktemp("sounds")
    return [(ending, sound_bytes(folder, ending, rate, seed)) for seed, (ending, rate) in enumerate(FORMS)]


@pytest.fixture(scope="module")
def split(sounds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    for tar in (0, 1):
        members = []
        for n in range(tar, len(sounds), 2):
            ending, data = sounds[n]
            members += [(f"clips/s{n}.{ending}", data), (f"clips/s{n}.json", json.dumps({"label": n}).encode())]
        write_tar(folder / f"x-{tar}.tar", members)
    report = index_tars([folder], workers=0)
    assert (report.samples, report.rejects) == (6, {})
    return folder


@pytest.fixture(scope="module")
def ours(sounds, tmp_path_factory):
    """The same sounds as maskstream writes them, under the same keys."""
    out = tmp_path_factory.mktemp("ours")
    samples = []
    for n in [0, 2, 4, 1, 3, 5]:
        made = encode_sound(read_sound(sounds[n][1]))
        samples.append(Sample(key=f"clips/s{n}", members=made.members, source=f"{n}", label=n, sums=made.sums))
    return write_samples(out, samples, "audio", dataset="a", profile="flac")


def loader(folder, **changes):
    settings = {"clip": AudioClip(seconds=1.28), "batch_size": 2, "threads": 1, "seed": 3, "device": "cpu"}
    return audio_loader(folder, **(settings | changes))


def test_a_request_names_all_that_is_read(split):
    opened, store = recorded(split, "audio")
    sampler = AudioData(clip=AudioClip(seconds=0.32), statistics=(-6.0, 4.0)).sampler(opened)
    check_what_is_read(sampler, store, len(opened.manifest))


def test_batches_are_those_of_our_own_shards(split, ours):
    """Up to the 16 bits in which those keep what MP3 and Vorbis decode to."""
    statistics = (-6.0, 4.0)
    made = [
        {
            key: (batch.waveform[i], batch.length[i], batch.label[i])
            for batch in loader(folder, statistics=statistics)
            for i, key in enumerate(batch.key)
        }
        for folder in (split, ours)
    ]
    assert made[0].keys() == made[1].keys()
    assert len(made[0]) == 6
    for key, (waveform, length, label) in made[0].items():
        theirs = made[1][key]
        assert (length, label) == (theirs[1], theirs[2])
        exact = FORMS[int(key[-1])][0] in ("wav", "flac")
        assert (waveform - theirs[0]).abs().max() <= (0 if exact else 2.0**-15), key


def test_the_filterbank_is_normalised_by_sums_like_those_of_our_own_shards(split, ours):
    got, wanted = (np.array(Manifest.load(folder).info["sums"]["fbank"]) for folder in (split, ours))
    assert got[0] == wanted[0]
    assert np.allclose(got, wanted, rtol=1e-3)
    batch = next(iter(loader(split, batch_size=6)))
    assert abs(float(batch.spectrogram.mean())) < 0.2


def test_the_loader_resumes_exactly(split):
    def make():
        return loader(split, mask=masks.Random(ratio=0.5))

    whole = list(make())
    stopped = make()
    batches = iter(stopped)
    next(batches)
    resumed = make()
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    rest = list(resumed)
    assert [batch.key for batch in rest] == [batch.key for batch in whole[1:]]
    for got, wanted in zip(rest, whole[1:], strict=True):
        assert np.array_equal(got.waveform.numpy(), wanted.waveform.numpy())
        assert np.array_equal(got.mask.masked.numpy(), wanted.mask.masked.numpy())


def test_inspect_and_verify(split):
    report = verify(split, decode=True)
    assert (report.problems, report.samples) == ([], 6)
    found = inspect(split)
    assert (found["modality"], found["profile"], found["counts"]["samples"]) == ("audio", "foreign", 6)
    assert found["sound"]["sound"]["hours"] == pytest.approx(12 / 3600, rel=0.05)
    assert found["sound"]["sound"]["sample_rate"] == {"16000": 2, "44100": 2, "22050": 1, "48000": 1}
    assert "sound_table" not in found["facts"]


def test_the_index_is_the_same_at_any_number_of_workers(split, tmp_path):
    for number in (0, 2):
        index_tars(sorted(split.glob("*.tar")), tmp_path / f"{number}" / "index", workers=number)
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / n / "index").rglob("*") if p.is_file()} for n in ("0", "2")
    )
    assert one == two
    assert verify(tmp_path / "0/index").ok


@pytest.mark.parametrize("suffix", [".tar", ".packets", ".idx"])
def test_verify_notices_what_changed_after_indexing(split, tmp_path, suffix):
    folder = tmp_path / "copy"
    shutil.copytree(split, folder)
    path = folder / f"x-1{suffix}"
    flip(path)
    assert any(problem.startswith("x-1.tar: ") for problem in verify(folder).problems)
    path.unlink()
    assert any("cannot be read" in one or "is missing" in one for one in verify(folder).problems)


def test_a_table_that_is_damaged_makes_bad_samples_and_nothing_else(split, tmp_path):
    rng = np.random.default_rng(0)
    for turn in range(8):
        folder = tmp_path / f"{turn}"
        shutil.copytree(split, folder)
        path = folder / "x-1.packets"
        data = bytearray(path.read_bytes())
        for at in rng.integers(0, len(data), 300).tolist():
            data[at] = int(rng.integers(256))
        path.write_bytes(data[: len(data) // 2] if turn == 7 else data)
        damaged = loader(folder, batch_size=1, shuffle=False, max_bad_fraction=1.0)
        assert len(list(damaged)) == 6
        assert turn < 7 or damaged.stats()["bad"] > 0
        assert verify(folder, decode=True).problems


def bad_members(good):
    """Key, name and bytes, and what the reject says."""
    samples = wave(8000, 1)
    nan = samples.copy()
    nan[17] = np.nan
    yield "nan", "wav", written(nan, "FLOAT"), "1 of its samples are not finite"
    yield "empty", "wav", b"", "is empty"
    yield "none", "wav", written(samples[:0]), "empty"
    yield "text", "wav", b"no sound at all" * 20, "begins with b'no sound', so it is not wav"
    yield "words", "mp3", b"no sound at all" * 20, ""
    yield "cut", "wav", written(samples)[:9000], "truncated"
    yield "cutmp3", "mp3", good["mp3"][: len(good["mp3"]) // 2], "truncated"
    yield "cutogg", "ogg", good["ogg"][: len(good["ogg"]) // 2], "truncated"
    yield "cutflac", "flac", good["flac"][: len(good["flac"]) // 2], "is damaged after"
    yield "silent", "wav", written(samples * 0), "is silent"
    yield "constant", "wav", written(samples * 0 + 0.25), "is silent"
    yield "short", "flac", written(samples[:300], form="FLAC"), "at least 0.025 s"
    yield "nine", "wav", written(wave(8000, 9)), "9 channels"
    yield "riff", "wav", b"RIFF" + bytes(4) + b"WAVEfmt ", "cannot be opened"


def written(samples, subtype="PCM_16", form="WAV"):
    buffer = io.BytesIO()
    sf.write(buffer, samples, 16000, subtype=subtype, format=form)
    return buffer.getvalue()


def test_rejects_name_what_is_wrong(sounds, tmp_path):
    good = dict(sounds)
    bad = list(bad_members(good))
    members = [("good.wav", good["wav"]), ("good.cls", b"dog"), ("other.txt", b"no sound")]
    members += [(f"{key}.{ending}", data) for key, ending, data, _ in bad]
    members += [("label.wav", good["wav"]), ("label.json", b"{"), ("named.wav", good["mp3"])]
    write_tar(tmp_path / "x.tar", members)
    report = index_tars([tmp_path], workers=0)
    manifest, found = Manifest.load(tmp_path), rejects(tmp_path)
    assert manifest.keys(range(report.samples)) == ["good", "named"]  # an mp3 that is called wav is one
    assert manifest.info["label_names"] == ["dog"]
    expected = {f"x.tar:{key}": says for key, _, _, says in bad}
    expected |= {"x.tar:label": "json is damaged", "x.tar:other": "has no sound (none of flac, wav"}
    assert found.keys() == expected.keys()
    assert {s: found[s] for s, words in expected.items() if words not in found[s]} == {}
    assert verify(tmp_path, decode=True).problems == []


def test_what_a_sample_holds_several_of_must_be_said(sounds, tmp_path):
    video = b"no real video"
    data = dict(sounds)["wav"]
    path = write_tar(tmp_path / "x.tar", [("a.txt", b"x"), ("b.mp4", video), ("b.wav", data), ("c.wav", data)])
    with pytest.raises(ValueError, match=r"contains mp4, wav\. Choose --modality video or --modality audio"):
        index_tars([path], workers=0)
    assert index_tars([path], as_is=True, modality="audio", workers=0).samples == 2
    manifest = Manifest.load(tmp_path)
    assert set(manifest.components) == {"mp4", "sound"}
    assert (manifest.info["modality"], manifest.components["mp4"].kind) == ("audio", "bytes")
    assert verify(tmp_path, decode=True).problems == []
    with pytest.raises(DatasetError, match="contain no usable video"):
        index_tars([path], modality="video", workers=0)
    with pytest.raises(ValueError, match="'sound' cannot be indexed; use one of video, audio"):
        choose_indexer([TarFile(path)], "sound")
    only = write_tar(tmp_path / "y.tar", [("a.json", b"{}"), ("b.mkv", video)])
    assert choose_indexer([TarFile(only), TarFile(path)], None).name == "video"


@pytest.mark.parametrize("component", ["points.npy", "npy", "ply", "laz", "obj"])
def test_clouds_and_meshes_are_refused_with_the_way_to_shards(tmp_path, component):
    path = write_tar(tmp_path / "x.tar", [(f"a.{component}", bytes(200)), ("a.json", b"{}")])
    with pytest.raises(ValueError, match=rf"contains {component}, .*maskstream shards points-folder"):
        index_tars([path], workers=0)
