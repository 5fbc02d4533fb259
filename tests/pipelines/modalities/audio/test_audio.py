"""The audio loader: features equal the reference libraries', segments are exact, and only their bytes are read."""

import io
import sys
from dataclasses import replace

import kaldi_native_fbank as knf
import librosa
import numpy as np
import pytest
import soundfile as sf
import soxr
import torch

from maskstream.pipelines import AudioClip, Librosa, audio_loader, masks
from maskstream.pipelines.augment.sound import Mixup, RollGain, SpecAugment
from maskstream.pipelines.decode.sound import SoundError, decode_segment, read_segment
from maskstream.pipelines.modalities.audio.spectrogram import LogMel, Spectrogram
from maskstream.preprocess.encode.audio.encoder import encode_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.media.fbank import Fbank, compute_fbank_statistics
from maskstream.shards.media.flac import FlacHeader, parse_flac_header
from maskstream.shards.stores.base import Range

from ....splits import write_samples

RATES = (16000, 16000, 44100, 96000, 8000, 16000)
SECONDS = (3.0, 40.0, 5.0, 2.0, 0.3, 0.05)


def sound(rate, seconds, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate))[:, None] / rate
    tones = sum(
        np.sin(2 * np.pi * f * time + p) for f, p in zip(rng.uniform(100, 3000, 5), rng.uniform(0, 6, 5), strict=True)
    )
    x = tones * (1 + 0.5 * np.sin(2 * np.pi * time)) + rng.normal(0, 0.3, (len(time), channels))
    samples = np.rint(x / np.abs(x).max() * 20000).astype(np.int32)
    return Sound(samples=samples, bits=16, sample_rate=rate, codec="pcm_s16le", container="wav")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """The folder of a split of six sounds of several rates and lengths; 1 lasts 40 s, 1 and 3 have two channels."""
    out = tmp_path_factory.mktemp("split")
    samples = []
    for i, (rate, seconds) in enumerate(zip(RATES, SECONDS, strict=True)):
        made = encode_sound(sound(rate, seconds, 1 + i % 2, seed=i))
        samples.append(Sample(key=f"a{i}", members=made.members, source=f"{i}", label=i, sums=made.sums))
    return write_samples(out, samples, "audio", dataset="a", profile="flac")


def loader(split, **changes):
    settings = {"clip": AudioClip(seconds=1.28), "batch_size": 6, "threads": 1, "seed": 3, "device": "cpu"}
    return audio_loader(split, **(settings | changes))


# Features


def kaldi(waveform, bins, window_ms):
    options = knf.FbankOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither = 16000, 0
    options.frame_opts.window_type, options.frame_opts.frame_length_ms = "hanning", window_ms
    options.mel_opts.num_bins, options.htk_compat, options.use_energy = bins, True, False
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16000, waveform.tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])


@pytest.mark.parametrize(("bins", "window_ms"), [(23, 25), (80, 25), (128, 100)])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_filterbank_is_kaldis(bins, window_ms, scale):
    x = (np.random.default_rng(bins).standard_normal(24000) * scale).astype(np.float32)
    x[:6000] *= 0.001
    x[6000:8000] = 0
    bank = Fbank(n_bins=bins, window_ms=window_ms)
    got, wanted = bank(torch.from_numpy(x)).numpy(), kaldi(x, bins, window_ms)
    assert got.shape == wanted.shape == (bank.n_frames(24000), bins)
    assert np.abs(got - wanted).max() < 1e-3
    both = bank(torch.from_numpy(np.stack([x, x[::-1]])))
    assert torch.allclose(both[0], torch.from_numpy(got), atol=1e-5)


def test_the_filterbank_of_audiomae_has_its_shape():
    assert Fbank().n_frames(160000) == 998
    assert Fbank()(torch.zeros(2, 160000)).shape == (2, 998, 128)
    assert Fbank()(torch.zeros(399)).shape == (0, 128)
    with pytest.raises(ValueError, match="low_hz"):
        Fbank(low_hz=9000)


@pytest.mark.slow  # librosa compiles for half a minute
@pytest.mark.parametrize("settings", [{}, {"n_bins": 64, "n_fft": 512, "hop": 128, "top_db": None, "low_hz": 50.0}])
def test_log_mel_is_librosas(settings):
    x = np.random.default_rng(1).standard_normal(30000).astype(np.float32) * 0.1
    x[10000:20000] *= 1e-4
    mel = LogMel(**settings)
    power = librosa.feature.melspectrogram(
        y=x, sr=16000, n_fft=mel.n_fft, hop_length=mel.hop, n_mels=mel.n_bins, fmin=mel.low_hz
    )
    wanted = librosa.power_to_db(power, top_db=mel.top_db).T
    got = mel(torch.from_numpy(x)).numpy()
    assert got.shape == wanted.shape == (mel.n_frames(30000), mel.n_bins)
    assert np.abs(got - wanted).max() < 1e-2


