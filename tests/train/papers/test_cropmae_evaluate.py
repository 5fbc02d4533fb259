"""A report on models of two views: losses beside baselines, and cards of the second views."""

import pytest

from maskstream.modalities import MODALITIES
from maskstream.pages.report.report import work_of
from maskstream.train.run import chosen_recipe

from ...pipelines.every_modality import write_split
from ..test_every_recipe import CUTS


@pytest.mark.parametrize("name", ["cropmae-tiny", "siammae-tiny"])
def test_a_report_has_the_loss_its_baselines_and_a_card_per_sample(name, tmp_path):
    recipe = chosen_recipe(name, CUTS[name.partition("-")[0]])
    modality = MODALITIES[recipe.data.modality]
    split = write_split(modality.name, tmp_path / "split")
    work = work_of(modality, recipe, recipe.build(seed=1).eval(), split, 2)
    assert work.found.score is not None
    baselines = work.found.score.baselines
    assert baselines["every patch's mean"] == pytest.approx(1, abs=0.02)
    assert baselines["a copy of the same place in the first view"] > 0
    assert [len(section.cards) for section in work.sections] == [2]
    again = work_of(modality, recipe, recipe.build(seed=1).eval(), split, 2)
    assert again.found.score == work.found.score
