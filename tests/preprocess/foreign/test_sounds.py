"""Tars of sounds that others wrote: every segment equals a plain decode of the whole, and few bytes are read for it."""

import io
import json

import av
import numpy as np
import pytest
import soundfile as sf

from maskstream.pipelines.decode.sound import decode_indexed, read_indexed
from maskstream.preprocess import index_tars
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.media.sound_table import read_table
from maskstream.shards.media.video_index import name_packets_file

from ..encode.flac_blocks import variable_flac
from ..encode.sounds import wave, write_sound
from .foreign_tars import write_tar

SECONDS = 6
NO_NOISE = {"aac_pns": "0"}
ENCODED = {
    "cbr.mp3": (44100, 2, "libmp3lame", {"b": "128000"}, {}),
    "vbr.mp3": (48000, 2, "libmp3lame", {"global_quality": "590", "flags": "+qscale"}, {}),
    "low.mp3": (22050, 1, "libmp3lame", {"b": "8000"}, {}),
    "tagless.mp3": (44100, 1, "libmp3lame", {"b": "64000"}, {"write_xing": "0", "id3v2_version": "0"}),
    "plain.m4a": (44100, 2, "aac", NO_NOISE, {}),
    "noise.m4a": (44100, 2, "aac", {}, {"movflags": "faststart"}),
    "adts.aac": (48000, 1, "aac", NO_NOISE, {}),
    "lossless.m4a": (44100, 2, "alac", {}, {}),
    "a.opus": (48000, 2, "libopus", {}, {}),
    "lossless.oga": (44100, 1, "flac", {}, {}),
}
WRITTEN = {
    "u8.wav": (16000, 1, "PCM_U8", {}),
    "s16.wav": (44100, 2, "PCM_16", {}),
    "s24.wav": (48000, 2, "PCM_24", {}),
    "s32.wav": (48000, 1, "PCM_32", {}),
    "float.wav": (44100, 6, "FLOAT", {}),
    "extensible.wav": (48000, 4, "PCM_24", {"format": "WAVEX"}),
    "law.wav": (8000, 1, "ULAW", {}),
    "s16.flac": (44100, 2, "PCM_16", {}),
    "s24.flac": (96000, 1, "PCM_24", {}),
    "vorbis.ogg": (44100, 2, "VORBIS", {}),
    "vorbis2.ogg": (48000, 1, "VORBIS", {}),
    "opus2.opus": (48000, 2, "OPUS", {"format": "OGG"}),
}
MADE = ("chunks.wav", "variable.flac", "4608.flac")
FROM_BEGINNING = ("noise.m4a", "a.opus", "opus2.opus")
"""Sounds whose decoder never forgets."""


def with_chunks(data):
    """The same WAV with a chunk of an odd size before, and one behind its data."""
    extra = b"LIST" + (7).to_bytes(4, "little") + b"INFOabc\0"
    body = data[12:36] + extra + data[36:] + b"junk" + (4).to_bytes(4, "little") + b"abcd"
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WAVE" + body


