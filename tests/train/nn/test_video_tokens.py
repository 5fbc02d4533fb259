from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines import TokenGrid
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD, TokenBatch
from maskstream.train.nn.grid import build_interleaved_sinusoid, gather_tokens
from maskstream.train.nn.masked_autoencoder import VideoAutoencoderConfig
from maskstream.train.nn.media_tokens import VideoTokens

GRID = TokenGrid.video(4, 32, 32, tubelet=2, patch=8)


def cube(video, token):
    """Token `token` of one clip uint8 (T, H, W, 3), cut out by slicing."""
    t, rest = divmod(token, 16)
    h, w = divmod(rest, 4)
    return video[2 * t : 2 * t + 2, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8].permute(3, 0, 1, 2).numpy()


def test_tokens_are_the_cubes_in_t_h_w_order_with_channels_first(noise):
    cubes = VideoTokens(GRID).split(noise.video)
    assert cubes.dtype == torch.uint8
    assert cubes.shape == (4, 32, 2 * 8 * 8 * 3)
    for b in range(4):
        for token in range(32):
            assert np.array_equal(cubes[b, token], cube(noise.video[b], token).reshape(-1))


def test_inputs_are_pixel_values_normalised_as_the_batch_does(noise):
    tokens = VideoTokens(GRID)
    mine = tokens.inputs(tokens.split(noise.video))
    theirs = noise.pixel_values().permute(0, 1, 3, 4, 2)
    assert torch.allclose(mine, cut(theirs), atol=1e-5)


def cut(video):
    """The cubes of float clips (B, T, H, W, 3)."""
    return torch.stack([torch.stack([torch.from_numpy(cube(clip, n)).flatten() for n in range(32)]) for clip in video])


def test_targets_have_mean_zero_and_unbiased_variance_one_per_channel(noise):
    tokens = VideoTokens(GRID)
    targets = tokens.targets(tokens.split(noise.video))
    assert targets.dtype == torch.float32
    for token in (0, 7, 31):
        pixels = cube(noise.video[1], token).reshape(3, -1).astype(np.float64) / 255
        expected = (pixels - pixels.mean(1, keepdims=True)) / (pixels.std(1, ddof=1, keepdims=True) + 1e-6)
        assert np.allclose(targets[1, token].reshape(3, -1), expected, atol=1e-5)


def test_a_flat_cube_has_the_target_zero():
    tokens = VideoTokens(GRID)
    flat = tokens.targets(torch.full((1, 1, 384), 77, dtype=torch.uint8))
    assert torch.equal(flat, torch.zeros_like(flat))


def test_painting_the_true_targets_gives_the_clip_back(noise):
    tokens = VideoTokens(GRID)
    index = noise.mask.target
    cubes = tokens.split(noise.video)
    truth = tokens.targets(cubes[torch.arange(4)[:, None], index])
    assert torch.equal(tokens.paint(noise.video, index, truth), noise.video)
    grey = tokens.paint(noise.video, index, torch.zeros_like(truth))
    changed = (tokens.split(grey) != cubes).any(dim=2)
    assert torch.equal(changed, noise.mask.masked)


def test_targets_of_pixels_are_the_inputs_and_are_painted_without_the_truth(noise):
    tokens, index = VideoTokens(GRID, "pixels"), noise.mask.target
    cubes = tokens.split(noise.video)
    row = torch.arange(4)[:, None]
    truth = tokens.targets(cubes[row, index])
    assert torch.equal(truth, tokens.inputs(cubes)[row, index])
    assert torch.equal(tokens.paint(noise.video, index, truth), noise.video)
    grey = tokens.split(tokens.paint(noise.video, index, torch.zeros_like(truth)))[row, index]
    assert torch.equal(grey, tokens.mean.round().to(torch.uint8).expand_as(grey))


def test_positions_on_a_grid_tell_the_axes_apart():
    line, grid = (VideoTokens(GRID, places=places).positions(24).reshape(2, 4, 4, 24) for places in ("line", "grid"))
    assert torch.equal(grid[0, :, :, 8:], grid[1, :, :, 8:])
    assert torch.equal(grid[:, 0, :, :8], grid[:, 3, :, :8])
    assert len({row.numpy().tobytes() for row in grid.reshape(32, 24)}) == 32
    assert torch.equal(line.reshape(32, 24), build_interleaved_sinusoid(32, 24))


