import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from maskstream.pipelines.masks import Dual, Random, Tube
from maskstream.train.models import from_hf, to_hf, to_hf_config
from maskstream.train.models.hf import export_hf

CONFIG = VideoMAEConfig(
    num_frames=4,
    image_size=32,
    patch_size=8,
    tubelet_size=2,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=96,
    decoder_hidden_size=32,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
    use_mean_pooling=False,
)


@pytest.fixture
def theirs():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = VideoMAEForPreTraining(CONFIG)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model


@pytest.mark.parametrize("mask", [Tube(ratio=0.75), Random(ratio=0.9)], ids=["tube", "random"])
def test_a_batch_goes_straight_into_transformers_and_both_agree(theirs, synthetic_loader, mask):
    batch = synthetic_loader(mask=mask).make(0, 0)
    ours = from_hf(theirs.config.to_dict(), theirs.state_dict())
    their_loss = theirs(batch.pixel_values(), bool_masked_pos=batch.mask.masked).loss
    our_loss = ours(batch).loss()
    assert our_loss.item() == pytest.approx(their_loss.item(), abs=1e-5)

    their_loss.backward()
    our_loss.backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for parameter in ours.parameters():
        parameter.data = parameter.grad
    got = to_hf(ours)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float((got[name] - gradient).norm() / gradient.norm()) < 1e-4, name


def test_dual_masks_are_the_same_model_with_fewer_queries(theirs, synthetic_loader):
    batch = synthetic_loader(mask=Dual(encoder=Tube(ratio=0.75))).make(0, 0)
    assert batch.mask.target.shape[1] == 16
    assert 0 < batch.mask.weight.mean().item() < 1
    ours = from_hf(theirs.config.to_dict(), theirs.state_dict())
    assert torch.isfinite(ours(batch).loss())


def test_weights_survive_the_way_there_and_back(recipe, theirs):
    ours = recipe.build(seed=1)
    copied = VideoMAEForPreTraining(VideoMAEConfig(**to_hf_config(ours)))
    copied.load_state_dict(to_hf(ours))
    back = from_hf(copied.config.to_dict(), copied.state_dict())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


def test_an_export_is_what_from_pretrained_reads(recipe, batch, tmp_path):
    ours = recipe.build(seed=1)
    export_hf(ours, tmp_path / "export")
    theirs = VideoMAEForPreTraining.from_pretrained(tmp_path / "export")
    their_loss = theirs(batch.pixel_values(), bool_masked_pos=batch.mask.masked).loss
    our_loss = ours(batch).loss()
    assert our_loss.item() == pytest.approx(their_loss.item(), abs=1e-4)


@pytest.mark.parametrize(
    "change", [{"use_mean_pooling": True}, {"norm_pix_loss": False}, {"decoder_intermediate_size": 32}]
)
def test_another_architecture_is_refused(theirs, change):
    with pytest.raises(ValueError, match="no counterpart"):
        from_hf({**theirs.config.to_dict(), **change}, theirs.state_dict())
