"""The audiovisual loader: one clock for clip and sound, independent masks, noise and token budgets."""

from collections import Counter

import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, audiovisual_loader, masks
from maskstream.pipelines.augment.diffusion import LinearNoise
from maskstream.pipelines.augment.sound import SpecAugment
from maskstream.pipelines.modalities.audio.reader import AudioClip
from maskstream.pipelines.modalities.audiovisual.rows import SpectrogramNoise
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.source import Source
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member

from ....flash_and_beep import FPS, flashes, onsets, write
from ....splits import write_samples

EVENTS = (12, 37, 61, 80)
FORMS = ({}, {"late": 20}, {"ends": 70}, {"rate": 44100}, {"late": 26, "ends": 82, "rate": 32000})


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """The folder of a split of five videos of 100 frames; some have sound for only a part of their time."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("split")
    samples = []
    for number, form in enumerate(FORMS):
        path = write(raw / f"{number}.mp4", EVENTS, **form)
        made = AudioVisualEncoder().encode(Source(id=f"{number}", path=path))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(
            Sample(
                key=f"s{number}",
                members=members,
                source=f"{number}",
                sums=made.sums,
            )
        )
    return write_samples(out, samples, "audiovisual")


def opened(split, **settings):
    defaults = {"clip": VideoClip(frames=8, stride=1, size=32), "seconds": 0.32, "batch_size": 5, "threads": 1}
    return audiovisual_loader(split, **defaults | {"patch": 8, "device": "cpu"} | settings)


@pytest.mark.parametrize(("stride", "seconds"), [(1, 0.32), (4, 1.28)])
def test_a_flash_and_a_beep_stay_together_whatever_is_cropped(split, stride, seconds):
    seen = 0
    loader = opened(split, clip=VideoClip(frames=8, stride=stride, size=32, align=1), seconds=seconds)
    for _ in range(20):
        for batch in loader:
            for video, wave, pts_s, start_s in zip(
                batch.video.numpy(),
                batch.waveform.numpy()[:, 0],
                batch.pts_s.numpy(),
                batch.audio_start_s,
                strict=True,
            ):
                shown = flashes(video, pts_s)
                heard = onsets(wave, 16000) + float(start_s) if np.abs(wave).max() > 0.2 else np.empty(0)
                inner = [t for t in heard if t > float(start_s) + 0.01]  # not one that had begun before
                for event in np.array(EVENTS) / FPS:
                    if np.abs(shown - event).min(initial=9) < 1e-6 and np.abs(pts_s - event).min() < 1e-6:
                        seen += 1
                        nearest = np.abs(np.array(heard) - event).min(initial=9)
                        covered = start_s - 1e-6 <= event <= start_s + seconds - 0.03
                        assert nearest < 0.5 / FPS or not covered
                assert all(np.abs(np.array(EVENTS) / FPS - t).min() < 0.5 / FPS for t in inner)
    assert seen > 20


def test_the_segment_is_centred_on_its_clip_or_moved_inside_the_sound(split):
    manifest = Manifest.load(split)
    loader = opened(split, seconds=1.28)
    moved = 0
    for _ in range(4):
        for batch in loader:
            for i, key in enumerate(batch.key):
                row = int(key[1:])
                facts = {name: float(values[row]) for name, values in manifest.component("flac").facts.items()}
                begin = facts["start_s"]
                end = begin + facts["n_samples"] / facts["sample_rate"]
                first, last = float(batch.pts_s[i, 0]), float(batch.pts_s[i, -1]) + 1 / FPS
                wanted = (first + last - 1.28) / 2
                got = float(batch.audio_start_s[i])
                inside = min(max(wanted, begin), end - 1.28)
                assert got == pytest.approx(inside, abs=0.011)
                moved += abs(got - wanted) > 0.02
                assert begin - 0.5 / FPS - 1e-6 <= first
                assert last <= end + 0.5 / FPS + 1e-6
                assert int(batch.length[i]) == 1.28 * 16000
    assert moved > 0


def test_a_clip_longer_than_the_sound_takes_frames_around_it_and_repeats_none(split):
    for align in (1, 4):
        batch = next(iter(opened(split, clip=VideoClip(frames=8, stride=12, size=32, align=align))))
        assert (np.diff(batch.pts_s.numpy() * FPS).round() == 12).all()
        assert (batch.pts_s[:, 0] * FPS % align < 1e-6).all()


def test_clips_with_sound_start_on_gops_that_have_it(split):
    manifest, seen = Manifest.load(split), set()
    loader = opened(split, clip=VideoClip(frames=4, stride=4, size=32, align="gop"))
    for _ in range(3):
        for batch in loader:
            for key, start_s in zip(batch.key, batch.pts_s[:, 0].tolist(), strict=True):
                gops = manifest.video(int(key[1:])).first_frame.tolist()
                assert round(start_s * FPS) in gops
                seen.add(gops.index(round(start_s * FPS)))
    assert len(seen) > 1


def test_a_sound_shorter_than_the_segment_is_padded_at_the_end(split):
    batch = next(iter(opened(split, seconds=5.12, audio_mask=masks.Random(ratio=0.5), shuffle=False)))
    facts = Manifest.load(split).component("flac").facts
    lengths = facts["n_samples"] / facts["sample_rate"]
    np.testing.assert_allclose(batch.length.numpy() / 16000, lengths, atol=1e-3)
    for wave, length in zip(batch.waveform[:, 0], batch.length, strict=True):
        assert not wave[int(length) :].any()
    assert (batch.audio_mask.weight.sum(dim=1) < batch.audio_mask.weight.shape[1]).all()
    np.testing.assert_allclose(batch.audio_start_s.numpy(), facts["start_s"])


def test_video_and_sound_are_masked_independently_and_each_as_its_mask_alone_would(split):
    mask = masks.Random(ratio=0.5)
    same = {"video_mask": mask, "audio_mask": mask, "shuffle": False}
    batch = next(iter(opened(split, **same, seconds=0.64, tubelet=2)))
    assert batch.video_mask.masked.shape == (5, 4 * 4 * 4)
    assert batch.audio_mask.masked.shape == (5, 4 * 8)
    assert not torch.equal(batch.video_mask.masked[:, :32], batch.audio_mask.masked)
    alone = next(iter(opened(split, **same | {"audio_mask": None}, seconds=0.64)))
    assert alone.audio_mask is None
    assert torch.equal(alone.video_mask.masked, batch.video_mask.masked)
    other = next(iter(opened(split, **same | {"video_mask": None}, seconds=0.64)))
    assert torch.equal(other.audio_mask.masked, batch.audio_mask.masked)


def test_ratios_of_avsiam_are_near_equal_parts_of_a_batch_and_independent(split):
    settings = {
        "video_mask": masks.MASKS["avsiam-image"](),
        "audio_mask": masks.MASKS["avsiam-audio"](),
        "clip": VideoClip(frames=1, stride=1, size=64),
        "tubelet": 1,
        "seconds": 0.64,
    }
    together = []
    for batch in (batch for _, batch in zip(range(20), opened(split, **settings).repeat(), strict=False)):
        video, audio = batch.video_mask.n_visible, batch.audio_mask.n_visible
        assert sorted(video.tolist()) == [12, 25, 38, 51, 64]
        assert sorted(audio.tolist()) == [6, 12, 19, 25, 32]
        together += [bool(pair) for pair in video.argsort() == audio.argsort()]
    assert 0.05 < np.mean(together) < 0.4


def test_noise_for_the_targets_is_standard_normal_and_repeats(split):
    settings = {
        "video_mask": masks.Random(ratio=0.75),
        "audio_mask": masks.Padded(mask=masks.FilledStrips(ratio=masks.MultiRatio())),
        "noise": LinearNoise(),
        "views": 2,
    }
    batch, again = (next(iter(opened(split, **settings))) for _ in range(2))
    assert batch.video_noise.shape == (10, 48, 2 * 8 * 8 * 3)
    assert batch.audio_noise.shape == (10, batch.audio_mask.target.shape[1], 256)
    assert torch.equal(batch.video_noise, again.video_noise)
    assert torch.equal(batch.audio_time, again.audio_time)
    assert float(batch.video_noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(batch.video_noise.std()) == pytest.approx(1, abs=0.01)
    real = batch.audio_mask.target_valid
    assert not batch.audio_noise[~real].any()
    assert batch.audio_noise[real].all()
    assert len(set(batch.video_time.tolist())) > 5
    assert not torch.equal(batch.video_time, batch.audio_time)
    assert 0 <= int(batch.video_time.min()) <= int(batch.video_time.max()) < 1000
    assert next(iter(opened(split))).video_noise is None


def test_a_budget_counts_the_tokens_of_both(split):
    settings = {"video_mask": masks.MASKS["diffmavil"](), "audio_mask": masks.MASKS["diffmavil"](), "steps": 30}
    loader = opened(split, **settings, seconds=0.64, batch_size=1, token_budget=60)
    sizes = Counter()
    for batch in loader:
        visible = batch.video_mask.visible.numel() + batch.audio_mask.visible.numel()
        assert visible <= 60
        assert visible + visible // len(batch) > 60
        sizes[len(batch)] += 1
    assert sum(sizes.values()) == len(loader) == 30
    assert min(sizes) < max(sizes), "the batches shrink as the ratio falls"


def test_spectrograms_of_batches_equal_those_of_samples(split):
    settings = {"spec_augment": SpecAugment(time=5, freq=9), "shuffle": False}
    one, other = (next(iter(opened(split, **settings, on_device=flag))) for flag in (False, True))
    torch.testing.assert_close(one.spectrogram, other.spectrogram, rtol=0, atol=1e-4)


def test_spectrogram_noise_is_below_its_level_and_independent_of_the_topology(split):
    settings = {"views": 2, "seconds": 1.28, "shuffle": False}
    plain = next(iter(opened(split, **settings)))
    settings["spectrogram_noise"] = SpectrogramNoise(most=0.3)
    noisy = next(iter(opened(split, **settings)))
    added = (noisy.spectrogram - plain.spectrogram) * 2  # in deviations
    heard = plain.spectrogram.shape[1] - 2  # 400 samples a window: the last two frames have none
    assert torch.equal(noisy.spectrogram[:, heard:], plain.spectrogram[:, heard:])
    assert float(added.min()) > -1e-5
    levels = added[:, :heard].amax(dim=(1, 2))
    assert float(levels.max()) < 0.3 + 1e-5
    assert len({round(float(level), 4) for level in levels}) == 10, "each view has a level of its own"
    torch.testing.assert_close(added[:, :heard].mean(dim=(1, 2)), levels / 2, rtol=0.03, atol=1e-4)
    assert torch.equal(noisy.video, plain.video)
    assert torch.equal(noisy.audio_start_s, plain.audio_start_s)
    for ways in ({"workers": 1}, {"threads": 3}):
        again = next(iter(opened(split, **settings | ways)))
        assert torch.equal(again.spectrogram, noisy.spectrogram)
    for rank in range(2):
        half = next(iter(opened(split, **settings | {"batch_size": 2}, rank=rank, world_size=2)))
        for i, key in enumerate(half.key):
            own = [j for j, other in enumerate(noisy.key) if other == key][i % 2]
            assert torch.equal(half.spectrogram[i], noisy.spectrogram[own])


def test_roll_shifts_the_valid_frames_circularly_and_is_off_by_default(split):
    assert SpectrogramNoise().roll == 0
    settings = {"seconds": 5.12, "shuffle": False}
    plain = next(iter(opened(split, **settings)))
    rolled = next(iter(opened(split, **settings, spectrogram_noise=SpectrogramNoise(most=0, roll=1024))))
    shifts = set()
    for before, after, length in zip(plain.spectrogram, rolled.spectrogram, plain.length.tolist(), strict=True):
        heard = 1 + (length - 400) // 160
        assert torch.equal(after[heard:], before[heard:]), "what is filled up stays behind"
        found = [s for s in range(heard) if torch.equal(after[:heard], before[:heard].roll(s, dims=0))]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) > 3
    with pytest.raises(ValueError, match="at least 0"):
        SpectrogramNoise(roll=-1)
    with pytest.raises(ValueError, match="does not work with on_device=True"):
        opened(split, spectrogram_noise=SpectrogramNoise(), on_device=True)


def test_illegal_settings_are_refused(split):
    with pytest.raises(ValueError, match="cannot be divided into tokens"):
        opened(split, seconds=0.3)
    with pytest.raises(ValueError, match="views must be"):
        opened(split, views=0)
    with pytest.raises(ValueError, match="'codec'"):
        opened(split, flow="codec")
    assert AudioClip(seconds=1, sample_rate=16000).segment_at(44100, 44100, 3.0) == (0, 44100)
