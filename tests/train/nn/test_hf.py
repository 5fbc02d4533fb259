"""transformers' VideoMAE and ViTMAE against this package's model, in float64, and their files read and written."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from maskstream.pipelines.masks import Dual, Maps, Random, Tube
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.train.models import from_hf, load_hf, to_hf, to_hf_config
from maskstream.train.nn.foreign import export_hf

SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}
LOSS, GRADIENT = 1e-9, 1e-7
"""How far loss and gradients may be off in float64; the latter relative to the norm of the gradient."""


def hf():
    """transformers, which takes 3 s: imported by the process that runs a test, not by all that collect it."""
    return pytest.importorskip("transformers")


@cache
def of_videos():
    return hf().VideoMAEConfig(num_frames=4, tubelet_size=2, use_mean_pooling=False, **SIZES)


@cache
def of_images():
    return hf().ViTMAEConfig(norm_pix_loss=True, **SIZES)


def drawn(model_type, config, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        torch.set_default_dtype(dtype)
        try:
            model = model_type(config)
            if isinstance(model, hf().ViTMAEForPreTraining):
                place(model.vit.embeddings.position_embeddings)
                place(model.decoder.decoder_pos_embed)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
        finally:
            torch.set_default_dtype(torch.float32)
    return model


def place(embeddings):
    """Writes MAE's positions, which this version of transformers leaves at 0 in a model without a checkpoint."""
    side, width = round((embeddings.shape[1] - 1) ** 0.5), embeddings.shape[2]
    table = hf().models.vit_mae.modeling_vit_mae.build_2d_sinusoidal_position_embedding(
        side, side, width, cls_token=True
    )
    embeddings.data.copy_(torch.cat(table.chunk(2, dim=1)[::-1], dim=1)[None])


def in_float64(theirs):
    """This package's model with the same weights, in float64 from the constants on."""
    torch.set_default_dtype(torch.float64)
    try:
        return from_hf(theirs.config.to_dict(), theirs.state_dict())
    finally:
        torch.set_default_dtype(torch.float32)


def check_gradients(ours, theirs):
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    for parameter in ours.parameters():
        parameter.data = parameter.grad
    got = to_hf(ours)
    assert got.keys() >= expected.keys()
    for name, gradient in expected.items():
        if "k_proj.bias" in name:
            assert gradient.abs().max() < 1e-15, "a bias for key changes nothing"
        else:
            assert float((got[name] - gradient).norm() / gradient.norm()) < GRADIENT, name


@pytest.fixture
def theirs():
    return drawn(hf().VideoMAEForPreTraining, of_videos())


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (3, 32, 32, 3), generator=generator).to(torch.uint8)
    noise = torch.rand(3, 16, generator=generator)
    order = noise.argsort(dim=1)
    masked = torch.ones(3, 16, dtype=torch.bool).scatter(1, order[:, :4], False)
    mask = Maps.batched([Maps(hidden=one.numpy()) for one in masked], compute_image_grid(32, 8))
    return ImageBatch(image=image, mask=mask, label=torch.full((3,), -1), key=["a", "b", "c"]), noise


@pytest.mark.parametrize("mask", [Tube(ratio=0.75), Random(ratio=0.9)], ids=["tube", "random"])
def test_a_batch_goes_straight_into_transformers_and_both_agree(theirs, synthetic_loader, mask):
    batch = synthetic_loader(mask=mask).make(0, 0)
    ours = in_float64(theirs)
    pixels = batch.pixel_values(dtype=torch.float64)
    their_loss = theirs(pixels, bool_masked_pos=batch.mask.masked).loss
    our_loss = ours(batch).loss()
    assert abs(our_loss.item() - their_loss.item()) < LOSS
    their_loss.backward()
    our_loss.backward()
    check_gradients(ours, theirs)


