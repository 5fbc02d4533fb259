"""A report on models of two views: losses beside baselines, and cards of the second views."""

import pytest

from maskstream.modalities import MODALITIES
from maskstream.pages.report.drawn import sections_of
from maskstream.train.evaluations import evaluation_of
from maskstream.train.run import chosen_recipe

from ...pipelines.every_modality import write_split
from ..test_every_recipe import CUTS


@pytest.mark.parametrize("name", ["cropmae-tiny", "siammae-tiny"])
def test_a_report_has_the_loss_its_baselines_and_a_card_per_sample(name, tmp_path):
    recipe = chosen_recipe(name, CUTS[name.partition("-")[0]])
    modality = MODALITIES[recipe.data.modality]
    split = write_split(modality.name, tmp_path / "split")
    found = evaluation_of(recipe, recipe.build(seed=1).eval(), split, 2)
    baselines = found.scores[0].baselines
    assert baselines["every patch's mean"] == pytest.approx(1, abs=0.02)
    assert baselines["a copy of the same place in the first view"] > 0
    sections = sections_of(found.examples, modality.figures(recipe.data, split), ())
    assert [len(section.cards) for section in sections] == [2]
    assert evaluation_of(recipe, recipe.build(seed=1).eval(), split, 2).scores == found.scores
