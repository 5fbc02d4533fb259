"""Sounds of every form to FLAC members: nothing is clipped or lost, and what cannot be used is a reject."""

import io
import json
from itertools import product

import av
import numpy as np
import pytest
import soundfile as sf

from maskstream.preprocess import PROFILES
from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.job.shards import make_shards
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.media.flac import parse_flac_header


def wave(n, channels=1, seed=0, peak=0.8):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, channels)).cumsum(0)
    x -= x.mean(0)
    return x / np.abs(x).max() * peak


def encoded(path, **source):
    return AudioEncoder().encode(Source(id=path.name, path=path, **source))


def decoded(data):
    return sf.read(io.BytesIO(data), dtype="float64", always_2d=True)


@pytest.mark.parametrize(
    ("subtype", "bits"), [("PCM_U8", 16), ("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 24), ("FLOAT", 24), ("DOUBLE", 24)]
)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (96000, 6)])
def test_samples_survive_at_any_depth_rate_and_channels(tmp_path, subtype, bits, rate, channels):
    path = tmp_path / "a.wav"
    sf.write(path, wave(rate // 4 + 13, channels), rate, subtype=subtype)
    made = encoded(path)
    samples, got_rate = decoded(made.members["flac"].data)
    truth, _ = sf.read(path, dtype="float64", always_2d=True)
    assert got_rate == rate
    assert samples.shape == truth.shape
    assert parse_flac_header(made.members["flac"].data).bits == bits
    error = np.abs(samples - truth).max()
    assert error == 0 if subtype in ("PCM_U8", "PCM_16", "PCM_24") else error < 2.0**-22
    assert {k: made.members["flac"].facts[k] for k in ("sample_rate", "channels", "n_samples")} == {
        "sample_rate": rate,
        "channels": channels,
        "n_samples": len(truth),
    }
    again, member = encoded(path), made.members["flac"]
    assert again.members["flac"].data == member.data, "the same source gives the same bytes"
    assert (again.meta, again.sums, again.members["flac"].facts) == (made.meta, made.sums, member.facts)


def test_what_is_louder_than_full_scale_is_not_clipped(tmp_path):
    sf.write(tmp_path / "a.wav", wave(8000, 2, peak=3.5), 16000, subtype="FLOAT")
    made = encoded(tmp_path / "a.wav")
    truth, _ = sf.read(tmp_path / "a.wav", always_2d=True)
    samples, _ = decoded(made.members["flac"].data)
    assert made.members["flac"].facts["gain"] == pytest.approx(3.5, rel=1e-6)
    assert np.abs(samples * made.members["flac"].facts["gain"] - truth).max() < 1e-6
    assert made.meta["peak"] == pytest.approx(3.5, rel=1e-6)
    quiet = wave(8000, peak=0.4)
    clipped = np.clip(quiet * 4, -1, 1)
    sf.write(tmp_path / "clipped.wav", clipped, 16000, subtype="PCM_16")
    share = encoded(tmp_path / "clipped.wav").meta["at_full_scale"]
    assert share == pytest.approx((np.abs(clipped) == 1).mean(), abs=0.01)
    assert share > 0.05


def test_windows_in_milliseconds_and_lossy_codecs(tmp_path):
    x = wave(48000, 1)
    sf.write(tmp_path / "a.ogg", x, 16000)
    made = encoded(tmp_path / "a.ogg", window=(500, 1750))
    assert made.members["flac"].facts["n_samples"] == 1250 * 16
    assert parse_flac_header(made.members["flac"].data).bits == 16
    assert made.meta["original"]["codec"] == "vorbis"
    whole, _ = decoded(encoded(tmp_path / "a.ogg").members["flac"].data)
    np.testing.assert_array_equal(decoded(made.members["flac"].data)[0], whole[8000:28000])


def bad(tmp_path):
    """Name, how it is written, and what the reject says."""
    good = wave(8000)
    nan = good.copy()
    nan[17] = np.nan
    yield "nan.wav", lambda p: sf.write(p, nan, 16000, subtype="FLOAT"), "check: 1 of its samples are not finite"
    yield "loud.wav", lambda p: sf.write(p, good * 1e30, 16000, subtype="FLOAT"), "its filterbank is not finite"
    yield "infinite.wav", lambda p: sf.write(p, good / 0.0, 16000, subtype="DOUBLE"), "not finite"
    yield "empty.wav", lambda p: sf.write(p, good[:0], 16000), "empty"
    yield "one.wav", lambda p: sf.write(p, good[:1], 16000), "check: has 1 samples"
    yield "short.wav", lambda p: sf.write(p, good[:399], 16000), "at least 0.025 s"
    yield "silent.wav", lambda p: sf.write(p, good * 0, 16000), "silent"
    yield "offset.wav", lambda p: sf.write(p, good * 0 + 0.5, 16000), "silent"
    yield "nine.wav", lambda p: sf.write(p, wave(8000, 9), 16000), "9 channels"
    yield "text.wav", lambda p: p.write_text("RIFF but no more"), "open: is a text file"
    yield "void.flac", lambda p: p.touch(), "is an empty file"
    yield "cut.wav", lambda p: cut(p, good), "decode: is truncated"
    yield "cut.flac", lambda p: cut(p, good), "decode"


def cut(path, samples):
    sf.write(path, samples, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_each_bad_sound_is_a_reject_with_its_reason(tmp_path):
    seen = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, write, says in bad(tmp_path):
            write(tmp_path / name)
            with pytest.raises(RejectError) as caught:
                encoded(tmp_path / name)
            assert says in str(caught.value), name
            seen += 1
    assert seen == 13


def test_a_video_without_sound_is_a_reject(make_video):
    with pytest.raises(RejectError, match="no audio track"):
        encoded(make_video("mute.mp4", 5))
    with pytest.raises(RejectError, match="silent"):
        encoded(make_video("silent.mp4", 5, audio=True))


def test_files_of_one_recording_become_its_channels(tmp_path):
    x = wave(4000, 3)
    for folder, (name, microphone) in product(("tr05_bus_simu", "dt05_bus_simu"), product("AB", range(4))):
        path = tmp_path / folder / f"{name}.CH{microphone}.wav"
        path.parent.mkdir(exist_ok=True)
        sf.write(path, x[:, max(microphone - 1, 0)], 16000, subtype="PCM_24")
    data = DATASETS["microphones"](tmp_path)
    assert {split: len(sources) for split, sources in data.splits.items()} == {"train": 2, "val": 2}
    source = data.splits["train"][0]
    made = AudioEncoder().encode(source)
    truth = np.stack([sf.read(p)[0] for p in (source.path, *source.parts)], axis=1)
    np.testing.assert_array_equal(decoded(made.members["flac"].data)[0], truth)
    sf.write(source.parts[1], x[:100, 0], 16000, subtype="PCM_24")
    with pytest.raises(RejectError, match="differ in samples"):
        AudioEncoder().encode(source)


def put(root, names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(root / name, wave(4000, seed=i), 16000)


def test_audioset(tmp_path):
    put(tmp_path, ["wav/-a_B.wav", "wav/YccC.wav", "eval/ddd_30.wav", "eval/eee_30000_40000.flac"])
    (tmp_path / "class_labels_indices.csv").write_text(
        'index,mid,display_name\n0,/m/1,Speech\n1,/m/2,"Male speech, man"\n2,/t/3,Dog\n'
    )
    head = "# Segments csv\n# num\n# YTID, start_seconds, end_seconds, positive_labels\n"
    (tmp_path / "balanced_train_segments.csv").write_text(
        head + '-a_B, 0.000, 10.000, "/m/2,/t/3"\nzzz, 1, 11, "/m/1"\n'
    )
    (tmp_path / "unbalanced_train_segments.csv").write_text(head + 'ccC, 5.000, 15.000, "/t/3"\n')
    (tmp_path / "eval_segments.csv").write_text(head + 'ddd, 30.000, 40.000, "/m/1"\neee, 30.000, 40.000, "/m/1"\n')
    data = DATASETS["audioset"](tmp_path)
    assert [(s.path.name, s.label, s.meta) for s in data.splits["train"]] == [
        ("-a_B.wav", 1, {"labels": [1, 2]}),
        ("YccC.wav", 2, {"labels": [2]}),
    ]
    assert [s.path.name for s in data.splits["val"]] == ["ddd_30.wav", "eee_30000_40000.flac"]
    assert [r.source for r in data.missing["train"]] == ["zzz_1_11"]
    assert len(DATASETS["audioset"](tmp_path, balanced=True).splits["train"]) == 1
    (tmp_path / "eval_segments.csv").write_text(head + 'ddd, 30.000, 40.000, "/m/9"\n')
    with pytest.raises(DatasetError, match="/m/9"):
        DATASETS["audioset"](tmp_path)


def test_esc50_and_librispeech(tmp_path):
    put(tmp_path, [f"esc/audio/1-{i}-A-{i}.wav" for i in range(4)])
    rows = "".join(f"1-{i}-A-{i}.wav,{1 + i % 2},{i},{'abcd'[i]},False,x,A\n" for i in range(4))
    (tmp_path / "esc/meta").mkdir()
    (tmp_path / "esc/meta/esc50.csv").write_text("filename,fold,target,category,esc10,src_file,take\n" + rows)
    data = DATASETS["esc50"](tmp_path / "esc")
    assert data.label_names == ("a", "b", "c", "d")
    assert [s.label for s in data.splits["val"]] == [0, 2]
    assert [s.label for s in DATASETS["esc50"](tmp_path / "esc", fold=2).splits["val"]] == [1, 3]
    base = tmp_path / "libri/LibriSpeech"
    put(
        base,
        ["train-clean-100/103/1/103-1-0000.flac", "train-other-500/19/2/19-2-0000.flac", "dev-clean/7/3/7-3-0000.flac"],
    )
    for path in base.rglob("*.flac"):
        name = path.stem.rsplit("-", 1)[0]
        (path.parent / f"{name}.trans.txt").write_text(f"{path.stem} THE WORDS OF {path.stem}\n{name}-0001 NOT THERE\n")
    data = DATASETS["librispeech"](tmp_path / "libri")
    assert data.label_names == ("7", "19", "103")
    assert [(s.id.split("/")[0], s.label, s.meta["text"][:9]) for s in data.splits["train"]] == [
        ("train-clean-100", 2, "THE WORDS"),
        ("train-other-500", 1, "THE WORDS"),
    ]
    assert len(data.missing["val"]) == 1


def test_a_folder_of_sounds_to_a_verified_split_with_statistics(tmp_path):
    put(tmp_path / "raw", [f"train/{'ab'[i % 2]}/{i}.wav" for i in range(6)])
    (tmp_path / "raw/train/a/no.mp3").write_text("no sound")
    made = {"workers": 0, "samples_per_shard": 2, "max_rejects": 1}
    report = make_shards("audio-folder", tmp_path / "raw", tmp_path / "out", **made)
    split = report.splits["train"]
    assert (split.counts["samples"], split.counts["rejected"]) == (6, {"open": 1})
    assert "frames" not in split.counts
    assert verify(split.folder, decode=True).ok
    manifest = Manifest.load(split.folder)
    assert manifest.component("flac").facts["n_samples"].tolist() == [4000] * 6
    assert manifest.info["modality"] == "audio"
    values, total, squares = manifest.info["sums"]["fbank"]
    assert values == 6 * (1 + (4000 - 400) // 160) * 128
    assert squares / values > (total / values) ** 2
    name, offset, size = manifest.member(0, "json")
    path = manifest.folder / name
    assert json.loads(path.read_bytes()[offset : offset + size])["source"] == manifest.sources()[0].as_py()
    name, offset, size = manifest.member(2, "flac")
    path = manifest.folder / name
    with path.open("r+b") as file:
        file.seek(offset + size - 300)
        file.write(b"\0" * 40)
    problems = verify(split.folder, decode=True).problems
    assert any("cannot be decoded" in p or "(MD5)" in p or "samples, not" in p for p in problems)
    with pytest.raises(ValueError, match="profile 'copy' is for video"):
        make_shards("audio-folder", tmp_path / "raw", tmp_path / "other", profile=PROFILES["copy"])


def test_the_member_is_a_flac_that_ffmpeg_seeks_in(tmp_path):
    sf.write(tmp_path / "a.wav", wave(60000, 2), 44100)
    data = encoded(tmp_path / "a.wav").members["flac"].data
    with av.open(io.BytesIO(data), format="flac") as container:
        stream = container.streams.audio[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(60000 / 44100)
        container.seek(int(1.0 / stream.time_base), stream=stream)
        frame = next(container.decode(stream))
        assert 0.8 < frame.time <= 1.0
    header = parse_flac_header(data)
    assert (np.diff(header.points[:, 0]) == header.points[1, 0]).all()


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path):
    put(tmp_path / "raw", [f"train/{'ab'[i % 2]}/{i}.wav" for i in range(5)])
    for workers in (0, 2):
        make_shards("audio-folder", tmp_path / "raw", tmp_path / str(workers), workers=workers, samples_per_shard=2)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / workers / "train").glob("[!.]*.*")}
        for workers in ("0", "2")
    )
    assert one == two
    assert len(one) == 3 * 3 + 3
