"""Pictures of clips under their masks, and the paths that draw tokens."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pages.figures.pictures import draw_outline, draw_runs, encode_data_uri, grown, make_darker, sized
from maskstream.pipelines.masks import TokenGrid

from ..pipelines.clips import GRID, make_batch
from .pages import Page, decode, fill, video_page


def test_darkened_pixels_are_exactly_the_masked_tokens():
    batch = make_batch(1)
    frames = np.maximum(batch.video[0].numpy(), 60)  # brighter than any darkened pixel could stay
    masked = batch.mask.masked[0].numpy()
    out = make_darker(frames, grown(masked.reshape(GRID.shape), 64, 64).repeat(2, axis=0))
    changed = (out != frames).any(-1)
    for t in range(8):
        for y in range(64):
            token = (t // 2) * 16 + (y // 16) * 4 + np.arange(64) // 16
            np.testing.assert_array_equal(changed[t, y], masked[token])
    hidden = out[changed]
    assert (hidden == hidden[:, :1]).all()
    assert hidden.max() < 0.35 * 255


def test_frames_of_one_tubelet_share_their_mask():
    batch = replace(make_batch(1), video=torch.full((1, 8, 64, 64, 3), 200, dtype=torch.uint8))
    page = Page(video_page(batch, GRID, title="t", facts={}))
    seen = {a["alt"]: decode(a["src"]) for tag, a in page.tags if tag == "img" and a["alt"].startswith("seen")}
    np.testing.assert_array_equal(seen["seen 1"], seen["seen 2"])
    assert (seen["seen 1"] != seen["seen 3"]).any()


def test_the_embedded_picture_is_dark_where_the_token_is_masked():
    batch = replace(make_batch(1), video=torch.full((1, 8, 64, 64, 3), 200, dtype=torch.uint8))
    text = video_page(batch, GRID, title="t", facts={})
    seen = next(a["src"] for tag, a in Page(text).tags if tag == "img" and a["alt"] == "seen 3")
    picture = decode(seen).astype(float).mean(-1)
    cell = picture.shape[0] // 4
    means = picture.reshape(4, cell, 4, cell).mean((1, 3))
    np.testing.assert_array_equal(means < 130, batch.mask.masked[0].reshape(4, 4, 4)[1].numpy())


def test_cells_are_whole_pixels_in_the_shape_of_the_patch():
    def cell(grid, side_px):
        (_, h, w), (_, ph, pw) = grid.shape, grid.patch
        height, width = sized(np.zeros((1, h * ph, w * pw, 3), np.uint8), grid, side_px).shape[1:3]
        return height / h, width / w

    assert cell(TokenGrid.video(16, 224, 224), 224) == (16, 16)
    assert cell(TokenGrid.video(16, 224, 224), 150) == (11, 11)
    assert cell(TokenGrid(shape=(8, 14, 14), patch=(2, 8, 16)), 224) == (8, 16)
    assert cell(TokenGrid(shape=(8, 200, 200), patch=(2, 1, 1)), 96) == (1, 1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_paths_draw_the_flags(share):
    flags = np.random.default_rng(1).random((9, 13)) < share
    np.testing.assert_array_equal(fill(draw_runs(flags), flags.shape), flags)
    lines = re.findall(r"M(\d+) (\d+)([hv])(\d+)", draw_outline(flags))
    horizontal, vertical = np.zeros((10, 13), dtype=bool), np.zeros((9, 14), dtype=bool)
    for x, y, way, n in lines:
        x, y, n = int(x), int(y), int(n)
        if way == "h":
            horizontal[y, x : x + n] = True
        else:
            vertical[y : y + n, x] = True
    np.testing.assert_array_equal(horizontal, np.diff(np.pad(flags, ((1, 1), (0, 0))), axis=0))
    np.testing.assert_array_equal(vertical, np.diff(np.pad(flags, ((0, 0), (1, 1))), axis=1))


def test_the_timeline_is_the_mask():
    batch = make_batch(1)
    text = video_page(batch, GRID, title="t", facts={})
    path = re.search(r'class="visible" d="([^"]*)"', text).group(1)
    np.testing.assert_array_equal(fill(path, (4, 16)), ~batch.mask.masked[0].reshape(4, 16).numpy())


def test_lossless_pictures_come_back_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode_data_uri(image, lossless=True)), image)
