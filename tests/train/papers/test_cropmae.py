"""CropMAE's and SiamMAE's model: what the predictions depend on, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.modalities import MODALITIES
from maskstream.pages.report.drawn import make_sections
from maskstream.pipelines.masks import Random, TokenGrid, Tube
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData, compute_image_grid
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate_run import evaluate_model
from maskstream.train.papers.cropmae.model import CropPairConfig, FramePairConfig
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import write_split
from ..test_every_recipe import CUTS

SIZES = {"width": 32, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}
GRID = TokenGrid(axes=("t", "h", "w"), shape=(2, 4, 4), patch=(1, 8, 8))


def pixels(*shape):
    return torch.randint(0, 256, (*shape, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def rngs(n):
    return [np.random.default_rng(i) for i in range(n)]


def crops():
    mask = Random(ratio=0.85).draw(compute_image_grid(32, 8), rngs(6))
    return ImageBatch(image=pixels(6, 32, 32), mask=mask, label=torch.full((6,), -1), key=list("aabbcc"))


def frames():
    mask = Tube(ratio=0.85).draw(GRID, rngs(3))
    rest = {"flow": None, "label": torch.full((3,), -1), "key": list("abc"), "pts_s": torch.zeros(3, 2).double()}
    return VideoBatch(video=pixels(3, 2, 32, 32), mask=mask, **rest)


CASES = {
    "crops": (CropPairConfig(**SIZES), {"image": compute_image_grid(32, 8)}, crops),
    "frames": (FramePairConfig(**SIZES), {"video": GRID}, frames),
}


@pytest.fixture(params=CASES)
def case(request):
    config, grids, batch = CASES[request.param]
    return config.build(grids, seed=1), batch()


def test_predictions_depend_on_the_first_view_and_on_the_visible_patches_of_the_second(case):
    model, batch = case
    pair = model.pair(batch)
    assert pair.visible.shape[1] in (2, 3)
    assert pair.target.shape == (3, 16 - pair.visible.shape[1])
    assert torch.equal(torch.cat((pair.visible, pair.target), dim=1).sort(dim=1).values, torch.arange(16).expand(3, -1))
    before = model.predict(pair)
    for name, index, changes in (("first", pair.target, True), ("second", pair.visible, True)):
        shown = getattr(pair, name)
        painted = model.tokens.paint(shown, index, torch.zeros(*index.shape, 192))
        assert torch.equal(model.predict(replace(pair, **{name: painted})), before) != changes
    hidden = model.tokens.paint(pair.second, pair.target, torch.zeros(*pair.target.shape, 192))
    assert not torch.equal(hidden, pair.second)
    assert torch.equal(model.predict(replace(pair, second=hidden)), before)


def test_a_reconstruction_changes_only_the_second_views(case):
    model, batch = case
    pair, made = model.pair(batch), model.pair(model.reconstructed(batch))
    assert torch.equal(made.first, pair.first)
    changed = (model.tokens.split(made.second) != model.tokens.split(pair.second)).any(dim=2)
    assert torch.equal(changed.nonzero()[:, 1].view(3, -1), pair.target)


def test_it_learns(case):
    model, batch = case
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        losses.append(model(batch).loss())
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.9 * losses[0]


def test_data_of_one_view_or_other_clips_are_refused(recipe):
    with pytest.raises(ValueError, match=r"data\.views=2"):
        CropPairConfig().check(ImageData())
    with pytest.raises(ValueError, match=r"clip\.frames=2"):
        FramePairConfig().check(recipe.data)
    with pytest.raises(ValueError, match="multiple of 4"):
        CropPairConfig(width=30)
    with pytest.raises(ValueError, match="norm must be 'pre' or 'post'"):
        CropPairConfig(norm="both")
    with pytest.raises(ValueError, match="saved by version 1 of FramePairConfig, but this is version 2"):
        FramePairConfig.from_dict({"kind": "FramePairConfig"})


@pytest.mark.parametrize("name", ["cropmae-tiny", "siammae-tiny"])
def test_a_report_has_the_loss_its_baselines_and_a_card_per_sample(name, tmp_path):
    recipe = chosen_recipe(name, CUTS[name.partition("-")[0]])
    modality = MODALITIES[recipe.data.modality]
    split = write_split(modality.name, tmp_path / "split")
    found = evaluate_model(recipe, recipe.build(seed=1).eval(), Manifest.load(split), 2)
    baselines = found.scores[0].baselines
    assert baselines["every patch's mean"] == pytest.approx(1, abs=0.02)
    mixed, share = found.notes.values()
    assert 0 < mixed <= baselines["a copy of the same place in the first view"]
    assert 0 <= share <= 1
    sections = make_sections(found.examples, modality.figures(recipe.data, Manifest.load(split)), ())
    assert [len(section.cards) for section in sections] == [2]
    assert evaluate_model(recipe, recipe.build(seed=1).eval(), Manifest.load(split), 2).scores == found.scores
