"""Recipes are configs: rebuilt from plain JSON, set by path, and as long as their data say."""

import json
from dataclasses import replace

import pytest

from maskstream.pipelines import Loader
from maskstream.shards.config import with_set
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.tokenizer import read_tokenizer_facts
from maskstream.train import RECIPES, named_recipe
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import write_split


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_rebuilt_from_json(name):
    recipe = named_recipe(name)
    for whole in (False, True):
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict(defaults=whole)))) == recipe


def test_fields_are_set_by_path_and_a_wrong_one_is_answered_with_the_nearest():
    recipe = chosen_recipe("mgmae-tiny", ["model.depth=6", "mask.ratio=0.8", "clip.size=64"], batch_size=3)
    assert (recipe.model.depth, recipe.data.mask.mask.ratio, recipe.data.clip.size, recipe.batch_size) == (
        6,
        0.8,
        64,
        3,
    )
    with pytest.raises(ValueError, match=r"model\.deph.*model\.depth"):
        with_set(recipe, ["model.deph=6"])
    with pytest.raises(ValueError, match="is not a positive multiple"):
        with_set(recipe, ["clip.size=65"])


def test_name_and_batch_size_are_no_part_of_a_run_s_identity(recipe):
    other = replace(recipe, name="other", batch_size=2)
    assert other.to_dict(identity=True) == recipe.to_dict(identity=True)
    assert other.to_dict() != recipe.to_dict()
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        replace(recipe, batch_size=0)


def test_a_run_shows_every_sample_as_often_as_the_schedule_says(recipe, eleven):
    assert replace(recipe, batch_size=2).run_length(eleven) == 2 * 5
    assert replace(recipe, batch_size=2).run_length(eleven, world_size=2) == 2 * 2
    fixed = replace(recipe, schedule=ScheduleConfig(base_lr=0.1, steps=7))
    assert fixed.run_length(eleven) == 7


@pytest.mark.parametrize(("name", "modality"), [("bert-tiny", "text"), ("m3ae-tiny", "image-text")])
def test_a_tokenizer_with_more_ids_than_the_model_is_refused_before_training(name, modality, tmp_path):
    split = write_split(modality, tmp_path)
    ids = read_tokenizer_facts(str(split), read_dataset_json(split)).vocabulary
    recipe = chosen_recipe(name, [f"model.vocabulary={ids - 1}", "batch_size=2"])
    said = rf"has {ids:,} ids, but the model has {ids - 1:,}; set model\.vocabulary=\d+"
    with pytest.raises(ValueError, match=said):
        recipe.loader(split, steps=1, device="cpu")
    chosen_recipe(name, [f"model.vocabulary={ids}", "batch_size=2"]).loader(split, steps=1, device="cpu").close()


def no_loader(*_, **__):
    raise AssertionError("the length of a run needs no loader")


def test_with_a_token_budget_a_run_has_the_fewest_steps_that_show_every_sample(recipe, eleven, monkeypatch):
    falling = {"kind": "Linear", "start": 0.9, "end": 0.5}
    recipe = with_set(recipe, ["batch_size=1", "token_budget=40", 'mask={"kind": "Random"}', "schedule.epochs=30"])
    recipe = with_set(recipe, [f"mask.ratio={json.dumps(falling)}"])
    monkeypatch.setattr(Loader, "__init__", no_loader)
    steps = recipe.run_length(eleven)
    monkeypatch.undo()

    def shown(steps):
        return int(recipe.loader(eleven, steps=steps, device="cpu").order.sizes().sum())

    assert shown(steps) >= 30 * 11 > shown(steps - 1)
    sizes = recipe.loader(eleven, steps=steps, device="cpu").order.sizes()
    assert sizes[0] > sizes[-1] > 1
