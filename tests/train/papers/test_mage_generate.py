"""Distances of sets of pictures."""

import numpy as np
import pytest
import torch

from maskstream.pipelines.modalities.image.data import image_grid
from maskstream.train.evaluate.id_counts import IdCounts
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.papers.mage.generate import cell_colours, frechet_distance, generated_ids, set_distances
from maskstream.train.papers.mage.model import GenerativeEncoderConfig


def normal(n, scale, shift, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, 3)) * np.array(scale) + np.array(shift))


def test_the_distance_is_that_of_moments():
    one = normal(50, (1, 2, 3), (0, 0, 0))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one + torch.tensor([3.0, 0, 4])) == pytest.approx(25)
    widened = torch.cov(one.T).trace() + one.mean(dim=0).square().sum()
    assert frechet_distance(2 * one, one) == pytest.approx(float(widened))


def test_the_distance_of_independent_values_is_that_of_their_deviations():
    one, other = normal(200_000, (1, 2, 3), (0, 1, 0)), normal(200_000, (2, 2, 5), (0, 0, 0), seed=1)
    assert frechet_distance(one, other) == pytest.approx(1 + 1 + 4, rel=0.03)


def test_colours_are_means_of_cells():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    colours = cell_colours(image, 4).view(2, 3, 2, 2)
    assert torch.allclose(colours[1, :, 0, 1], image[1, :4, 4:].double().mean(dim=(0, 1)))


def test_real_pictures_are_nearer_than_what_an_untrained_model_draws():
    quantiser = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
    config = GenerativeEncoderConfig(
        vq=None, quantiser=quantiser, width=16, depth=1, heads=2, decoder_depth=1, decoder_heads=2
    )
    model = config.build({"image": image_grid(16, 4)}, seed=1).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (80, 4, 4, 3), dtype=np.uint8))
    image = image.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    found = set_distances(model, image[:40], image[40:], IdCounts.of([model.vq.ids(image)], 32))
    assert found.n == 40
    assert found.trained < min(found.model, found.alone)
    ids = generated_ids(model, 40, rounds=3)
    assert ids.shape == (40, 16)
    assert torch.equal(ids, generated_ids(model, 40, rounds=3))
    assert not torch.equal(ids[:32], generated_ids(model, 40, rounds=3, seed=1)[:32])
    assert not torch.equal(ids[:8], ids[32:])
