"""Runs as folders that transformers reads: the same numbers there, and no folder where that is not so."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.train import exports, load_model, train
from maskstream.train.exports import export_run
from maskstream.train.nn.foreign import from_bert, from_hf

from ..pipelines.every_modality import write_split

transformers = pytest.importorskip("transformers")

SIZES = ("model.width=32", "model.depth=1", "model.heads=2")
DECODER = ("model.decoder_width=32", "model.decoder_depth=1", "model.decoder_heads=2")
CUTS = {
    "mae-base": ("image", ("data.size=32", "data.patch=8", *SIZES, *DECODER)),
    "videomae-base": ("video", ("clip.frames=4", "clip.size=32", "data.patch=8", *SIZES, *DECODER)),
    "bert-base": ("text", ("data.length=32", "batch_size=2", *SIZES)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By recipe: its split, its run and its export, made by the command."""
    found = {}
    for name, (modality, cuts) in CUTS.items():
        root = tmp_path_factory.mktemp(name)
        split = write_split(modality, root / "data")
        cuts = (*cuts, "batch_size=2")
        train(name, split, root / "run", steps=1, set=cuts, device="cpu", threads=1, progress=False)
        words = ["export", str(root / "run"), "--out", str(root / "out"), "--json"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (done.output, done.exception)
        found[name] = split, root / "run", root / "out", json.loads(done.stdout)["class"]
    return found


@pytest.mark.parametrize("name", CUTS)
def test_transformers_reads_the_class_that_is_named_with_the_same_weights(made, name):
    _, run, out, kind = made[name]
    theirs, ours = getattr(transformers, kind).from_pretrained(out), load_model(run / "model.safetensors")
    back = from_bert if name == "bert-base" else from_hf
    weights = back(theirs.config.to_dict(), theirs.state_dict()).state_dict()
    assert weights.keys() == ours.state_dict().keys()
    assert all(torch.equal(weights[one], tensor) for one, tensor in ours.state_dict().items())
    card = (out / "README.md").read_text()
    assert f"transformers.{kind}.from_pretrained(FOLDER)" in card
    assert json.loads(card.split("```json\n")[1].split("```")[0])["name"] == name


@pytest.mark.parametrize(("name", "frames"), [("mae-base", ()), ("videomae-base", (4,))])
def test_the_processor_gives_what_the_model_was_trained_on(made, name, frames):
    processor = transformers.AutoImageProcessor.from_pretrained(made[name][2])
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    given = processor([[pixels] * 4] if frames else [pixels], return_tensors="pt")["pixel_values"]
    assert given.shape == (1, *frames, 3, 32, 32)
    ours = (torch.from_numpy(pixels) / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert torch.allclose(given.reshape(-1, 3, 32, 32)[-1], ours.permute(2, 0, 1), atol=1e-5)


def test_the_tokenizer_goes_along(made):
    split, _, out, _ = made["bert-base"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.mask_token == "[MASK]"
    assert (out / "tokenizer.json").read_bytes() == (split / "tokenizer.json").read_bytes()
    said = tokenizer("the lazy [MASK]")["input_ids"]
    assert tokenizer.mask_token_id in said


def test_what_cannot_be_exported_is_said_and_leaves_nothing(made, tmp_path, monkeypatch):
    _, run, out, _ = made["bert-base"]
    with pytest.raises(ValueError, match="no target 'fh'"):
        export_run(run, tmp_path / "out", to="fh")
    with pytest.raises(
        ValueError, match="reads pictures and spectrograms, got a TokenModel; for this run --to hf or torch works"
    ):
        export_run(run, tmp_path / "out", to="timm")
    monkeypatch.setattr(exports, "TOLERANCE", 0.0)
    with pytest.raises(ValueError, match=r"differ from the run's by .*e-.* of their norm, and 0 is allowed"):
        export_run(run, tmp_path / "out")
    monkeypatch.undo()
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="is there and not empty; give a new folder"):
        export_run(run, out)
    split = write_split("image", tmp_path / "data")
    cuts = ("data.size=32", "data.patch=8", "batch_size=2", *SIZES, *DECODER)
    train("mae-tiny", split, tmp_path / "run", steps=1, set=cuts, device="cpu", threads=1, progress=False)
    with pytest.raises(ValueError, match=r"ViTMAE pictures with a class token.*for this run --to timm or torch works"):
        export_run(tmp_path / "run", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "run"]


def test_a_recipe_says_what_its_runs_export_to():
    said = CliRunner().invoke(app, ["recipes", "mgmae-base"])
    assert "`maskstream export` writes it for transformers, as VideoMAEForPreTraining." in said.output
    said = CliRunner().invoke(app, ["recipes", "pointmae-tiny"])
    assert "refuses it: transformers has no counterpart of a PointAutoencoder." in said.output