def of_librosa(feature, x):
    """What librosa returns of a waveform (n,), as (frames, bins)."""
    if feature == "cqt":
        found = librosa.amplitude_to_db(np.abs(librosa.cqt(x, sr=16000, hop_length=160)))
    elif feature == "chroma":
        found = librosa.feature.chroma_stft(y=x, sr=16000, hop_length=160, tuning=0.0)
    else:
        found = getattr(librosa.feature, feature)(y=x, sr=16000, hop_length=160)
    return found.T


@pytest.mark.slow  # librosa compiles for half a minute
@pytest.mark.parametrize(
    ("feature", "bins", "patch"), [("chroma", 12, 2), ("cqt", 84, 12), ("mfcc", 20, 4), ("tempogram", 384, 48)]
)
def test_features_of_librosa_are_its_own(split, feature, bins, patch):
    features = Librosa(feature=feature)
    settings = {"features": features, "patch": (16, patch), "statistics": (0.0, 0.5), "shuffle": False}
    (batch,) = loader(split, mask=masks.Random(ratio=0.75), **settings)
    assert batch.spectrogram.shape == (6, 128, bins)
    assert batch.mask.masked.shape == (6, 8 * bins // patch)
    for row, sound, n in zip(batch.spectrogram, batch.waveform[:, 0], batch.length.tolist(), strict=True):
        centred = sound.clone()
        centred[:n] -= sound[:n].mean()
        heard = min(1 + n // 160, 128)
        wanted = of_librosa(feature, centred.numpy())
        assert wanted.shape == (features.n_frames(20480), bins)
        np.testing.assert_allclose(row[:heard].numpy(), wanted[:heard], atol=1e-4, rtol=1e-4)
        assert (row[heard:] == 0).all()


def test_features_of_librosa_refuse_what_it_cannot_do(split, monkeypatch):
    for wrong, says in [
        ({"feature": "mel"}, "feature must be"),
        ({"feature": "cqt", "sample_rate": 8000}, "exceed half of sample_rate=8000"),
        ({"feature": "chroma", "low_hz": 50.0}, "leave it out for 'chroma'"),
        ({"feature": "mfcc", "bins": 0}, "at least 1"),
    ]:
        with pytest.raises(ValueError, match=says):
            Librosa(**wrong)
    settings = {"features": Librosa(feature="mfcc"), "patch": (16, 4), "statistics": (0.0, 1.0)}
    with pytest.raises(ValueError, match="in the loader's threads"):
        loader(split, on_device=True, **settings)
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(ValueError, match=r"pip install 'maskstream\[audio\]'"):
        loader(split, **settings)


def test_a_batch_equals_single_sounds_and_padding_is_0_before_normalisation():
    spectrogram = Spectrogram(features=Fbank(), frames=96, mean=-4.0, deviation=3.0)
    rng = np.random.default_rng(0)
    waveform, length = torch.zeros(3, 15360), torch.tensor([15360, 8000, 300])
    for row, n in zip(waveform, length.tolist(), strict=True):
        row[:n] = torch.from_numpy(rng.normal(0.3, 0.2, n).astype(np.float32))
    made = spectrogram(waveform, length)
    assert made.shape == (3, 96, 128)
    frames = [94, 48, 0]
    assert spectrogram.n_frames(length).tolist() == frames
    for i, n in enumerate(length.tolist()):
        own = waveform[i, :n]
        wanted = (Fbank()(own - own.mean()) + 4.0) / 6.0
        assert torch.allclose(made[i, : frames[i]], wanted, atol=1e-4)
        assert torch.allclose(made[i, frames[i] :], torch.tensor(4.0 / 6.0))
    strips = torch.tensor([[10, 20, 5, 9]]).expand(3, 4)
    cut = spectrogram(waveform, length, strips)
    inside = torch.zeros(96, 128, dtype=torch.bool)
    inside[10:20] = inside[:, 5:9] = True
    assert (cut[:, inside] == 0).all()
    assert torch.equal(cut[:, ~inside], made[:, ~inside])


# Segments


def whole(split, index, rate):
    """A whole sound, decoded with soundfile and resampled with soxr, float32 (n, channels)."""
    name, offset, size = Manifest.load(split).member(index, "flac")
    path = split / name
    samples, source = sf.read(io.BytesIO(path.read_bytes()[offset : offset + size]), dtype="float32", always_2d=True)
    return samples if source == rate else soxr.resample(samples, source, rate, quality="HQ")


def header_of(manifest, index):
    described = manifest.component("flac").described(index)
    return FlacHeader.of(described.facts, described.lists, int(manifest.component("flac").size[index]))


def test_the_manifest_knows_the_header(split):
    manifest = Manifest.load(split)
    for index in range(6):
        stored = parse_flac_header(manifest.store.read(*manifest.member(index, "flac")))
        known = header_of(manifest, index)
        np.testing.assert_array_equal(known.points, stored.points)
        assert replace(known, points=None) == replace(
            stored, points=None, md5=b"", stream_info=stored.stream_info[:18] + bytes(16)
        )


@pytest.mark.parametrize("index", range(4))
def test_a_segment_is_a_part_of_the_whole_sound(split, index):
    manifest = Manifest.load(split)
    truth, rate = whole(split, index, 16000), int(manifest.component("flac").facts["sample_rate"][index])
    clip = AudioClip(seconds=0.5)
    for seed in range(5):
        first, stop = clip.segment(
            int(manifest.component("flac").facts["n_samples"][index]), rate, np.random.default_rng(seed)
        )
        read = read_segment(
            manifest.store, manifest.member(index, "flac"), header_of(manifest, index), first, stop, rate=16000
        )
        got = decode_segment(read, rate=16000, gain=1.0)[: clip.n_samples]
        begin = first * 16000 // rate
        assert first * 16000 % rate == 0
        np.testing.assert_allclose(got, truth[begin : begin + clip.n_samples], atol=0 if rate == 16000 else 2e-3)
        assert len(got) == clip.n_samples


def test_only_the_frames_of_the_segment_are_read(split):
    manifest = Manifest.load(split)
    name, offset, size = manifest.member(1, "flac")
    path = manifest.folder / name
    header = parse_flac_header(path.read_bytes()[offset : offset + size])
    read = read_segment(manifest.store, Range(name, offset, size), header_of(manifest, 1), 320000, 336000, rate=16000)
    assert read.read_bytes == len(read.frames) < size / 20
    assert len(read.frames) < size * (16000 + 2 * header.points[1, 0]) / header.n_samples * 1.5
    assert header.size_bytes < size / 50


def test_a_frame_that_changed_is_an_error(split):
    manifest = Manifest.load(split)
    name, offset, size = manifest.member(0, "flac")
    path = manifest.folder / name
    whole = path.read_bytes()[offset : offset + size]
    n_samples, rng = parse_flac_header(whole).n_samples, np.random.default_rng(0)
    for _ in range(20):
        read = read_segment(manifest.store, Range(name, offset, size), header_of(manifest, 0), 0, n_samples, rate=16000)
        changed = bytearray(read.frames)
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
        with pytest.raises(SoundError):
            decode_segment(replace(read, frames=bytes(changed)), rate=16000, gain=1.0)


def test_draws_and_statistics(split):
    clip = AudioClip(seconds=0.5, sample_rate=16000)
    starts = {clip.segment(48000, 16000, np.random.default_rng(i))[0] for i in range(50)}
    assert len(starts) > 40
    assert max(starts) <= 48000 - 8000
    assert replace(clip, start="center").segment(48000, 16000, np.random.default_rng(0)) == (20000, 28000)
    assert replace(clip, start="begin").segment(100, 16000, np.random.default_rng(0)) == (0, 100)
    mono = [whole(split, i, 16000).mean(axis=1) for i in range(6)]
    banks = torch.cat([Fbank()(torch.from_numpy(x - x.mean())).flatten() for x in mono]).double()
    mean, deviation = compute_fbank_statistics(Manifest.load(split).info["sums"])
    assert mean == pytest.approx(float(banks.mean()), abs=2e-3)
    assert deviation == pytest.approx(float(banks.std()), abs=2e-3)
    with pytest.raises(ShardError, match="statistics="):
        compute_fbank_statistics({})


# Batches


def test_a_batch_matches_its_docstring(split):
    run = loader(split, shuffle=False, mask=masks.Random(ratio=0.8))
    (batch,) = run
    assert batch.waveform.shape == (6, 1, 20480)
    assert batch.spectrogram.shape == (6, 128, 128)
    assert batch.length.tolist() == [20480, 20480, 20480, 20480, 4800, 800]
    assert batch.mask.visible.shape == (6, 12)
    assert batch.mask.masked.shape == (6, 8 * 8)
    assert batch.start_s.tolist() == pytest.approx([0.86, 19.36, 1.86, 0.36, 0.0, 0.0], abs=0.01)
    mean, deviation = compute_fbank_statistics(Manifest.load(split).info["sums"])
    own = batch.waveform[0, 0]
    wanted = (Fbank()(own - own.mean()) - mean) / (2 * deviation)
    assert torch.allclose(batch.spectrogram[0, :126], wanted, atol=1e-4)
    columns = batch.mask.target // 8
    assert torch.equal(batch.mask.weight[4] > 0, columns[4] * 16 < 28)
    assert torch.equal(batch.mask.weight[5] > 0, columns[5] < 1)
    assert (batch.mask.weight[:4] == 1).all()


def test_spectrograms_of_batches_equal_those_of_samples(split):
    settings = {"roll_gain": RollGain(), "spec_augment": SpecAugment(time=20, freq=20), "mixup": Mixup(p=1.0)}
    one, two = (next(iter(loader(split, on_device=where, **settings))) for where in (False, True))
    assert one.key == two.key
    assert torch.equal(one.waveform, two.waveform)
    assert torch.allclose(one.spectrogram, two.spectrogram, atol=1e-4)
    assert (one.spectrogram == 0).any()


def test_roll_gain_moves_and_scales_and_mixup_adds(split):
    plain, rolled = (next(iter(loader(split, roll_gain=how))) for how in (None, RollGain()))
    for a, b, n in zip(plain.waveform[:, 0], rolled.waveform[:, 0], plain.length.tolist(), strict=True):
        gain = float(b.abs().max() / a.abs().max())
        assert 0.5 < gain < 1.5
        spectra = [torch.fft.rfft(x[:n]).abs() for x in (a, b)]
        assert torch.allclose(spectra[0] * gain, spectra[1], atol=1e-2 * float(spectra[1].max()))
        assert not torch.allclose(a * gain, b, atol=1e-3)
    mixed = next(iter(loader(split, mixup=Mixup(p=1.0))))
    by_label = {int(label): i for i, label in enumerate(plain.label)}
    for i in range(6):
        other, share = by_label[int(mixed.mixed_label[i])], float(mixed.share[i])
        parts = [torch.zeros(20480), torch.zeros(20480)]
        for part, j in zip(parts, (i, other), strict=True):
            n = int(plain.length[j])
            part[:n] = plain.waveform[j, 0, :n] - plain.waveform[j, 0, :n].mean()
        assert torch.allclose(mixed.waveform[i, 0], share * parts[0] + (1 - share) * parts[1], atol=1e-5)
    assert (next(iter(loader(split, mixup=Mixup(p=0.0)))).share == 1).all()


def test_spec_augment_draws_within_bounds():
    draws = np.stack([SpecAugment(time=30, freq=8).draw(100, 20, np.random.default_rng(i)) for i in range(200)])
    widths = draws[:, 1::2] - draws[:, ::2]
    assert widths.min() >= 0
    assert widths.max(axis=0).tolist() == [30, 8]
    assert (draws[:, 1] <= 100).all()
    assert (draws[:, 3] <= 20).all()


def test_a_short_sound_is_repeated(split):
    (batch,) = loader(split, clip=AudioClip(seconds=1.28, short="repeat"), shuffle=False)
    assert batch.length.tolist() == [20480] * 6
    assert torch.equal(batch.waveform[4, 0, 4800:9600], batch.waveform[4, 0, :4800])
    assert torch.equal(batch.waveform[4, 0, 19200:], batch.waveform[4, 0, :1280])


def test_views_share_the_segment(split):
    batch = next(iter(loader(split, views=2, roll_gain=RollGain(), mask=masks.Strips())))
    assert batch.key[0] == batch.key[1]
    assert batch.start_s[0] == batch.start_s[1]
    assert not torch.equal(batch.waveform[0], batch.waveform[1])
    assert not torch.equal(batch.mask.masked[0], batch.mask.masked[1])


def test_channels_are_kept_or_refused(split):
    run = loader(split, clip=AudioClip(seconds=0.32, channels=2), max_bad_fraction=1.0, shuffle=False)
    (batch,) = run
    assert batch.waveform.shape == (6, 2, 5120)
    assert run.stats()["bad"] > 0
    assert set(batch.key) <= {"a1", "a3", "a5"}
    i = batch.key.index("a1")
    begin = round(float(batch.start_s[i]) * 16000)
    np.testing.assert_array_equal(batch.waveform[i].numpy().T, whole(split, 1, 16000)[begin : begin + 5120])


def test_log_mel_batches(split):
    (batch,) = loader(split, features=LogMel(), statistics=(-30.0, 15.0), shuffle=False)
    assert batch.spectrogram.shape == (6, 128, 128)
    assert (batch.spectrogram[5, 10:] == 0).all()
    assert batch.spectrogram[0].std() > 0.1
