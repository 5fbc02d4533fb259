"""Pictures as tokens, beside what MAE publishes, step by step."""

import pytest
import torch

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.train.nn.media_tokens import ImageTokens


def images(seed=0, size=12):
    return torch.randint(0, 256, (3, size, size, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def patchified(image, patch):
    """MAE's `patchify` of normalised pictures (B, 3, H, W): float (B, N, patch * patch * 3)."""
    x = image.permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = (x - mean) / std
    side = x.shape[2] // patch
    x = x.reshape(len(x), 3, side, patch, side, patch)
    return torch.einsum("nchpwq->nhwpqc", x).reshape(len(image), side * side, -1)


def test_inputs_and_targets_are_those_of_mae():
    tokens, image = ImageTokens(compute_image_grid(12, 4)), images()
    patches = tokens.split(image)
    assert patches.dtype == torch.uint8
    wanted = patchified(image, 4)
    torch.testing.assert_close(tokens.inputs(patches).double(), wanted, atol=1e-5, rtol=0)
    normalised = (wanted - wanted.mean(2, keepdim=True)) / (wanted.var(2, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(tokens.targets(patches).double(), normalised, atol=1e-4, rtol=0)


def test_painting_true_targets_gives_the_picture_back():
    tokens, image = ImageTokens(compute_image_grid(12, 4)), images()
    index = torch.tensor([[0, 3, 8]]).expand(3, -1)
    true = tokens.targets(tokens.split(image))[:, [0, 3, 8]]
    before = image.clone()
    assert torch.equal(tokens.paint(image, index, true), image)
    painted = tokens.paint(image, index, torch.zeros_like(true))
    assert torch.equal(image, before)
    patches, original = tokens.split(painted), tokens.split(image)
    others = [1, 2, 4, 5, 6, 7]
    assert torch.equal(patches[:, others], original[:, others])
    means = original[:, [0, 3, 8]].float().reshape(3, 3, 16, 3).mean((2, 3))
    assert (patches[:, [0, 3, 8]].float().reshape(3, 3, 16, 3).mean((2, 3)) - means).abs().max() < 12


def test_targets_of_pixels_are_the_inputs_and_are_painted_without_the_truth():
    tokens, image = ImageTokens(compute_image_grid(12, 4), "pixels"), images()
    index = torch.tensor([[0, 3, 8]]).expand(3, -1)
    patches = tokens.split(image)
    true = tokens.targets(patches)[:, [0, 3, 8]]
    assert torch.equal(true, tokens.inputs(patches)[:, [0, 3, 8]])
    assert torch.equal(tokens.paint(image, index, true), image)
    grey = tokens.split(tokens.paint(image, index, torch.zeros_like(true)))[:, [0, 3, 8]]
    assert torch.equal(grey, tokens.mean.round().to(torch.uint8).expand_as(grey))


def test_positions_tell_rows_from_columns():
    positions = ImageTokens(compute_image_grid(12, 4)).positions(16)
    assert positions.shape == (9, 16)
    assert torch.equal(positions[:3, :8], positions[0, :8].expand(3, -1))
    assert torch.equal(positions[::3, 8:], positions[0, 8:].expand(3, -1))
    assert len({row.numpy().tobytes() for row in positions}) == 9


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a model of images needs a grid with the axes"):
        ImageTokens(TokenGrid())
    with pytest.raises(ValueError, match=r"the shape \(3, 16, 16, 3\), but the model takes \(B, 12, 12, 3\)"):
        ImageTokens(compute_image_grid(12, 4)).split(images(size=16))
