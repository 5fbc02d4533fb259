"""Recipes: the papers' token counts and sizes, and that each builds its masks on its own grid."""

import numpy as np
import pytest

from maskstream.pipelines.masks import Cues, Draw
from maskstream.train.recipes import named_recipe

COUNTS = {  # visible, target
    "videomae-base": (160, 1408),
    "videomae-small": (160, 1408),
    "videomae-tiny": (4 * 16, 4 * 48),
    "mgmae-base": (152, 1416),
    "mgmae-small": (152, 1416),
    "mgmae-tiny": (4 * 16, 4 * 48 // 2),
    "videomae2-small": (160, 784),
    "videomae2-tiny": (4 * 16, 4 * 32),
}


@pytest.mark.parametrize("name", list(COUNTS))
def test_a_recipe_s_mask_fits_its_model(name):
    recipe = named_recipe(name)
    assert recipe.name == name
    grid = recipe.data.grids["video"]
    cues = Cues(flow=np.ones((recipe.data.clip.frames - 1, 4, 4, 2), np.float32))
    mask = recipe.data.mask.draw(grid, [Draw(rng=np.random.default_rng(0), cues=cues)])
    assert (mask.visible.shape[1], mask.target.shape[1]) == COUNTS[name]


@pytest.mark.parametrize("name", ["videomae-base", "videomae-small", "mgmae-tiny"])
def test_a_recipe_builds_a_model_of_its_size(name):
    model = named_recipe(name).build()
    parameters = sum(p.numel() for p in model.parameters())
    wanted = {"videomae-base": (93e6, 95e6), "videomae-small": (23e6, 27e6), "mgmae-tiny": (1e6, 2e6)}[name]
    assert wanted[0] < parameters < wanted[1]


def test_the_small_recipes_have_their_papers_numbers():
    small = named_recipe("videomae-small")
    assert (small.model.width, small.model.depth, small.model.heads) == (384, 12, 6)
    assert (small.model.decoder_width, small.model.decoder_depth, small.model.decoder_heads) == (192, 4, 3)
    assert small.optimiser.betas == (0.9, 0.95)
    assert small.optimiser.weight_decay == 0.05
    assert named_recipe("videomae2-small").optimiser.max_grad_norm == 0.02


def test_an_unknown_recipe_is_refused_with_the_legal_names():
    with pytest.raises(ValueError, match="mgmae-tiny"):
        named_recipe("mgmae-huge")
