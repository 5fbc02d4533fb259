"""LMD: patches of latents, their targets, and pictures that are drawn from completed latents."""

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.papers.lmd.model import LatentAutoencoderConfig

SIZES = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
GRIDS = {"image": compute_image_grid(32, 8)}


@pytest.fixture
def model():
    config = LatentAutoencoderConfig(
        vq=None, quantiser=SIZES, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2
    )
    return config.build(GRIDS, seed=1).eval()


@pytest.fixture
def batch():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    mask = Random(ratio=0.75).draw(GRIDS["image"], [np.random.default_rng(i) for i in range(3)])
    return ImageBatch(image=image, mask=mask, label=torch.full((3,), -1), key=list("abc"))


def test_a_token_is_a_patch_of_latents(model, batch):
    latents, _ = model.tokens.of(batch)
    assert latents.shape == (3, 8, 8, 2)
    assert latents.abs().max() <= 1
    tokens = model.tokens.split(latents)
    assert tokens.shape == (3, 16, 8)
    assert torch.equal(tokens[:, 6].view(3, 2, 2, 2), latents[:, 2:4, 4:6])
    assert torch.equal(model.tokens.join(tokens), latents)


def test_targets_have_mean_0_and_variance_1(model, batch):
    latents, mask = model.tokens.of(batch)
    targets = model.tokens.targets(gather_tokens(model.tokens.split(latents), mask.target))
    assert targets.mean(dim=2).abs().max() < 1e-5
    assert targets.var(dim=2).mean().item() == pytest.approx(1, abs=0.02)
    made = model.predict(latents, mask.visible, mask.target)
    assert model(batch).loss().item() == pytest.approx((made - targets).square().mean().item(), rel=1e-5)


def test_true_predictions_draw_the_picture_of_its_latents(model, batch):
    latents, mask = model.tokens.of(batch)
    targets = model.tokens.targets(gather_tokens(model.tokens.split(latents), mask.target))
    made = model.tokens.completed(batch, targets)
    whole = model.tokens.vq.drawn(latents.permute(0, 3, 1, 2))
    assert (made.image.int() - whole.int()).abs().max() <= 1
    assert made.image.shape == batch.image.shape
    assert (model.reconstructed(batch).image != whole).any()


def test_only_the_autoencoder_of_latents_learns(model, batch):
    model.train()(batch).loss().backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None}
    assert not any(name.startswith("tokens.") for name in learns)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learns


def test_patches_that_cells_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="a multiple of 4"):
        LatentAutoencoderConfig(vq=None, quantiser=SIZES).build({"image": compute_image_grid(36, 6)})
