"""Log-mel spectrograms by DALI: librosa's decibels, and the same batches as with torch.

The same graph runs on the CPU here, and on a CUDA device in the tests marked `gpu`.
"""

import logging
import shutil
from functools import partial

import librosa
import numpy as np
import pytest
import torch

from maskstream.pipelines import AudioClip, Fbank, audio_loader, masks, mix
from maskstream.pipelines.augment.sound import Mixup, RollGain, SpecAugment
from maskstream.pipelines.modalities.audio.dali import DaliSpectrograms, build_mel_graph
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.audio.spectrogram import LogMel
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.format.manifest import Manifest

from ...contract import check_order
from ...every_modality import write_split
from ...small_media import sample_rows

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="DALI's GPU operators need a CUDA device")
DEVICES = [CPU, pytest.param(CUDA, marks=[pytest.mark.gpu, NO_CUDA])]
TOLERANCE_DB = 0.01
DEVIATION = 15.0
AUGMENTED = {"roll_gain": RollGain(), "mixup": Mixup(p=0.5), "spec_augment": SpecAugment(time=5, freq=9), "views": 2}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """The folder of a split of fifteen sounds of 0.4 to 0.9 s at 22,050 Hz; every second one has two channels."""
    return write_split("audio", tmp_path_factory.mktemp("audio"))


def loader(split, backend="dali", **changes):
    settings = {
        "clip": AudioClip(seconds=0.64),
        "features": LogMel(),
        "statistics": (-30.0, DEVIATION),
        "mask": masks.Random(ratio=0.8),
        "batch_size": 4,
        "threads": 1,
        "seed": 3,
        "device": CPU,
    }
    return audio_loader(split, backend=backend, **(settings | changes))


def finish_of(run):
    return type(run._production._delivery.finish)


def samplers(split):
    """The sampler without spectrograms, the DALI finish, and the sampler that makes spectrograms itself."""
    settings = {"clip": AudioClip(seconds=0.64), "features": LogMel(), "statistics": (-30.0, DEVIATION)}
    settings["mask"] = masks.Random(ratio=0.8)
    opened = Split.open(split, "audio", seed=3, device=CPU)
    waveforms, both = (AudioData(on_device=flag, **settings).sampler(opened) for flag in (True, False))
    return waveforms, DaliSpectrograms(waveforms.rows.spectrogram, 1), both


def made_of(sampler, indexes):
    return batch_of(sampler, Wanted.of(indexes))


def rows(batch):
    """The rows of a batch without spectrograms, and the spectrograms."""
    kept = [[value for value in row if value[0] != "spectrogram"] for row in sample_rows(batch)]
    return kept, batch.spectrogram.cpu()


