"""The held-out loss of patches beside trivial predictors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import Random, mask_batch
from maskstream.pipelines.modalities.image.data import ImageData, image_grid
from maskstream.train.evaluate.guesses import GUESSES, MEAN
from maskstream.train.evaluate.patches import nearest_visible, patch_losses
from maskstream.train.evaluate.pictures import evaluate, held_out_pictures
from maskstream.train.nn.image_autoencoder import ImageAutoencoderConfig

from ...pipelines.every_modality import write_split

DATA = ImageData(size=32, patch=8, mask=Random(ratio=0.75))
SIZES = ImageAutoencoderConfig(width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("image", tmp_path_factory.mktemp("image"))


def test_the_nearest_visible_token_is_found_on_the_grid():
    masked = torch.ones(2, 16, dtype=torch.bool)
    masked[0, [0, 7]] = masked[1, [5, 10]] = False
    mask = mask_batch(masked.numpy(), masked.numpy(), grid=image_grid(32, 8))
    near = torch.stack([torch.full((16,), -1), torch.full((16,), -1)]).scatter_(1, mask.target, nearest_visible(mask))
    # on 4 x 4: 0 at (0, 0), 7 at (1, 3); 5 at (1, 1), 10 at (2, 2), as near to 6 and 9 as 5 is
    assert near[0, [1, 4, 11, 6]].tolist() == [0, 0, 7, 7]
    assert near[1, [0, 15, 6, 9]].tolist() == [5, 10, 5, 5]


def test_what_fills_a_row_up_or_is_a_mask_token_is_not_nearest():
    grid = image_grid(32, 8)
    mask = replace(
        Random(ratio=0.75).draw(grid, [np.random.default_rng(0)]),
        visible=torch.tensor([[5, 10, 15, 0]]),
        target=torch.tensor([[1, 14]]),
        n_visible=torch.tensor([3]),
        mask_token=torch.zeros(1, 16, dtype=torch.bool).index_fill(1, torch.tensor([15]), True),
    )
    assert nearest_visible(mask).tolist() == [[5, 10]]


def test_a_model_of_pixels_is_compared_with_guesses_from_visible_pixels(split):
    model = replace(SIZES, target="pixels").build(DATA.grids).eval()
    found = evaluate(model, DATA, split, 2).scores[0]
    pictures = held_out_pictures(DATA, split)
    with torch.inference_mode():
        parts = [part for batch in pictures for part in model(batch).parts.values()]
    assert found.value == pytest.approx(float(sum(p.total for p in parts) / sum(p.weight for p in parts)), rel=1e-5)
    assert set(GUESSES) < set(found.baselines)
    apart, n = 0.0, 0
    for batch in pictures:
        pixels = model.tokens.inputs(model.tokens.split(batch.image)).unflatten(2, (-1, 3))
        for i in range(len(batch)):
            mean = pixels[i, batch.mask.visible[i]].mean(dim=(0, 1))
            apart += float((pixels[i, batch.mask.target[i]] - mean).square().mean())
            n += 1
    assert found.baselines[MEAN] == pytest.approx(apart / n, rel=1e-5)


def test_losses_are_those_of_one_patch_after_the_other(split):
    model = SIZES.build(DATA.grids).eval()
    pictures = held_out_pictures(DATA, split)
    found = patch_losses(model, pictures)
    mean, nearest, own, n = 0.0, 0.0, 0.0, 0
    for batch in pictures:
        image, mask = model.tokens.of(batch)
        targets = model.tokens.targets(model.tokens.split(image))
        with torch.inference_mode():
            made = model.predict(image, mask.visible, mask.target)
        for i in range(len(batch)):
            for j, token in enumerate(mask.target[i].tolist()):
                seen = mask.visible[i].tolist()
                apart = [(o // 4 - token // 4) ** 2 + (o % 4 - token % 4) ** 2 for o in seen]
                near = seen[apart.index(min(apart))]
                true = targets[i, token]
                mean += float(true.square().mean())
                nearest += float((targets[i, near] - true).square().mean())
                own += float((made[i, j] - true).square().mean())
                n += 1
    assert found.mean == pytest.approx(mean / n, rel=1e-4)
    assert found.nearest == pytest.approx(nearest / n, rel=1e-4)
    assert found.model == pytest.approx(own / n, rel=1e-4)
    assert 0.9 < found.mean < 1


def test_an_evaluation_is_the_same_each_time(split):
    model = SIZES.build(DATA.grids).eval()
    found = evaluate(model, DATA, split, 2)
    assert found.to_dict() == evaluate(model, DATA, split, 2).to_dict()
    (score,) = found.scores
    assert score.count == sum(len(batch) for batch in held_out_pictures(DATA, split))
    assert set(score.baselines) == {"every patch's mean", "a copy of the nearest visible patch"}


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        patch_losses(SIZES.build(DATA.grids), [])
