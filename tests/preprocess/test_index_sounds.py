"""Tars of sounds that others wrote: every stretch equals a plain decode of the whole, and few bytes are read for it."""

import io
import json

import av
import numpy as np
import pytest
import soundfile as sf

from maskstream.pipelines.decode.indexed_sound import decode_indexed, read_indexed
from maskstream.preprocess import index_tars
from maskstream.shards.manifest import Manifest
from maskstream.shards.packet_table import packets_path
from maskstream.shards.sound_member import sound_member
from maskstream.shards.store import LocalStore

from .foreign_tars import write_tar
from .sounds import wave, write_sound

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
PARTIAL = (set(ENCODED) | set(WRITTEN)) - {"noise.m4a", "a.opus", "opus2.opus"}


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
    return made | {"chunks.wav": with_chunks(made["s16.wav"]), "variable.flac": variable_flac(folder)}


def variable_flac(folder):
    """A FLAC whose blocks have different sizes, some of 4,608 samples: frames of two streams, numbered by samples."""
    path = folder / "variable.flac"
    samples = (wave(44100 * 4) * 30000).astype(np.int16)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=44100, layout="mono", options={"frame_size": "4608"})
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", "mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


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


def stretch(manifest, i, first, stop):
    table = packets_path(manifest.folder, manifest.shard_path(i).name), int(manifest.facts["sound_table"][i])
    rate, n = int(manifest.facts["sample_rate"][i]), int(manifest.facts["n_samples"][i])
    member = manifest.member(i, sound_member(manifest, i))
    got = read_indexed(LocalStore(), table, member, first, stop, n_samples=n, rate=rate)
    return decode_indexed(got, rate=rate), got.read_bytes


def key(name):
    return name.replace(".", "_")


@pytest.mark.parametrize("name", [*ENCODED, *WRITTEN, "chunks.wav", "variable.flac"])
def test_every_stretch_is_that_of_a_plain_decode(split, sounds, name):
    manifest = Manifest.load(split)
    i, truth = by_name(manifest)[key(name)], plain(sounds[name])
    n, rate = len(truth), int(manifest.facts["sample_rate"][i])
    assert int(manifest.facts["n_samples"][i]) == n
    assert int(manifest.facts["channels"][i]) == truth.shape[1]
    rng = np.random.default_rng(n)
    firsts = [0, 1, n - 1, n - 700, *rng.integers(0, n - 10, 25).tolist()]
    lengths = [5000, 1, 1, 700, *rng.integers(1, rate, 25).tolist()]
    for first, length in zip(firsts, lengths, strict=True):
        stop = min(first + length, n)
        got, _ = stretch(manifest, i, first, stop)
        assert got.dtype == np.float32
        assert np.array_equal(got, truth[first:stop]), (first, stop)
    assert np.array_equal(stretch(manifest, i, 0, n)[0], truth)