def assert_same(batch, expected):
    (got, spectrogram), (wanted, reference) = rows(batch.to(CPU)), rows(expected)
    assert got == wanted
    assert spectrogram.shape == reference.shape
    # Normalisation divides by twice the standard deviation.
    assert (spectrogram - reference).abs().max() < TOLERANCE_DB / (2 * DEVIATION)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "settings", [{}, {"n_bins": 64, "n_fft": 512, "hop": 128, "top_db": None, "low_hz": 50.0}, {"n_fft": 400}]
)
def test_the_graph_makes_librosas_decibels(settings, device):
    mel, n, lengths = LogMel(**settings), 20480, [20480, 9000, 300, 1]
    rng = np.random.default_rng(1)
    waveform = np.zeros((4, 2, n), dtype=np.float32)
    for row, length in zip(waveform, lengths, strict=True):
        row[:, :length] = rng.normal(0.2, 0.1, (2, length))
    waveform[0, :, 5000:15000] *= 1e-4
    pipeline = build_mel_graph(mel, 4, n, 1, device)
    pipeline.build()
    given = torch.from_numpy(waveform).to(device) if device.type == "cuda" else waveform
    (found,) = pipeline.run(waveform=given, length=np.array(lengths, dtype=np.int32)[:, None])
    found = np.asarray(found.as_cpu().as_tensor())
    assert found.shape == (4, mel.n_frames(n), mel.n_bins)
    for decibels, row, length in zip(found, waveform, lengths, strict=True):
        own = row[:, :length].mean(axis=0)
        power = librosa.feature.melspectrogram(
            y=np.pad(own - own.mean(), (0, n - length)),
            sr=16000,
            n_fft=mel.n_fft,
            hop_length=mel.hop,
            n_mels=mel.n_bins,
            fmin=mel.low_hz,
        )
        wanted, heard = librosa.power_to_db(power, top_db=mel.top_db).T, mel.n_frames(length)
        floor = wanted.max() - 80  # below that float32 rounds
        difference = np.maximum(decibels[:heard], floor) - np.maximum(wanted[:heard], floor)
        assert np.abs(difference).max() < TOLERANCE_DB
        assert (decibels[heard:] == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", [{}, AUGMENTED, {"clip": AudioClip(seconds=0.32, channels=1)}])
def test_batches_equal_those_of_the_cpu_path(split, changes, device, caplog):
    fast, slow = loader(split, device=device, **changes), loader(split, "cpu", on_device=False, **changes)
    assert finish_of(fast) is DaliSpectrograms
    for _ in range(2):
        for batch, expected in zip(fast, slow, strict=True):
            assert batch.spectrogram.device == batch.waveform.device == device
            assert_same(batch, expected)
    assert fast.state_dict() == slow.state_dict()
    assert fast.stats()["samples"] == slow.stats()["samples"]
    assert fast.stats()["read_bytes"] == slow.stats()["read_bytes"] > 0
    assert not caplog.records, "no batch was made by torch"


def test_batches_may_shrink_and_grow(split):
    waveforms, finish, plain = samplers(split)
    for indexes in ([0, 1], [2], [3, 1, 0, 14], [5, 6, 7]):
        assert_same(finish(made_of(waveforms, indexes), CPU), made_of(plain, indexes))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_order_and_resume_do_not_depend_on_the_backend(split, workers):
    check_order(partial(loader, split, **AUGMENTED), batch_size=4, workers=workers)


def test_a_bad_sound_is_replaced_and_its_batch_is_whole(split, tmp_path, caplog):
    shutil.copytree(split, tmp_path / "split")
    name, offset, size = Manifest.load(tmp_path / "split").member(3, "flac")
    path = tmp_path / "split" / name
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.random.default_rng(0).bytes(size))
    settings = {"shuffle": False, "max_bad_fraction": 0.5}
    with caplog.at_level(logging.WARNING):
        fast, slow = (loader(tmp_path / "split", backend, **settings) for backend in ("dali", "cpu"))
        for batch, expected in zip(fast, slow, strict=True):
            assert_same(batch, expected)
    assert fast.stats()["bad"] == slow.stats()["bad"] > 0
    assert "DALI failed" not in caplog.text


class Broken:
    max_batch_size = 100

    def run(self, **inputs):
        raise RuntimeError("out of memory")


def test_torch_makes_the_batch_if_dali_fails(split, caplog):
    waveforms, finish, plain = samplers(split)
    finish._pipeline = Broken()
    for _ in range(2):
        assert_same(finish(made_of(waveforms, range(4)), CPU), made_of(plain, range(4)))
    assert [record.message for record in caplog.records] == [
        "DALI failed, so torch computes the spectrograms: out of memory"
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"features": Fbank(), "statistics": None}, "features=Fbank"),
        ({"backend": "gpu"}, r"backend must be.*did\ you\ mean\ 'cpu'\?"),
    ],
)
def test_settings_that_dali_cannot_serve_are_refused(split, changes, says):
    with pytest.raises(ValueError, match=says):
        loader(split, **changes)


def test_dali_serves_only_where_it_is_asked_for_also_in_a_mixture(split):
    assert finish_of(loader(split, "auto", device=CUDA)) is not DaliSpectrograms
    assert finish_of(loader(split, "dali")) is DaliSpectrograms
    own = AudioData(clip=AudioClip(seconds=0.64), features=LogMel(), statistics=(-30.0, DEVIATION), backend="dali")
    mixed = mix([(own.source(Split.open(split, "audio", device="cpu", threads=1)), 1)])
    assert type(mixed.finish) is DaliSpectrograms
