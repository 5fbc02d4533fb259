"""The noisy loader: the drawn signal-to-noise ratio, the plane wave at the microphones, channels cut alike."""

from functools import partial

import numpy as np
import pytest
import torch

from maskstream.pipelines import AudioClip, noisy_loader
from maskstream.pipelines.modalities.audio.rows import SPEED_OF_SOUND, MicrophoneLine
from maskstream.preprocess.encode.audio.encoder import encode_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard

from ...contract import check_order, join_ranks

CLIP = AudioClip(seconds=0.256)


def made(channels, i, *, rate=16000, silent=()):
    """The encoded sound i; its channel c is channel 0 delayed by c samples."""
    x = np.random.default_rng(100 * channels + i).normal(0, 3000, 9000 + 500 * i)
    x = np.convolve(x, np.ones(8) / 8, "same")
    if i in silent:
        x[64:] = 0
    wave = np.stack([np.roll(x, c) for c in range(channels)], axis=1).astype(np.int32)
    return encode_sound(Sound(samples=wave, bits=16, sample_rate=rate, codec="pcm_s16le", container="wav"))


def write(out, *, channels, rate=16000, n=8, silent=()):
    """Writes a split of n sounds."""
    samples = []
    for i in range(n):
        one = made(channels, i, rate=rate, silent=silent)
        samples.append(Sample(key=f"s{i}", members=one.members, source=f"{i}", sums=one.sums))
    return finished(out, samples)


def finished(out, samples):
    """A split of the samples, in one shard."""
    info = DatasetInfo(dataset=out.name, split="train", modality="audio", profile="flac")
    out.mkdir()
    finish_split(out, info, [write_shard(out / "s-000000.tar", samples)], [])
    return out


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Splits of mono sounds, of noises, and of recordings with three microphones."""
    root = tmp_path_factory.mktemp("noisy")
    return write(root / "clean", channels=1), write(root / "noise", channels=2), write(root / "array", channels=3)


def loader(split, **changes):
    settings = {"clip": CLIP, "batch_size": 4, "threads": 1, "seed": 2, "device": "cpu"}
    return noisy_loader(split, **(settings | changes))


def decibels(batch):
    noise = batch.mixture - batch.clean
    return 10 * torch.log10(batch.clean.square().sum((1, 2)) / noise.square().sum((1, 2)))


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("line", [None, MicrophoneLine(count=4)])
def test_the_ratio_is_the_drawn_one(splits, drawn, line):
    clean, noise, _ = splits
    batches = list(loader(clean, noise=None if drawn else noise, line=line, snr_db=(-5.0, 10.0)))
    assert len(batches) == 2
    for batch in batches:
        assert batch.mixture.shape == batch.clean.shape == (4, 1 if line is None else 4, CLIP.n_samples)
        assert torch.allclose(decibels(batch), batch.snr_db, atol=1e-3)
    ratios = torch.cat([batch.snr_db for batch in batches])
    assert len(torch.unique(ratios)) == 8
    assert -5 <= ratios.min() < ratios.max() <= 10


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_batches_are_independent_of_the_topology_and_noise_belongs_to_the_identity(splits, workers):
    clean, noise, _ = splits
    noisy = partial(loader, clean, noise=noise, line=MicrophoneLine(count=2))
    state = check_order(noisy, batch_size=4, workers=workers)
    with pytest.raises(ResumeError, match="dataset"):
        loader(clean).load_state_dict(state)


def test_all_channels_of_a_recording_are_cut_alike(splits):
    clip = AudioClip(seconds=0.256, channels=3)
    for batch in loader(splits[2], clip=clip):
        for sound in batch.clean.numpy():
            for c in (1, 2):
                np.testing.assert_allclose(sound[c, 2:], np.roll(sound[0], c)[2:], atol=2e-3)


def test_microphones_hear_a_plane_wave():
    line = MicrophoneLine(count=5, spacing_m=0.08)
    rng = np.random.default_rng(0)
    time = np.arange(4000) / 16000
    for _ in range(5):
        angle = np.random.default_rng(rng.integers(1 << 30))
        state = angle.bit_generator.state
        heard = line.hear(np.sin(2 * np.pi * 440 * time).astype(np.float32), 16000, angle)
        angle.bit_generator.state = state
        delay = 0.08 * np.cos(angle.uniform(0, np.pi)) / SPEED_OF_SOUND
        for m in range(5):
            wanted = np.sin(2 * np.pi * 440 * (time - (m - 2) * delay))
            np.testing.assert_allclose(heard[500:-500, m], wanted[500:-500], atol=2e-3)
    still = MicrophoneLine(count=2, spacing_m=0.0).hear(np.ones(100, np.float32), 16000, rng)
    np.testing.assert_allclose(still, 1.0, atol=1e-6)


def test_the_power_of_generated_noise_falls_with_frequency(splits):
    def slope(wanted):
        batch = next(iter(loader(splits[0], slope=(wanted, wanted), clip=AudioClip(seconds=0.5), batch_size=8)))
        power = torch.fft.rfft(batch.mixture - batch.clean).abs().square().mean(dim=(0, 1))[8:]
        octaves = torch.log2(torch.arange(8, 8 + len(power)).float())
        return float(np.polyfit(octaves.numpy(), torch.log2(power).numpy(), 1)[0])

    assert slope(0.0) == pytest.approx(0.0, abs=0.15)
    assert slope(2.0) == pytest.approx(-2.0, abs=0.15)


def test_one_of_several_sounds_is_named_in_each_split(tmp_path, splits):
    """Of two sounds in each sample, only the named one of each split is mixed."""
    samples = []
    for i in range(8):
        left, right = made(1, i), made(2, i)
        members = {"left.flac": left.members["flac"], "right.flac": right.members["flac"]}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", sums=left.sums))
    pairs = finished(tmp_path / "pairs", samples)
    for options, says in (({}, "component="), ({"component": "left.flac", "noise": pairs}, "component=")):
        with pytest.raises(
            ValueError, match=rf"2 components are sound: left\.flac, right\.flac; choose one with {says}"
        ):
            loader(pairs, **options)
    with pytest.raises(ValueError, match="selects audio from the split passed as noise="):
        loader(splits[0], noise_component="left.flac")
    named = loader(pairs, component="left.flac", noise=pairs, noise_component="right.flac")
    assert named.state_dict()["data"]["component"] == "left.flac"
    assert join_ranks([named], 2) == join_ranks([loader(splits[0], noise=splits[1])], 2)


def test_silent_segmentes_are_replaced_and_bad_settings_refused(tmp_path, splits):
    split = write(tmp_path / "silent", channels=1, silent=(2,))
    run = loader(split, max_bad_fraction=1.0, shuffle=False)
    batches = list(run)
    assert run.stats()["bad"] == 1
    assert all("s2" not in batch.key for batch in batches)
    for changes, says in [
        (
            {"line": MicrophoneLine(), "clip": AudioClip(seconds=0.256, channels=3)},
            "leave out line, or use channels='mono'",
        ),
        ({"snr_db": (5.0, 0.0)}, "snr_db must be"),
    ]:
        with pytest.raises(ValueError, match=says):
            loader(splits[0], **changes)
    with pytest.raises(ValueError, match="count"):
        MicrophoneLine(count=0)
