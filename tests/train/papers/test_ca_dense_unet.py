"""The complex ratio mask and the Channel-Attention Dense U-Net: inverses, bounds, attention by hand, and a run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines import AudioClip
from maskstream.pipelines.modalities.audio.batch import NoisyBatch
from maskstream.pipelines.modalities.audio.rows import MicrophoneLine
from maskstream.preprocess.encode.audio.encoder import encode_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.shards.config import with_set
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member
from maskstream.train import load_model, named_recipe, read_metrics, save_model, train
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.papers.ca_dense_unet.evaluate import measure_gains
from maskstream.train.papers.ca_dense_unet.model import ChannelAttention, ComplexRatio, DenseUNetConfig, compute_si_sdr
from maskstream.train.recipes import RECIPES

from ...pages.pages import write_report
from ...splits import write_samples

SMALL = DenseUNetConfig(
    microphones=2, n_samples=2048, n_fft=128, hop=64, width=6, depth=2, layers=1, growth=4, attention=6
)


def spectra(seed: int = 0, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixture and clean, complex64 (2, 3, 65, T), of three microphones."""
    rng = np.random.default_rng(seed)
    clean = torch.from_numpy(rng.normal(size=(6, 4096)).astype(np.float32))
    mixture = clean + noise * torch.from_numpy(rng.normal(size=(6, 4096)).astype(np.float32))
    window = torch.hann_window(128)
    mix, true = (torch.stft(x, 128, window=window, return_complex=True) for x in (mixture, clean))
    return mix.unflatten(0, (2, 3)), true.unflatten(0, (2, 3))


@pytest.mark.parametrize("bound", ["none", "parts", "magnitude"])
def test_the_mask_gives_the_clean_spectrum_back(bound: str) -> None:
    mixture, clean = spectra()
    ratio = ComplexRatio(bound=bound)
    mask = ratio.target(mixture, clean)
    assert mask.shape == mixture.shape
    restored = ratio.apply(mask, mixture)
    error = (restored - clean).abs() / clean.abs().mean()
    within = (clean / mixture).abs() < 60  # a larger one comes so near to the bound that float32 cannot tell
    assert within.double().mean() > 0.999
    assert float(error[within].max()) < (1e-5 if bound == "none" else 1e-3)
    wave = torch.istft(restored.flatten(0, 1), 128, window=torch.hann_window(128))
    true = torch.istft(clean.flatten(0, 1), 128, window=torch.hann_window(128))
    assert float((wave - true).abs().max()) < (1e-4 if bound == "none" else 0.05)


def test_the_bounds_are_the_published_ones() -> None:
    mixture, clean = (s.to(torch.complex128) for s in spectra())
    ratio = clean / mixture
    compressed = ComplexRatio().target(mixture, clean)
    for part, full in ((compressed.real, ratio.real), (compressed.imag, ratio.imag)):
        published = 10 * (1 - torch.exp(-0.1 * full)) / (1 + torch.exp(-0.1 * full))
        torch.testing.assert_close(part, published)
        assert float(part.abs().max()) <= 10
    deep = ComplexRatio(bound="magnitude", limit=1.0, steepness=2.0).target(mixture, clean)
    torch.testing.assert_close(deep.abs(), torch.tanh(ratio.abs()))
    torch.testing.assert_close(deep / deep.abs(), ratio / ratio.abs())


def test_silence_and_the_limit_stay_finite() -> None:
    mixture, clean = (s[:, :, :, :4].clone() for s in spectra())
    mixture[..., 0], clean[..., 1] = 0, 0
    for bound in ("none", "parts", "magnitude"):
        ratio = ComplexRatio(bound=bound)
        mask = ratio.target(mixture, clean)
        assert torch.isfinite(torch.view_as_real(mask)).all()
        restored = ratio.apply(mask, mixture)
        assert (restored[..., 0] == 0).all()
        assert float(restored[..., 1].abs().max()) < 1e-6
        limit = torch.complex(torch.full((3,), 10.0), torch.full((3,), -10.0))
        assert torch.isfinite(torch.view_as_real(ratio.invert_bounds(limit))).all()


@pytest.mark.parametrize("bound", ["none", "parts", "magnitude"])
def test_a_model_learns_through_it(bound: str) -> None:
    mixture, clean = spectra()
    ratio = ComplexRatio(bound=bound)
    mask = torch.zeros_like(mixture, requires_grad=True)
    loss = (ratio.apply(mask, mixture) - clean).abs().square().sum()
    (gradient,) = torch.autograd.grad(loss, mask)
    with torch.no_grad():
        better = (ratio.apply(mask - 1e-4 * gradient, mixture) - clean).abs().square().sum()
    assert float(better) < 0.999 * loss.item()


def test_wrong_settings_and_spectra_are_refused() -> None:
    mixture, clean = spectra()
    with pytest.raises(ValueError, match="bound must be 'parts', 'magnitude' or 'none', got 'tanh'"):
        ComplexRatio(bound="tanh")
    with pytest.raises(ValueError, match="limit must be a number above 0, got 0"):
        ComplexRatio(limit=0)
    with pytest.raises(ValueError, match="complex spectra of one shape"):
        ComplexRatio().target(mixture, clean[:1])
    with pytest.raises(ValueError, match=r"got .* torch.float32"):
        ComplexRatio().target(mixture.abs(), clean)


def sounds(n=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, 2048, generator=generator), torch.randn(n, 2, 2048, generator=generator)


def batch_of(mixture, clean):
    n = len(mixture)
    return NoisyBatch(mixture=mixture, clean=clean, snr_db=torch.zeros(n), label=torch.zeros(n), key=["a"] * n)