@pytest.mark.parametrize("normalised", [True, False])
def test_pictures_and_their_gradients_are_those_of_vit_mae(pictures, normalised):
    batch, noise = pictures
    theirs = drawn(hf().ViTMAEForPreTraining, hf().ViTMAEConfig(norm_pix_loss=normalised, **SIZES))
    ours = in_float64(theirs)
    made = theirs(batch.pixel_values(dtype=torch.float64), noise=noise.double())
    assert torch.equal(made.mask.bool(), batch.mask.masked)
    our_loss = ours(batch).loss()
    assert abs(our_loss.item() - made.loss.item()) < LOSS
    made.loss.backward()
    our_loss.backward()
    check_gradients(ours, theirs)


def test_dual_masks_are_the_same_model_with_fewer_queries(theirs, synthetic_loader):
    batch = synthetic_loader(mask=Dual(encoder=Tube(ratio=0.75))).make(0, 0)
    assert batch.mask.target.shape[1] == 16
    assert 0 < batch.mask.weight.mean().item() < 1
    assert torch.isfinite(in_float64(theirs)(batch).loss())


def test_weights_survive_the_way_there_and_back(recipe):
    ours = recipe.build(seed=1)
    copied = hf().VideoMAEForPreTraining(hf().VideoMAEConfig(**to_hf_config(ours)))
    copied.load_state_dict(to_hf(ours))
    back = from_hf(copied.config.to_dict(), copied.state_dict())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


def test_an_export_is_what_from_pretrained_reads(recipe, batch, tmp_path):
    ours = recipe.build(seed=1)
    export_hf(ours, tmp_path / "export")
    theirs = hf().VideoMAEForPreTraining.from_pretrained(tmp_path / "export")
    their_loss = theirs(batch.pixel_values(), bool_masked_pos=batch.mask.masked).loss
    assert ours(batch).loss().item() == pytest.approx(their_loss.item(), abs=1e-4)


def test_an_export_of_pictures_is_what_from_pretrained_reads(pictures, tmp_path):
    batch, noise = pictures
    ours = from_hf(of_images().to_dict(), drawn(hf().ViTMAEForPreTraining, of_images(), torch.float32).state_dict())
    export_hf(ours, tmp_path / "export")
    theirs = hf().ViTMAEForPreTraining.from_pretrained(tmp_path / "export")
    their_loss = theirs(batch.pixel_values(), noise=noise).loss
    assert ours(batch).loss().item() == pytest.approx(their_loss.item(), abs=1e-5)


def test_a_saved_video_model_has_the_same_features(batch, tmp_path):
    drawn(hf().VideoMAEForPreTraining, of_videos(), torch.float32).save_pretrained(tmp_path)
    ours, theirs = load_hf(tmp_path), hf().VideoMAEModel.from_pretrained(tmp_path)
    every = torch.arange(32).expand(len(batch), -1)
    features = theirs(batch.pixel_values()).last_hidden_state
    assert torch.allclose(ours.encode(batch.video, every), features, atol=1e-5)


def test_saved_pictures_have_the_same_features(pictures, tmp_path):
    batch, noise = pictures
    drawn(hf().ViTMAEForPreTraining, of_images(), torch.float32).save_pretrained(tmp_path)
    ours, theirs = load_hf(tmp_path), hf().ViTMAEForPreTraining.from_pretrained(tmp_path).vit
    order = noise.argsort(dim=1)[:, :4]
    features = theirs(batch.pixel_values(), noise=noise).last_hidden_state
    assert torch.allclose(ours.encode(batch.image, order), features[:, 1:], atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"use_mean_pooling": True}, {"norm_pix_loss": False}, {"decoder_intermediate_size": 32}]
)
def test_another_architecture_is_refused(theirs, change):
    with pytest.raises(ValueError, match="no counterpart"):
        from_hf({**theirs.config.to_dict(), **change}, theirs.state_dict())


def test_a_model_that_transformers_has_not_is_not_exported(recipe, tmp_path):
    ours = replace(recipe.model, positions="grid").build(recipe.data.grids)
    with pytest.raises(ValueError, match="positions on a line"):
        export_hf(ours, tmp_path)
