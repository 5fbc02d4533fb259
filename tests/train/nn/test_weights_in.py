"""Checkpoints as the authors of VideoMAE and MAE save them, made here of models of this package."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from maskstream.pipelines import TokenGrid
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.train.core.weights import RunFileError, load_matching_weights
from maskstream.train.models import VideoAutoencoderConfig, load_hf, load_pth
from maskstream.train.nn.layouts import AUTHORS_IMAGE, AUTHORS_VIDEO, HEAD
from maskstream.train.nn.masked_autoencoder import ImageAutoencoderConfig

SIZES = {"width": 32, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
GRIDS = {"video": TokenGrid.video(16, 224, 224, tubelet=2, patch=32), "image": compute_image_grid(32, 8)}
MODELS = {
    "video": VideoAutoencoderConfig(**SIZES),
    "image": ImageAutoencoderConfig(**SIZES, class_token=True, bridge_bias=True, positions="columns"),
}


def checkpoint(kind, path, *, decoder=True, prefix=""):
    """A model and the file that its authors would have written of it."""
    model = MODELS[kind].build(GRIDS, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    layout = AUTHORS_VIDEO if kind == "video" else AUTHORS_IMAGE
    state = layout.from_ours(model.state_dict(), model.tokens.patch)
    places = (model.encoder.positions(), model.decoder.positions())
    for name, place in zip(layout.positions, places, strict=False):
        state[name] = torch.cat((torch.zeros(1, place.shape[1]), place))[None]
    if not decoder:
        state = {name: w for name, w in state.items() if "decoder" not in name and name != "mask_token"}
    torch.save({"model": {prefix + name: w for name, w in state.items()}, "epoch": 3}, path)
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_a_checkpoint_gives_the_model_that_it_was_made_of(kind, tmp_path):
    model = checkpoint(kind, tmp_path / "a.pth")
    found = load_pth(tmp_path / "a.pth", heads=2, decoder_heads=2)
    assert found.config == model.config
    assert found.grids == {kind: GRIDS[kind]}
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("decoder", [True, False])
def test_a_run_starts_from_it(kind, decoder, tmp_path):
    model = checkpoint(kind, tmp_path / "a.pth", decoder=decoder, prefix="module.")
    started = MODELS[kind].build(GRIDS, seed=9)
    left = load_matching_weights(started, tmp_path / "a.pth")
    assert all(name.startswith("decoder") for name in left)
    assert (not left) == decoder
    for name, tensor in started.state_dict().items():
        assert name in left or torch.equal(tensor, model.state_dict()[name]), name


def test_positions_of_another_order_are_refused(tmp_path):
    checkpoint("image", tmp_path / "a.pth")
    rows = ImageAutoencoderConfig(**SIZES, class_token=True, bridge_bias=True).build(GRIDS)
    with pytest.raises(ValueError, match="positions=columns"):
        load_matching_weights(rows, tmp_path / "a.pth")


def test_unpublished_sizes_need_their_heads(tmp_path):
    checkpoint("video", tmp_path / "a.pth")
    with pytest.raises(ValueError, match="pass heads="):
        load_pth(tmp_path / "a.pth")


def test_an_encoder_alone_is_no_model(tmp_path):
    checkpoint("video", tmp_path / "a.pth", decoder=False)
    with pytest.raises(ValueError, match="--initial"):
        load_pth(tmp_path / "a.pth", heads=2, decoder_heads=2)


class Strange:
    def __reduce__(self):
        return print, ("this code ran",)


def test_no_code_of_a_pickle_runs(tmp_path, capsys):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"model": Strange()}, protocol=2))
    torch.save({"model": Strange()}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(RunFileError, match=r"safetensors|cannot be read"):
            load_pth(tmp_path / name)
    assert "this code ran" not in capsys.readouterr().out


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(RunFileError, match="does not exist"):
        load_pth(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(RunFileError, match="no named tensors"):
        load_pth(tmp_path / "list.pth")
    save_file({f"{HEAD}.weight": torch.zeros(2)}, tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="does not contain VideoMAE or MAE weights"):
        load_pth(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"config\.json"):
        load_hf(tmp_path)
    with pytest.raises(RunFileError, match=r"model\.safetensors"):
        load_matching_weights(MODELS["video"].build(GRIDS), tmp_path)
