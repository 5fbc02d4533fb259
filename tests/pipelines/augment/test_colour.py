"""Colour jitter as one matrix equals its four changes one after the other."""

import numpy as np
import pytest

from maskstream.pipelines.augment.colour import ColourJitter

LUMA = np.array([0.299, 0.587, 0.114])
NONE = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def image(seed=0):
    return np.random.default_rng(seed).integers(60, 190, (16, 12, 3), dtype=np.uint8)


def jittered(pixels, seed, **settings):
    changed = pixels.copy()
    ColourJitter(**{**NONE, **settings})(changed, np.random.default_rng(seed))
    return changed


def grey(pixels):
    return pixels @ LUMA


@pytest.mark.parametrize("seed", range(8))
def test_each_change_follows_its_definition(seed):
    pixels = image()
    bright = jittered(pixels, seed, brightness=0.2)
    factors = bright[pixels > 60] / pixels[pixels > 60]
    assert 0.8 - 0.01 < factors.mean() < 1.2 + 0.01
    assert factors.std() < 0.01

    contrast = jittered(pixels, seed, contrast=0.3).astype(float)
    assert grey(contrast).mean() == pytest.approx(grey(pixels).mean(), abs=0.7)
    assert 0.69 < contrast.std() / pixels.std() < 1.31

    saturated = jittered(pixels, seed, saturation=0.3).astype(float)
    np.testing.assert_allclose(grey(saturated), grey(pixels), atol=1)

    turned = jittered(pixels, seed, hue=0.05).astype(float)
    np.testing.assert_allclose(grey(turned), grey(pixels), atol=1.5)


def test_draws_differ_and_repeat():
    pixels = image()
    drawn = [jittered(pixels, seed, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1) for seed in range(4)]
    assert len({d.tobytes() for d in drawn}) == 4
    np.testing.assert_array_equal(drawn[2], jittered(pixels, 2, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1))


def test_the_matrix_is_the_four_steps_in_their_order():
    pixels, jitter = image().astype(float), ColourJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    for seed in range(20):
        matrix = jitter.matrix(pixels.reshape(-1, 3).mean(axis=0), np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        brightness, contrast, saturation = (rng.uniform(0.7, 1.3) for _ in range(3))
        angle = 2 * np.pi * rng.uniform(-0.1, 0.1)
        wanted = pixels.copy()
        yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
        for step in rng.permutation(4).tolist():
            if step == 0:
                wanted = wanted * brightness
            elif step == 1:
                wanted = (wanted - grey(wanted).mean()) * contrast + grey(wanted).mean()
            elif step == 2:
                wanted = (wanted - grey(wanted)[..., None]) * saturation + grey(wanted)[..., None]
            else:
                y, i, q = np.moveaxis(wanted @ yiq.T, 2, 0)
                i, q = np.cos(angle) * i - np.sin(angle) * q, np.sin(angle) * i + np.cos(angle) * q
                wanted = np.stack([y, i, q], axis=2) @ np.linalg.inv(yiq).T
        np.testing.assert_allclose(pixels @ matrix[:, :3].T + matrix[:, 3], wanted, atol=1e-9)


def test_nothing_is_changed_without_bounds_or_without_luck():
    pixels = image()
    np.testing.assert_array_equal(jittered(pixels, 0), pixels)
    np.testing.assert_array_equal(jittered(pixels, 0, brightness=0.5, share=0.0), pixels)
    changed = [not np.array_equal(jittered(pixels, seed, brightness=0.5, share=0.5), pixels) for seed in range(200)]
    assert 70 < sum(changed) < 130


@pytest.mark.parametrize(("name", "value"), [("brightness", -0.1), ("contrast", -1), ("hue", 0.6), ("share", 1.1)])
def test_wrong_settings(name, value):
    with pytest.raises(ValueError, match=name):
        ColourJitter(**{name: value})
