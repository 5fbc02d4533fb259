"""The loss of hidden patches beside trivial predictors, and guesses of cubes on clips where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import Random, TokenGrid, mask_batch
from maskstream.pipelines.modalities.image.data import ImageData, compute_image_grid
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.patches import (
    GUESSES,
    MEAN,
    collect_held_out_pictures,
    copy_nearest,
    evaluate,
    find_nearest_visible,
    interpolate_colours,
    interpolate_pixels,
    measure_patches,
    repeat_mean,
)
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.masked_autoencoder import ImageAutoencoderConfig
from maskstream.train.nn.media_tokens import VideoTokens

from ...pipelines.every_modality import write_split

DATA = ImageData(size=32, patch=8, mask=Random(ratio=0.75))
SIZES = ImageAutoencoderConfig(width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
GRID = TokenGrid.video(4, 32, 32, tubelet=2, patch=8)
TOKENS = VideoTokens(GRID, "pixels")
MASK = Random(ratio=0.75).draw(GRID, [np.random.default_rng(i) for i in range(2)])


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("image", tmp_path_factory.mktemp("image"))


def test_the_nearest_visible_token_is_found_on_the_grid():
    masked = torch.ones(2, 16, dtype=torch.bool)
    masked[0, [0, 7]] = masked[1, [5, 10]] = False
    mask = mask_batch(masked.numpy(), masked.numpy(), grid=compute_image_grid(32, 8))
    near = torch.stack([torch.full((16,), -1), torch.full((16,), -1)]).scatter_(
        1, mask.target, find_nearest_visible(mask)
    )
    # on 4 x 4: 0 at (0, 0), 7 at (1, 3); 5 at (1, 1), 10 at (2, 2), as near to 6 and 9 as 5 is
    assert near[0, [1, 4, 11, 6]].tolist() == [0, 0, 7, 7]
    assert near[1, [0, 15, 6, 9]].tolist() == [5, 10, 5, 5]


def test_what_fills_a_row_up_or_is_a_mask_token_is_not_nearest():
    grid = compute_image_grid(32, 8)
    mask = replace(
        Random(ratio=0.75).draw(grid, [np.random.default_rng(0)]),
        visible=torch.tensor([[5, 10, 15, 0]]),
        target=torch.tensor([[1, 14]]),
        n_visible=torch.tensor([3]),
        mask_token=torch.zeros(1, 16, dtype=torch.bool).index_fill(1, torch.tensor([15]), True),
    )
    assert find_nearest_visible(mask).tolist() == [[5, 10]]


def test_a_model_of_pixels_is_compared_with_guesses_from_visible_pixels(split):
    model = replace(SIZES, target="pixels").build(DATA.grids).eval()
    found = evaluate(model, DATA, Manifest.load(split), 2).scores[0]
    pictures = collect_held_out_pictures(DATA, Manifest.load(split))
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
    pictures = collect_held_out_pictures(DATA, Manifest.load(split))
    found = measure_patches(model, pictures)
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
    found = evaluate(model, DATA, Manifest.load(split), 2)
    assert found.to_dict() == evaluate(model, DATA, Manifest.load(split), 2).to_dict()
    (score,) = found.scores
    assert score.count == sum(len(batch) for batch in collect_held_out_pictures(DATA, Manifest.load(split)))
    assert set(score.baselines) == {"every patch's mean", "a copy of the nearest visible patch"}


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        measure_patches(SIZES.build(DATA.grids), [])


def cubes_of(clip):
    """Inputs of the cubes of a clip float (T, H, W, 3), twice."""
    video = clip.round().clamp(0, 255).to(torch.uint8).expand(2, 4, 32, 32, 3)
    return TOKENS.inputs(TOKENS.split(video))


def error(guess, cubes, mask=MASK):
    return (guess(TOKENS, cubes, mask) - gather_tokens(cubes, mask.target)).square().mean().item()


NOISE = cubes_of(torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0)) * 255)
RAMP = cubes_of(torch.arange(32.0)[None, :, None, None] * 5 + torch.arange(32.0)[None, None, :, None] * 2)


@pytest.mark.parametrize("guess", GUESSES.values(), ids=[g.__name__ for g in GUESSES.values()])
def test_no_guess_sees_what_is_hidden_and_one_colour_is_guessed_exactly(guess):
    hidden = NOISE.clone()
    hidden[MASK.masked] = 100.0
    assert torch.equal(guess(TOKENS, hidden, MASK), guess(TOKENS, NOISE, MASK))
    assert error(guess, cubes_of(torch.full((4, 32, 32, 3), 90.0))) < 1e-9


def test_the_mean_is_that_of_the_visible_pixels_of_each_colour():
    seen = gather_tokens(NOISE, MASK.visible).reshape(2, -1, 3, 128).mean(dim=(1, 3))
    made = repeat_mean(TOKENS, NOISE, MASK).reshape(2, -1, 3, 128)
    assert torch.allclose(made, seen[:, None, :, None].expand_as(made), atol=1e-5)


def test_the_nearest_cube_is_copied():
    hidden = np.ones((1, 32), dtype=np.bool_)
    hidden[0, [0, 31]] = False
    mask = mask_batch(hidden, grid=GRID)
    made = copy_nearest(TOKENS, NOISE[:1], mask)[0]
    where = dict(zip(mask.target[0].tolist(), made, strict=True))
    assert torch.equal(where[1], NOISE[0, 0])
    assert torch.equal(where[30], NOISE[0, 31])


def test_colours_are_weighted_by_the_distance_to_a_power():
    hidden = np.ones((1, 32), dtype=np.bool_)
    hidden[0, [0, 3]] = False
    mask = mask_batch(hidden, grid=GRID)
    cubes = torch.zeros(1, 32, 384)
    cubes[0, 3] = 1.0
    made = interpolate_colours(TOKENS, cubes, mask, power=2.0)[0]
    pixel = made[mask.target[0].tolist().index(1)].reshape(3, 2, 8, 8)[0, 0, 0, 0]  # at (t, y, x) = (0, 0, 8)
    near, far = (2.0**2 + 3.5**2 + dx**2 for dx in (8 - 3.5, 8 - 27.5))
    assert float(pixel) == pytest.approx((1 / far) / (1 / near + 1 / far), rel=1e-4)


def test_a_ramp_is_harmonic_and_better_guessed_the_more_a_guess_knows():
    errors = [error(guess, RAMP) for guess in (repeat_mean, copy_nearest, interpolate_colours, interpolate_pixels)]
    assert errors[3] < 0.6 * errors[2]
    assert errors[2] < errors[1]
    assert errors[2] < errors[0]
    hidden = np.zeros((1, 32), dtype=np.bool_)
    hidden[0, 5] = True  # a cube within the plane, in the first time step
    assert error(lambda *args: interpolate_pixels(*args, time=0.0), RAMP[:1], mask_batch(hidden, grid=GRID)) < 1e-4
