"""Losses of hidden ids, those of counts, and distances of sets of pictures."""

import math

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import DropAndMask
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData, compute_image_grid
from maskstream.train.evaluate.hidden_ids import IdCounts
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.papers.mage.evaluate import (
    compute_cell_colours,
    compute_frechet_distance,
    generate_ids,
    measure_distances,
    measure_hidden_ids,
)
from maskstream.train.papers.mage.model import GenerativeEncoderConfig


def normal(n, scale, shift, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, 3)) * np.array(scale) + np.array(shift))


def test_the_distance_is_that_of_moments():
    one = normal(50, (1, 2, 3), (0, 0, 0))
    assert compute_frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert compute_frechet_distance(one, one + torch.tensor([3.0, 0, 4])) == pytest.approx(25)
    widened = torch.cov(one.T).trace() + one.mean(dim=0).square().sum()
    assert compute_frechet_distance(2 * one, one) == pytest.approx(float(widened))


def test_the_distance_of_independent_values_is_that_of_their_deviations():
    one, other = normal(200_000, (1, 2, 3), (0, 1, 0)), normal(200_000, (2, 2, 5), (0, 0, 0), seed=1)
    assert compute_frechet_distance(one, other) == pytest.approx(1 + 1 + 4, rel=0.03)


def test_colours_are_means_of_cells():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    colours = compute_cell_colours(image, 4).view(2, 3, 2, 2)
    assert torch.allclose(colours[1, :, 0, 1], image[1, :4, 4:].double().mean(dim=(0, 1)))


def test_real_pictures_are_nearer_than_what_an_untrained_model_draws():
    quantiser = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
    config = GenerativeEncoderConfig(
        vq=None, quantiser=quantiser, width=16, depth=1, heads=2, decoder_depth=1, decoder_heads=2
    )
    model = config.build({"image": compute_image_grid(16, 4)}, seed=1).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (80, 4, 4, 3), dtype=np.uint8))
    image = image.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    found = measure_distances(model, image[:40], image[40:], IdCounts.of([model.vq.ids(image)], 32))
    assert found.count == 40
    assert found.baselines["real training pictures"] < min(
        found.value, found.baselines["images of ids drawn by frequency"]
    )
    ids = generate_ids(model, 40, rounds=3)
    assert ids.shape == (40, 16)
    assert torch.equal(ids, generate_ids(model, 40, rounds=3))
    assert not torch.equal(ids[:32], generate_ids(model, 40, rounds=3, seed=1)[:32])
    assert not torch.equal(ids[:8], ids[32:])


def test_counts_are_those_of_ids_and_of_both_ways_to_a_neighbour():
    counts = IdCounts.of([torch.tensor([[[0, 1], [0, 2]]])], 4)
    assert counts.single.tolist() == [3, 2, 2, 1]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for one, other in ((0, 1), (0, 2), (0, 0), (1, 2)):
        expected[one, other] += 1
        expected[other, one] += 1
    assert torch.equal(counts.pairs, expected)
    assert counts.alone(torch.tensor([0, 3])).tolist() == pytest.approx([math.log(8 / 3), math.log(8)])
    beside = counts.beside(torch.tensor([1]), torch.tensor([0]), 8.0).item()
    assert beside == pytest.approx(-math.log((1 + 8 * 2 / 8) / (4 + 8)))


def test_probabilities_beside_an_id_sum_to_one():
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 6, (5, 8, 8)))
    counts = IdCounts.of([ids], 6)
    losses = counts.beside(torch.arange(6), torch.full((6,), 2), 10.0)
    assert (-losses).exp().sum().item() == pytest.approx(1)


def test_an_untrained_model_is_no_better_than_counts():
    quantiser = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
    config = GenerativeEncoderConfig(
        vq=None, quantiser=quantiser, width=32, depth=1, heads=2, decoder_depth=1, decoder_heads=2
    )
    data = ImageData(size=16, patch=4, mask=DropAndMask(ratio=0.75))
    model = config.build(data.grids, seed=1).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8))
    mask = data.mask.draw(data.grids["image"], [np.random.default_rng(i) for i in range(32)])
    batch = ImageBatch(image=image, mask=mask, label=torch.full((32,), -1), key=[""] * 32)
    counts = IdCounts.of([model.vq.ids(image)], 32)
    found = measure_hidden_ids(model, [batch], counts)
    assert found.ids == 32 * 12
    assert abs(found.model - math.log(32)) < 0.3
    assert found.alone < found.model
    assert found.right < 0.5
    score = found.scores("beside", "copied")[0]
    assert score.baselines["counts of ids"] == found.alone
    assert score.value == found.model
    with pytest.raises(ValueError, match="got none"):
        measure_hidden_ids(model, [], counts)
