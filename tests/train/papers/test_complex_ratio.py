"""The ideal complex ratio mask: it gives the clean spectrum back, its bounds are the published ones, and invert."""

import numpy as np
import pytest
import torch

from maskstream.train.papers.ca_dense_unet.complex_ratio import ComplexRatio


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
        assert torch.isfinite(torch.view_as_real(ratio.unbounded(limit))).all()


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
    with pytest.raises(ValueError, match="bound is one of parts, magnitude, none, got 'tanh'"):
        ComplexRatio(bound="tanh")
    with pytest.raises(ValueError, match="must be > 0, got limit=0"):
        ComplexRatio(limit=0)
    with pytest.raises(ValueError, match="complex spectra of one shape"):
        ComplexRatio().target(mixture, clean[:1])
    with pytest.raises(ValueError, match=r"got .* torch.float32"):
        ComplexRatio().target(mixture.abs(), clean)
