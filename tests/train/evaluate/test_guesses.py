"""Guesses of hidden cubes: what each is on clips where the answer is known."""

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import Random, TokenGrid, mask_batch
from maskstream.train.evaluate.guesses import GUESSES, harmonic, interpolated, nearest_copy, visible_mean
from maskstream.train.nn.select import gather_tokens
from maskstream.train.nn.video_tokens import VideoTokens

GRID = TokenGrid.video(4, 32, 32, tubelet=2, patch=8)
TOKENS = VideoTokens(GRID, "pixels")
MASK = Random(ratio=0.75).draw(GRID, [np.random.default_rng(i) for i in range(2)])


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
    made = visible_mean(TOKENS, NOISE, MASK).reshape(2, -1, 3, 128)
    assert torch.allclose(made, seen[:, None, :, None].expand_as(made), atol=1e-5)


def test_the_nearest_cube_is_copied():
    hidden = np.ones((1, 32), dtype=np.bool_)
    hidden[0, [0, 31]] = False
    mask = mask_batch(hidden, grid=GRID)
    made = nearest_copy(TOKENS, NOISE[:1], mask)[0]
    where = dict(zip(mask.target[0].tolist(), made, strict=True))
    assert torch.equal(where[1], NOISE[0, 0])
    assert torch.equal(where[30], NOISE[0, 31])


def test_colours_are_weighted_by_the_distance_to_a_power():
    hidden = np.ones((1, 32), dtype=np.bool_)
    hidden[0, [0, 3]] = False
    mask = mask_batch(hidden, grid=GRID)
    cubes = torch.zeros(1, 32, 384)
    cubes[0, 3] = 1.0
    made = interpolated(TOKENS, cubes, mask, power=2.0)[0]
    pixel = made[mask.target[0].tolist().index(1)].reshape(3, 2, 8, 8)[0, 0, 0, 0]  # at (t, y, x) = (0, 0, 8)
    near, far = (2.0**2 + 3.5**2 + dx**2 for dx in (8 - 3.5, 8 - 27.5))
    assert float(pixel) == pytest.approx((1 / far) / (1 / near + 1 / far), rel=1e-4)


def test_a_ramp_is_harmonic_and_better_guessed_the_more_a_guess_knows():
    errors = [error(guess, RAMP) for guess in (visible_mean, nearest_copy, interpolated, harmonic)]
    assert errors[3] < 0.6 * errors[2]
    assert errors[2] < errors[1]
    assert errors[2] < errors[0]
    hidden = np.zeros((1, 32), dtype=np.bool_)
    hidden[0, 5] = True  # a cube within the plane, in the first time step
    assert error(lambda *args: harmonic(*args, time=0.0), RAMP[:1], mask_batch(hidden, grid=GRID)) < 1e-4