def test_at_first_every_mask_is_one_and_the_loss_is_one():
    for target in ("sound", "ratio"):
        model = replace(SMALL, target=target).build({})
        mixture, clean = sounds()
        with torch.no_grad():
            kept = model.enhance(mixture)
            assert (kept - mixture).square().mean() < 0.02 * mixture.square().mean(), "all but the highest frequency"
            assert float(model(batch_of(mixture, clean)).loss()) == pytest.approx(1.0, abs=0.01)


def test_the_mask_is_a_true_complex_product():
    model = SMALL.build({})
    mixture, clean = sounds()
    spectrum, wanted = model.spectra(mixture), model.spectra(clean)
    ideal = wanted * spectrum.conj() / spectrum.abs().square().clamp_min(1e-12)
    made = model._sound(ideal * spectrum)
    again = model._sound(wanted)
    assert torch.allclose(made, again, atol=1e-3)
    assert compute_si_sdr(made, clean).min() > 15
    model.mask = lambda spectrum: ideal
    with torch.no_grad():
        assert float(model(batch_of(mixture, clean)).loss()) < 0.2
        model.config = replace(SMALL, target="ratio")
        assert float(model(batch_of(mixture, clean)).loss()) < 1e-4


def test_attention_between_channels_by_hand():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = ChannelAttention(frames=7, length=3)
    x = torch.randn(2, 5, 4, 7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(attention(x), x), "at first it adds nothing"
    with torch.no_grad():
        attention.share.fill_(0.5)
        got = attention(x)
        for b, f in ((0, 0), (1, 3)):
            rows = x[b, :, f]
            q, k = attention.query(rows), attention.key(rows)
            wanted = rows + 0.5 * torch.softmax(q @ k.T / 3**0.5, dim=1) @ rows
            assert torch.allclose(got[b, :, f], wanted, atol=1e-5)


def test_loudness_does_not_matter():
    model = SMALL.build({}).eval()
    torch.nn.init.constant_(model.leave.weight, 0.05)
    mixture, _ = sounds()
    with torch.no_grad():
        assert torch.allclose(model.enhance(100 * mixture), 100 * model.enhance(mixture), rtol=1e-3, atol=1e-2)


def test_si_sdr_is_its_formula():
    rng = np.random.default_rng(0)
    clean, noise = rng.normal(size=1000), rng.normal(size=1000)
    clean -= clean.mean()
    noise -= noise.mean() + (noise @ clean) / (clean @ clean) * clean
    estimate = 3 * (clean + 0.1 * noise)
    wanted = 10 * np.log10((clean @ clean) / (0.01 * (noise - noise.mean()) @ (noise - noise.mean())))
    assert float(compute_si_sdr(torch.from_numpy(estimate), torch.from_numpy(clean))) == pytest.approx(wanted, abs=0.05)


def test_sizes_that_do_not_fit_are_refused_and_files_keep_them(tmp_path):
    for wrong in ({"n_samples": 2000}, {"width": 0}, {"target": "mask"}, {"depth": 6}):
        with pytest.raises(ValueError, match=r"must be multiples|at least 1|target must be"):
            replace(SMALL, **wrong)
    with pytest.raises(ValueError, match="use the same clip"):
        SMALL.build({}).enhance(torch.zeros(1, 3, 2048))
    with pytest.raises(ValueError, match="microphones"):
        with_set(named_recipe("ca-dense-unet-tiny"), ["line.count=3"])
    model = SMALL.build({}, seed=3)
    save_model(model, tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").config == SMALL
    assert sum(p.numel() for p in named_recipe("ca-dense-unet-tiny").build().parameters()) < 2e6


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Eight harmonic sounds."""
    out = tmp_path_factory.mktemp("harmonic")
    time = np.arange(6000) / 16000
    samples = []
    for i in range(8):
        base = np.random.default_rng(i).uniform(150, 500)
        wave = sum(np.sin(2 * np.pi * base * k * time) / k for k in range(1, 8))
        sound = Sound(
            samples=np.rint(3000 * wave)[:, None].astype(np.int32),
            bits=16,
            sample_rate=16000,
            codec="pcm_s16le",
            container="wav",
        )
        made = encode_sound(sound)
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"h{i}", members=members, source=f"{i}", sums=made.sums))
    return write_samples(out, samples, "audio", dataset="h", profile="flac")


def test_a_run_takes_noise_away_and_is_reported(split, tmp_path, monkeypatch):
    tiny = named_recipe("ca-dense-unet-tiny")
    recipe = replace(
        tiny,
        name="enhance-test",
        data=replace(tiny.data, clip=AudioClip(seconds=0.128), line=MicrophoneLine(count=2)),
        model=SMALL,
        schedule=ScheduleConfig(base_lr=0.5, min_lr=0.05, steps=60),
    )
    monkeypatch.setitem(RECIPES, recipe.name, lambda: recipe)
    train(recipe, split, tmp_path / "run", device="cpu", threads=1, progress=False)
    losses = [m.loss for m in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert losses[0] == pytest.approx(1.0, abs=0.05)
    model = load_model(tmp_path / "run/model.safetensors")
    loss, before, after, samples = measure_gains(recipe.data, model, Manifest.load(split))
    assert samples == 8
    assert loss < 0.8
    assert after > before + 2
    page = write_report(tmp_path / "run", split, clips=2).read_text(encoding="utf-8")
    assert page.count("data:image/webp") >= 6
    assert f"{after - before:.3g} dB above the noisy audio ({before:.4g} dB)" in page
