"""Quantisers: the nearest codes, pixels of pictures and clips, gradients, and a quantiser of a run in another model."""

import pytest
import torch

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.train import load_model, save_model
from maskstream.train.nn.quantiser import FrozenQuantiser, Levels, Quantiser, QuantiserConfig, to_inputs
from maskstream.train.papers.vq.model import ImageVQConfig

SIZES = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16), rounds=1)
GRIDS = {"image": compute_image_grid(16, 4)}


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (3, 16, 16, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture
def model():
    return ImageVQConfig(quantiser=SIZES).build(GRIDS, seed=3)


@pytest.fixture
def run(model, tmp_path):
    save_model(model, tmp_path / "vq.safetensors")
    return tmp_path / "vq.safetensors"


def batch_of(pixels):
    return ImageBatch(image=pixels, mask=None, label=torch.full((len(pixels),), -1), key=[""] * len(pixels))


def test_an_id_is_that_of_the_nearest_levels(model, pixels):
    quantiser = model.quantiser
    latents = quantiser.latents(pixels)
    ids = quantiser.rounding.ids(latents)
    levels = torch.cartesian_prod(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 4)).flip(1)
    points = latents.permute(0, 2, 3, 1).reshape(-1, 2)
    assert torch.equal(ids.flatten(), torch.cdist(points, levels).argmin(dim=1))
    assert ids.shape == (3, 4, 4)
    nearest = quantiser.rounding.latents(ids)
    assert torch.allclose(nearest.permute(0, 2, 3, 1).reshape(-1, 2), levels[ids.flatten()])
    assert torch.allclose(quantiser.rounding(latents), nearest, atol=1e-6)
    assert len(ids.unique()) > 3


def test_every_id_has_its_latents_and_every_latent_its_id():
    rounding = Levels((8, 6, 5))
    ids = torch.arange(240).view(1, 12, 20)
    latents = rounding.latents(ids)
    assert torch.equal(rounding.ids(latents), ids)
    assert torch.equal(torch.stack((latents.amin(), latents.amax())), torch.tensor([-1.0, 1.0]))


def test_the_gradient_passes_the_rounding_as_it_is():
    latents = torch.rand((2, 2, 3, 3), generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents.requires_grad_()
    grown = torch.rand((2, 2, 3, 3), generator=torch.Generator().manual_seed(1))
    (Levels((4, 8))(latents) * grown).sum().backward()
    assert torch.equal(latents.grad, grown)


def test_frames_are_pictures(model, pixels):
    clips = torch.stack((pixels, pixels.flip(1)), dim=1)
    ids = model.quantiser.ids(clips)
    assert ids.shape == (3, 2, 4, 4)
    assert ids.dtype == torch.int64
    assert torch.equal(ids[:, 0], model.quantiser.ids(pixels))
    drawn = model.quantiser.decode(ids)
    assert drawn.shape == clips.shape
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn[:, 1], model.quantiser.decode(ids[:, 1]))


def test_ids_do_not_depend_on_the_precision_of_a_run(model, pixels):
    with torch.autocast("cpu", torch.bfloat16):
        found = model.quantiser.ids(pixels)
    assert torch.equal(found, model.quantiser.ids(pixels))


def test_the_loss_is_that_of_pictures_drawn_from_ids(model, pixels):
    losses = model(batch_of(pixels))
    quantiser = model.quantiser
    drawn = quantiser.drawn(quantiser.rounding.latents(quantiser.ids(pixels)))
    assert losses.loss().item() == pytest.approx((drawn - to_inputs(pixels)).square().mean().item(), rel=1e-5)
    losses.loss().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_tokens_that_are_no_cells_are_refused():
    with pytest.raises(ValueError, match=r"data\.patch=4"):
        ImageVQConfig(quantiser=SIZES).build({"image": compute_image_grid(16, 8)})
    with pytest.raises(ValueError, match="cells of 4"):
        Quantiser(SIZES).ids(torch.zeros(1, 18, 16, 3, dtype=torch.uint8))


def test_a_frozen_quantiser_has_the_ids_of_its_run_and_no_gradient(run, model, pixels):
    frozen = FrozenQuantiser(SIZES, str(run))
    assert torch.equal(frozen.ids(pixels), model.quantiser.ids(pixels))
    assert torch.equal(frozen.decode(frozen.ids(pixels)), model.reconstructed(batch_of(pixels)).image)
    assert not any(p.requires_grad for p in frozen.parameters())
    other = FrozenQuantiser(SIZES, None)
    assert not torch.equal(other.ids(pixels), frozen.ids(pixels))


def test_a_saved_frozen_quantiser_needs_no_file(run, pixels):
    frozen = FrozenQuantiser(SIZES, str(run))
    run.unlink()
    again = FrozenQuantiser(SIZES, str(run))
    with pytest.raises(ValueError, match=r"is missing; train one .*vq-tiny"):
        again.ids(pixels)
    again.load_state_dict(frozen.state_dict())
    assert torch.equal(again.ids(pixels), frozen.ids(pixels))


def test_a_model_without_memory_reads_no_file(run):
    with torch.device("meta"):
        assert FrozenQuantiser(SIZES, str(run)).loaded.is_meta


def test_a_quantiser_of_other_sizes_is_refused_when_it_is_used(run, pixels):
    with pytest.raises(ValueError, match=r"set model\.quantiser"):
        FrozenQuantiser(QuantiserConfig(levels=(8, 8), stem=2, widths=(8, 16)), str(run)).ids(pixels)
    assert load_model(run).config.quantiser == SIZES