def make(folder):
    """The bytes of each sound by its name."""
    made = {}
    for n, (name, (rate, channels, codec, options, muxer)) in enumerate(ENCODED.items()):
        form = {"aac": "adts", "oga": "ogg"}.get(name.split(".")[1])
        samples = wave(SECONDS * rate + 1234, channels, seed=n)
        made[name] = write_sound(folder / name, samples, rate, codec, form=form, options=options, muxer=muxer)
    for n, (name, (rate, channels, subtype, how)) in enumerate(WRITTEN.items()):
        sf.write(folder / name, wave(SECONDS * rate + 77, channels, seed=50 + n), rate, subtype=subtype, **how)
        made[name] = (folder / name).read_bytes()
    steps = (wave(44100 * 4 + 11) * 30000).astype(np.int16)[:, 0]
    return made | {
        "chunks.wav": with_chunks(made["s16.wav"]),
        "variable.flac": variable_flac(steps, 44100, [4608, 1152, 4096, 200, 4608, 576]),
        "4608.flac": variable_flac(steps, 44100, [4608]),
    }


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return make(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def split(sounds, tmp_path_factory):
    """Two tars of all of them, with labels."""
    folder = tmp_path_factory.mktemp("tars")
    names = list(sounds)
    for tar, some in (("a", names[::2]), ("b", names[1::2])):
        members = []
        for name in some:
            ending = name.split(".")[1]
            members.append((f"{key(name)}.json", json.dumps({"label": ending}).encode()))
            members.append((f"{key(name)}.{ending}", sounds[name]))
        write_tar(folder / f"{tar}-000.tar", members)
    report = index_tars([folder], workers=0)
    assert (report.tars, report.samples, report.rejects) == (2, len(sounds), {})
    return folder


def by_name(manifest):
    return {manifest.key(i): i for i in range(len(manifest))}


def plain(data):
    """A whole-file decode by PyAV, float32 (n, channels)."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    channels, kind = frames[0].layout.nb_channels, frames[0].format.name.removesuffix("p")
    parts = [f.to_ndarray().T if f.format.is_planar else f.to_ndarray().reshape(-1, channels) for f in frames]
    whole = np.concatenate(parts)
    if kind == "u8":
        return (whole.astype(np.float32) - 128) / 128
    return whole.astype(np.float32) / {"s16": 2.0**15, "s32": 2.0**31}.get(kind, 1.0)


def segment(manifest, i, first, stop):
    table = name_packets_file(manifest.shard_name(i)), int(manifest.component("sound").facts["table_offset"][i])
    rate, n = (
        int(manifest.component("sound").facts["sample_rate"][i]),
        int(manifest.component("sound").facts["n_samples"][i]),
    )
    member = manifest.member(i, "sound")
    got = read_indexed(manifest.store, table, member, first, stop, n_samples=n, rate=rate)
    return decode_indexed(got, rate=rate), got.read_bytes


def key(name):
    return name.replace(".", "_")


@pytest.mark.parametrize("name", [*ENCODED, *WRITTEN, *MADE])
def test_every_segment_is_that_of_a_plain_decode(split, sounds, name):
    manifest = Manifest.load(split)
    i, truth = by_name(manifest)[key(name)], plain(sounds[name])
    n, rate = len(truth), int(manifest.component("sound").facts["sample_rate"][i])
    assert int(manifest.component("sound").facts["n_samples"][i]) == n
    assert int(manifest.component("sound").facts["channels"][i]) == truth.shape[1]
    rng = np.random.default_rng(n)
    firsts = [0, 1, n - 1, n - 700, *rng.integers(0, n - 10, 25).tolist()]
    lengths = [5000, 1, 1, 700, *rng.integers(1, rate, 25).tolist()]
    for first, length in zip(firsts, lengths, strict=True):
        stop = min(first + length, n)
        got, _ = segment(manifest, i, first, stop)
        assert got.dtype == np.float32
        assert np.array_equal(got, truth[first:stop]), (first, stop)
    assert np.array_equal(segment(manifest, i, 0, n)[0], truth)


@pytest.mark.parametrize("name", [name for name in (*WRITTEN, *MADE) if name != "opus2.opus"])
def test_a_plain_decode_by_another_library_is_the_same(split, sounds, name):
    manifest = Manifest.load(split)
    i = by_name(manifest)[key(name)]
    truth, rate = sf.read(io.BytesIO(sounds[name]), dtype="float32", always_2d=True)
    got = segment(manifest, i, 1000, 20000)[0]
    assert rate == int(manifest.component("sound").facts["sample_rate"][i])
    assert len(truth) == int(manifest.component("sound").facts["n_samples"][i])
    lossy = name.endswith(".ogg")
    assert np.abs(got - truth[1000:20000]).max() <= (1e-4 if lossy else 0)


@pytest.mark.parametrize("name", [*ENCODED, *WRITTEN, *MADE])
def test_few_bytes_are_read_where_the_codec_allows_it(split, sounds, name):
    """Half a second in the middle: its own bytes, at most half a second more, and what its decoder must see before."""
    manifest = Manifest.load(split)
    i = by_name(manifest)[key(name)]
    rate, n = (int(manifest.component("sound").facts[fact][i]) for fact in ("sample_rate", "n_samples"))
    size = len(sounds[name])
    middle = segment(manifest, i, n // 2, n // 2 + rate // 2)[1]
    table = read_table(sound_entry(manifest, i))
    if name in FROM_BEGINNING:
        assert not table.cells["decode"].any()
        assert size / 2 < middle < size
    elif table.kind == "pcm":
        assert middle == 96 + (rate // 2) * table.frame_bytes
    else:
        before = 2.1 if name == "low.mp3" else 1.1
        setup = 96 + len(table.form.setup) + 24 * 3 + 16 * len(table.pieces)
        assert middle - setup < (0.5 + before) * rate / n * size * 1.6


def sound_entry(manifest, i):
    path = manifest.folder / name_packets_file(manifest.shard_path(i).name)
    return path.read_bytes()[int(manifest.component("sound").facts["table_offset"][i]) :]


def test_a_long_sound_whose_decoder_never_forgets_is_read_in_parts(tmp_path):
    samples = wave(48000 * 62, 1, seed=5)
    data = write_sound(tmp_path / "a.opus", samples, 48000, "libopus", options={"b": "48000"})
    write_tar(tmp_path / "x.tar", [("a.opus", data)])
    index_tars([tmp_path], as_is=True, workers=0)
    manifest, truth = Manifest.load(tmp_path), plain(data)
    cells = read_table(sound_entry(manifest, 0)).cells
    assert not cells["runs_on"].any()
    assert cells["decode"][3:].all()
    for first, stop in ((0, 500), (48000 * 45, 48000 * 46), (48000 * 29, 48000 * 51 + 7), (len(truth) - 9, len(truth))):
        got, read = segment(manifest, 0, first, stop)
        assert np.array_equal(got, truth[first:stop])
        assert read < len(data) * (0.9 if stop - first > 48000 * 20 else 0.5)
    assert verify(tmp_path, decode=True).problems == []


def test_what_no_table_can_say_is_decoded_as_a_whole(tmp_path):
    """Two Ogg streams one after the other: FFmpeg plays them, and their packets are not those of one decoder."""
    parts = []
    for seed in (0, 1):
        sf.write(tmp_path / "a.ogg", wave(48000, 2, seed=seed), 48000, subtype="VORBIS")
        parts.append((tmp_path / "a.ogg").read_bytes())
    data = b"".join(parts)
    (tmp_path / "a.ogg").unlink()
    write_tar(tmp_path / "x.tar", [("a.ogg", data)])
    index_tars([tmp_path], as_is=True, workers=0)
    manifest, truth = Manifest.load(tmp_path), plain(data)
    assert read_table(sound_entry(manifest, 0)).kind == "whole"
    got, read = segment(manifest, 0, 50000, 60000)
    assert np.array_equal(got, truth[50000:60000])
    assert read == 96 + len(data)
    assert verify(tmp_path, decode=True).problems == []


def test_blocks_of_several_sizes_stand_in_the_table(split):
    manifest = Manifest.load(split)
    counts = read_table(sound_entry(manifest, by_name(manifest)["variable_flac"])).pieces["samples"]
    assert counts[:6].tolist() == [4608, 1152, 4096, 200, 4608, 576]
