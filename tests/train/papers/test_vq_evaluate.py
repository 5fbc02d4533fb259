"""Errors of quantisers, and what they are compared with."""

import numpy as np
import pytest
import torch

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.papers.vq.evaluate import cluster, cut_cells, find_nearest, measure_drawings, shrink
from maskstream.train.papers.vq.model import ImageVQConfig


def test_as_many_means_as_points_leave_no_error_and_fewer_leave_the_least():
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0], [12.0]])
    assert torch.equal(find_nearest(points, cluster(points, 5)), points)
    assert torch.equal(find_nearest(points, cluster(points, 2)).flatten(), torch.tensor([0.5, 0.5, 11.0, 11.0, 11.0]))


def test_cells_are_parts_of_pictures():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    cells = cut_cells(image, 4)
    assert torch.equal(cells[6].view(3, 4, 4).permute(1, 2, 0), image[1, 4:, :4].float())


def test_pictures_of_flat_cells_lose_only_their_edges_when_they_are_shrunk():
    flat = torch.full((1, 16, 16, 3), 77, dtype=torch.uint8)
    assert torch.equal(shrink(flat, 4), flat.float())
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8))
    lost = (shrink(noise, 4) - noise.float()).square().mean().sqrt().item()
    assert lost == pytest.approx(256 / 12**0.5, rel=0.1)


def test_errors_are_those_of_what_is_drawn():
    sizes = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
    model = ImageVQConfig(quantiser=sizes).build({"image": compute_image_grid(16, 4)}, seed=3).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    batch = ImageBatch(image=image, mask=None, label=torch.full((40,), -1), key=[""] * 40)
    found, notes = measure_drawings(model, [batch], [batch])
    drawn = model.reconstructed(batch).image.double()
    assert found.value == pytest.approx(float((drawn - image.double()).square().mean().sqrt()), rel=1e-5)
    assert notes["ids in use"] == len(model.quantiser.ids(image).unique()) <= 32
    assert 1 <= notes["perplexity"] <= notes["ids in use"]
    assert found.best == "k-means of whole cells"
    with pytest.raises(ValueError, match="got none"):
        measure_drawings(model, [], [batch])
