"""Runs as folders that transformers reads: the same numbers there, and no folder where that is not so."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines import TokenGrid, VideoClip, VideoData
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer, read_tokenizer_facts
from maskstream.train import load_model, named_recipe, train
from maskstream.train.evaluate.classifier import ClassifierConfig
from maskstream.train.evaluate.features import from_middle
from maskstream.train.export import run as exports
from maskstream.train.export.architecture import find_counterpart
from maskstream.train.export.raw import RawTexts
from maskstream.train.export.run import export_run, list_classes
from maskstream.train.models import VideoAutoencoderConfig
from maskstream.train.nn.foreign import from_bert, from_hf
from maskstream.train.recipes import chosen_recipe

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


def test_the_processor_crops_and_resizes(made):
    processor = transformers.AutoImageProcessor.from_pretrained(made["mae-base"][2])
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    given = processor([pixels], return_tensors="pt")["pixel_values"]
    ours = (torch.from_numpy(pixels[:, 8:40]) / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert torch.allclose(given[0], ours.permute(2, 0, 1), atol=1e-5)
    processor = transformers.AutoImageProcessor.from_pretrained(made["videomae-base"][2])
    given = processor([[pixels] * 4], return_tensors="pt")["pixel_values"]
    assert given.shape == (1, 4, 3, 32, 32)
    assert torch.allclose(given[0, -1], ours.permute(2, 0, 1), atol=1e-5)


def test_the_tokenizer_adds_what_stands_around_a_text_in_training(made):
    split, _, out, _ = made["bert-base"]
    tokenizer, facts = (
        transformers.AutoTokenizer.from_pretrained(out),
        read_tokenizer_facts("", Manifest.load(split).info),
    )
    assert tokenizer.mask_token == "[MASK]"
    assert tokenizer.mask_token_id in tokenizer("the lazy [MASK]")["input_ids"]
    alone = tokenizer("the lazy", add_special_tokens=False)["input_ids"]
    assert tokenizer("the lazy")["input_ids"] == [facts.begin, *alone, facts.end]
    long = tokenizer("the lazy " * 50, truncation=True)["input_ids"]
    assert (len(long), long[0], long[-1]) == (32, facts.begin, facts.end)


def test_a_tokenizer_that_adds_them_already_stays(made, tmp_path):
    split = Manifest.load(made["bert-base"][0])
    kind = RawTexts(32, read_tokenizer_facts("", split.info), read_tokenizer(split.store, split.info))
    kind.write_tokenizer(tmp_path)
    own = (tmp_path / "tokenizer.json").read_bytes()
    replace(kind, definition=own).write_tokenizer(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == own


@pytest.mark.parametrize("name", CUTS)
def test_the_check_runs_the_card_on_raw_samples(made, name, tmp_path, monkeypatch):
    """Lines that do otherwise than the loader are found, though files of the split are squares of the right size."""
    _, run, out, _ = made[name]
    wrong = {
        "mae-base": ("side = min(height, width)", "side = min(height, width) // 2 * 2"),
        "videomae-base": ("(len(starts) - 1) // 2", "0"),
        "bert-base": ("truncation=True", "add_special_tokens=False, truncation=True"),
    }[name]
    assert wrong[0] in (out / "README.md").read_text()
    of_way = exports._find_way

    def changed(*given):
        way = of_way(*given)
        return replace(way, card=way.card.replace(*wrong))

    monkeypatch.setattr(exports, "_find_way", changed)
    with pytest.raises(ValueError, match=r"differ from the run's by .* nothing was written"):
        export_run(run, tmp_path / "out")
    monkeypatch.setattr(exports, "_find_way", lambda *given: replace(of_way(*given), card="import no_such_package"))
    with pytest.raises(ValueError, match=r"fails, so nothing was written: .*no_such_package.*pip install"):
        export_run(run, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_lines_that_differ_a_little_are_told_of(made):
    """The measured difference of transformers' own processor stands in the card, and is none of the card's lines."""
    text = (made["mae-base"][2] / "README.md").read_text()
    assert len(re.findall("```python\n", text)) == 2
    own, card = (float(re.search(f"{words} ([0-9.e+-]+) of their", text)[1]) for words in OWN_AND_CARD)
    assert card <= 1e-5 < own < 1


OWN_AND_CARD = ("samples differ by at most", "differ from the run's by at most")


def test_what_a_killed_export_left_is_deleted_by_the_next(made, tmp_path):
    _, run, _, _ = made["mae-base"]
    left = tmp_path / ".out.partial" / "out"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    other = tmp_path / ".other.partial" / "other"
    other.mkdir(parents=True)
    export_run(run, tmp_path / "out", to="timm")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.partial", "out"]
    assert (tmp_path / "out" / "README.md").is_file()


def test_the_refusal_of_small_recipes_names_some_that_can_be_exported():
    for name in ("videomae-tiny", "mgmae-tiny", "mae-tiny"):
        with pytest.raises(ValueError, match="a small recipe that can be exported is") as error:
            find_counterpart(named_recipe(name).build())
        recipe, *words = str(error.value).split("`")[1].replace("--set ", "").split()
        assert find_counterpart(chosen_recipe(recipe, words).build()).name.endswith("MAEForPreTraining")


def test_what_cannot_be_exported_is_said_and_leaves_nothing(made, tmp_path, monkeypatch):
    _, run, out, _ = made["bert-base"]
    with pytest.raises(ValueError, match="unknown target 'fh'"):
        export_run(run, tmp_path / "out", to="fh")
    with pytest.raises(
        ValueError,
        match="supports images and spectrograms, got a TokenModel; this run can be exported with --to hf or torch",
    ):
        export_run(run, tmp_path / "out", to="timm")
    monkeypatch.setattr(exports, "TOLERANCE", 0.0)
    with pytest.raises(ValueError, match=r"differ from the run's by .*e-.* of their norm, but at most 0 is allowed"):
        export_run(run, tmp_path / "out")
    monkeypatch.undo()
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="exists and is not empty; pass a new folder"):
        export_run(run, out)
    split = write_split("image", tmp_path / "data")
    cuts = ("data.size=32", "data.patch=8", "batch_size=2", *SIZES, *DECODER)
    train("mae-tiny", split, tmp_path / "run", steps=1, set=cuts, device="cpu", threads=1, progress=False)
    with pytest.raises(
        ValueError, match=r"ViTMAE takes images with a class token.*this run can be exported with --to timm or torch"
    ):
        export_run(tmp_path / "run", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "run"]


def test_a_recipe_says_what_its_runs_export_to():
    said = CliRunner().invoke(app, ["recipes", "mgmae-base"])
    assert "`maskstream export` writes it for transformers, as VideoMAEForPreTraining." in said.output
    said = CliRunner().invoke(app, ["recipes", "pointmae-tiny"])
    assert "refuses it: transformers has no counterpart of a PointAutoencoder." in said.output


def test_a_classifier_goes_where_its_norm_stands():
    grids = {"video": TokenGrid.video(4, 32, 32, patch=8)}
    of = VideoAutoencoderConfig(width=24, depth=1, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=2)
    before = ClassifierConfig(of=of, classes=3)
    assert before.norm == "tokens", "as classifiers that were saved before"
    with pytest.raises(ValueError, match=r"fine-tune again with --set model.norm=mean"):
        find_counterpart(before.build(grids))
    found = find_counterpart(replace(before, norm="mean").build(grids))
    assert (found.name, found.config["use_mean_pooling"]) == ("VideoMAEForVideoClassification", True)
    with pytest.raises(ValueError, match="norm must be 'tokens' or 'mean', got 'other'"):
        replace(before, norm="other")


def test_classes_have_the_names_that_the_run_learned(made, tmp_path):
    split = Manifest.load(made["mae-base"][0])
    model = ClassifierConfig(of=load_model(made["mae-base"][1] / "model.safetensors").settings, classes=3)
    model = model.build(load_model(made["mae-base"][1] / "model.safetensors").grids)
    (tmp_path / "run.json").write_text(json.dumps({"data": {"label_names": ["wasps", "ants", "bees"]}}))
    assert list_classes(model, tmp_path, split) == ["wasps", "ants", "bees"]
    (tmp_path / "run.json").write_text(json.dumps({"data": {}}))
    with pytest.raises(ValueError, match=r"classes, but the model has 3; pass the split it was trained on"):
        list_classes(model, tmp_path, split)


def test_what_is_embedded_and_exported_is_from_the_middle():
    assert from_middle(VideoData()).clip.start == "center"
    assert from_middle(VideoData(clip=VideoClip(start="center", frames=8))).clip.frames == 8
    assert from_middle(ImageData()) == ImageData()