def test_other_clips_are_refused(noise):
    with pytest.raises(ValueError, match=r"takes \(B, 4, 32, 32, 3\)"):
        VideoTokens(GRID).split(noise.video[:, :2])
    with pytest.raises(ValueError, match="needs a grid with the axes"):
        VideoTokens(TokenGrid(axes=("time", "freq"), shape=(2, 2), patch=(2, 2)))


def test_a_frame_target_is_the_first_frame_of_a_cube_normalised_over_all_its_values(noise):
    tokens = VideoTokens(TokenGrid.video(4, 32, 32, tubelet=2, patch=8), "frame")
    cubes = tokens.split(noise.video)
    made = tokens.targets(cubes)
    assert made.shape == (4, 32, 3 * 64) == (4, 32, tokens.n_targets)
    pixels = noise.video[1, 2, 8:16, 16:24].permute(2, 0, 1).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    frame = ((pixels - mean) / std).flatten()
    expected = (frame - frame.mean()) / (frame.var() + 1e-6).sqrt()
    assert torch.allclose(made[1, 16 + 4 + 2].double(), expected, atol=1e-5)


def test_a_painted_frame_stands_in_all_frames_of_its_cube(noise):
    tokens = VideoTokens(TokenGrid.video(4, 32, 32, tubelet=2, patch=8), "frame")
    index = noise.mask.target
    painted = tokens.paint(noise.video, index, tokens.targets(gather_tokens(tokens.split(noise.video), index)))
    cubes, true = (gather_tokens(tokens.split(v), index).view(4, -1, 3, 2, 64) for v in (painted, noise.video))
    assert torch.equal(cubes[..., 0, :], cubes[..., 1, :])
    assert (cubes[..., 0, :].int() - true[..., 0, :].int()).abs().max() <= 1


def only_tokens(batch, index, targets=True):
    """The batch with the tokens `index` (B, K) alone, as a loader makes them."""
    cubes = batch.video.view(-1, 2, 2, 4, 8, 4, 8, 3).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(len(batch), 32, -1)
    tokens = TokenBatch(pixels=gather_tokens(cubes, index), index=index, targets=targets)
    return replace(batch, video=batch.video[:, :, :0, :0], tokens=tokens)


def test_a_model_has_the_same_loss_and_gradients_of_tokens_alone(noise):
    sizes = {"width": 24, "depth": 1, "heads": 2, "decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2}
    mask = replace(noise.mask, target=noise.mask.target[:, ::2], weight=noise.mask.weight[:, ::2])  # half are made
    whole = replace(noise, mask=mask)
    index = torch.cat([mask.visible, mask.target], dim=1).sort(dim=1).values
    assert index.shape[1] < 32
    models = [VideoAutoencoderConfig(**sizes).make({"video": GRID}).double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    losses = [model(batch).loss() for model, batch in zip(models, (whole, only_tokens(whole, index)), strict=True)]
    for loss in losses:
        loss.backward()
    assert abs(float(losses[0].detach() - losses[1].detach())) <= 1e-12
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert (one.grad - other.grad).abs().max() <= 1e-12
    made = [
        model.reconstructed(batch).video
        for model, batch in zip(models, (whole, only_tokens(whole, index)), strict=True)
    ]
    at = VideoTokens(GRID)
    assert torch.equal(*(gather_tokens(at.split(one), mask.target) for one in made))


def test_a_model_refuses_tokens_that_it_needs_and_has_not(noise):
    tokens = VideoTokens(GRID)
    with pytest.raises(ValueError, match=r"only its visible tokens, .*output='tokens\+targets'"):
        tokens.of(only_tokens(noise, noise.mask.visible, targets=False))
    with pytest.raises(ValueError, match="all are needed; use output='rgb'"):
        tokens.media(only_tokens(noise, noise.mask.visible))
