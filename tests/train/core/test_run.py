"""From shards to a trained model with the real loader."""

import json
from dataclasses import replace

import numpy as np
import pytest

from maskstream.pipelines import VideoClip
from maskstream.pipelines.masks import Cues, Draw, Dual, MotionGuided, Tube
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.format.tokenizer import read_tokenizer_facts
from maskstream.shards.members.video import video_member
from maskstream.train import RECIPES, load_model, named_recipe, read_metrics, train

from ...conftest import write_moving_texture
from ...pipelines.every_modality import write_split
from ...splits import write_samples
from ..test_every_recipe import CUTS

TEXT = CUTS["modernbert"]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """The folder of a split of six clips of 20 frames, in which a pattern moves."""
    folder, samples = tmp_path_factory.mktemp("split"), []
    for seed in range(6):
        video = encode_video(write_moving_texture(folder / f"{seed}.mp4", seed=seed, frames=20), PROFILES["train"])
        members = {"mp4": video_member(video.data, video.index)}
        samples.append(Sample(key=f"clip-{seed}", members=members, source=str(seed)))
    return write_samples(folder / "split", samples, "video", dataset="test")


def test_ids_that_no_text_has_are_told_once(tmp_path, caplog):
    texts = write_split("text", tmp_path)
    ids = read_tokenizer_facts(str(texts), Manifest.load(texts).info).vocabulary
    options = {"device": "cpu", "threads": 1, "progress": False}
    for out, more, told in (("a", 200, True), ("a", 200, False), ("b", 127, False)):
        caplog.clear()
        cuts = (*TEXT, f"model.vocabulary={ids + more}")
        steps = 2 if (tmp_path / out).exists() else 1
        train("modernbert-tiny", texts, tmp_path / out, set=cuts, steps=steps, **options)
        said = f"has {ids} ids, but the model has {ids + more}, and no text contains the others; --set "
        assert (said in caplog.text) == told
        assert ("model.vocabulary" in caplog.text) == told


def of(recipe, **data):
    """The recipe with two samples a step, of other data."""
    return replace(recipe, batch_size=2, data=replace(recipe.data, **data))


@pytest.mark.parametrize("mask", [MotionGuided(ratio=0.75), Dual(encoder=Tube(ratio=0.75))], ids=["mgmae", "dual"])
def test_shards_become_a_model_with_every_kind_of_mask(recipe, split, tmp_path, mask):
    recipe = of(recipe, clip=VideoClip(frames=4, stride=4, size=32), mask=mask, views=2)
    result = train(recipe, split, tmp_path, steps=4, device="cpu", threads=1, progress=False)
    assert result.finished
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert [m.epoch for m in metrics] == [0, 0, 0, 1]
    assert [m.lr for m in metrics] == pytest.approx([recipe.schedule.lr(step, 4, 2) for step in range(4)])
    assert load_model(tmp_path / "model.safetensors").tokens.grid == (2, 4, 4)
    loaded = json.loads((tmp_path / "loader_stats.json").read_text())
    assert loaded["samples"] == 8
    assert {"read", "decode", "convert", "mask", "collate", "wait", "consumer"} <= set(loaded["stages"])
    assert loaded["stages"]["consumer"]["wall_ms"] > 0
    assert loaded["limit"].endswith((".", ".)"))


def test_recipes_are_named_and_others_refused():
    assert {"videomae-small", "mgmae-small", "videomae2-small"} <= RECIPES.keys()
    for name, build in RECIPES.items():
        assert build() == named_recipe(name)
        assert build().name == name
    with pytest.raises(ValueError, match="expected ajepa-base"):
        named_recipe("videomae-huge")


@pytest.mark.parametrize(
    ("name", "visible", "targets"),
    [("videomae-small", 160, 1408), ("mgmae-small", 152, 1416), ("videomae2-small", 160, 784)],
)
def test_the_small_recipes_have_their_papers_token_counts(name, visible, targets):
    recipe = RECIPES[name]()
    grid = recipe.data.grids["video"]
    cues = Cues(flow=np.zeros((15, 14, 14, 2), np.float32))
    mask = recipe.data.mask.draw(grid, [Draw(rng=np.random.default_rng(0), cues=cues)])
    assert (mask.visible.shape[1], mask.target.shape[1]) == (visible, targets)
    model = recipe.model
    assert (model.width, model.depth, model.heads) == (384, 12, 6)
    assert (model.decoder_width, model.decoder_depth, model.decoder_heads) == (192, 4, 3)


def test_a_recipe_whose_tokens_do_not_fill_its_clip_is_refused(recipe):
    with pytest.raises(ValueError, match="is not a positive multiple"):
        of(recipe, patch=5)
    with pytest.raises(ValueError, match="views must be an integer of at least 1, got 0"):
        of(recipe, views=0)


def test_shards_of_another_modality_are_refused_with_the_recipes_for_them(split, tmp_path):
    with pytest.raises(
        ValueError, match=r"'audiomae-tiny' is for audio, but .* contains video; `maskstream recipes` lists"
    ):
        train("audiomae-tiny", split, tmp_path / "run")
    assert not (tmp_path / "run").exists()
