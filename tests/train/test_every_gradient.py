"""Of every recipe, two ranks have the gradient of one rank with the whole batch, and so have two micro-batches."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maskstream.train import RECIPES
from maskstream.train.recipes import chosen_recipe

from ..pipelines.every_modality import write_split
from .gradients_of_ranks import RANKS, gradient
from .ranks import ended
from .test_every_recipe import CUTS

SCRIPT = Path(__file__).with_name("gradients_of_ranks.py")
TINY = tuple(name for name in RECIPES if "tiny" in name)
CONTRASTS_BATCHES = {"avsiam", "diffmavil", "lejepa", "videolejepa"}
"""Recipes that compare the samples of a batch with each other, of which two micro-batches have fewer."""
DRAWS_BATCHES = {"ajepa", "ijepa", "salt", "vjepa2", "vjepa21"}
"""Recipes whose blocks have one size in a batch, which each micro-batch draws anew."""

OWN_DRAWS = {"mage": ("data.mask.ratio=0.75",), "mpm": ("data.mask.scope=view",), "native": ("data.balance=1",)}
"""Families that draw a ratio or a mask for a batch, so one for each micro-batch, and what gives samples their own; and
windows in which rows are shared out to the batches of a loader, which micro-batches are."""


def own_draws(name):
    """What gives the samples of a recipe draws of their own, if it has a mask."""
    return OWN_DRAWS.get(name.partition("-")[0], ()) if getattr(RECIPES[name]().data, "mask", None) else ()


def far(one, other):
    """The distance of two gradients, relative to the second."""
    return ((one - other).norm() / other.norm()).item()


def of_ranks(out, parallel, recipes):
    """The gradients of two ranks, by name."""
    codes, output = ended([SCRIPT, out, parallel, json.dumps(recipes)], RANKS)
    assert codes == [0] * RANKS, output
    return load_file(out)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_have_the_gradient_of_one_with_the_whole_batch(parallel, tmp_path):
    families = {name: name.partition("-")[0] for name in TINY}
    recipes = {name: chosen_recipe(name, (*CUTS[f], *own_draws(name))) for name, f in families.items()}
    modalities = {recipe.data.modality for recipe in recipes.values()}
    splits = {modality: write_split(modality, tmp_path / modality) for modality in modalities}
    of = {name: splits[recipe.data.modality] for name, recipe in recipes.items()}
    sent = {name: (recipe.to_dict(), str(of[name])) for name, recipe in recipes.items()}
    shared = of_ranks(tmp_path / "gradients", parallel, sent)
    distances = {}
    for name, recipe in recipes.items():
        with_all = gradient(recipe, of[name])
        assert with_all.norm() > 0
        distances[name] = far(shared[name], with_all)
        if recipe.token_budget is None and name.partition("-")[0] not in CONTRASTS_BATCHES | DRAWS_BATCHES:
            parts = gradient(recipe, of[name], accumulate=2)
            distances[f"{name}, micro-batches"] = far(parts, with_all)
    print(distances)
    assert {name: distance for name, distance in distances.items() if distance > 1e-5} == {}


def test_the_distance_sees_a_gradient_that_is_off():
    assert far(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])) > 0.5
