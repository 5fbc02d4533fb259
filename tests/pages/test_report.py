"""The page of a report: reconstructions that are the model's, and one safe file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pages.figures.pictures import compared
from maskstream.pages.figures.video import VideoFigures
from maskstream.pipelines.masks import Random, TokenGrid, Tube, mask_batch
from maskstream.train.papers.videomae.evaluate import explain_unpredicted

from .pages import Page, decode, without_library
from .reported import GRID, clips, report_page, steps, tiny


def model_of(recipe):
    return recipe.build(seed=0).eval()


def test_reconstruction_paints_the_targets_and_nothing_else():
    recipe = tiny(Tube(ratio=0.75))
    batch = clips()
    model = model_of(recipe)
    with torch.inference_mode():
        made, loss = model.reconstructed(batch).video.numpy(), float(model(batch).loss())
    masked = batch.mask.masked.reshape(2, 2, 4, 4).numpy()
    pixels = masked.repeat(2, 1).repeat(8, 2).repeat(8, 3)
    video = batch.video.numpy()
    np.testing.assert_array_equal(made[~pixels], video[~pixels])
    assert (made[pixels] != video[pixels]).mean() > 0.9
    assert loss > 0


def test_a_prediction_that_is_right_gives_the_original_back():
    batch = clips()
    model = model_of(tiny(Tube(ratio=0.75)))
    cubes = model.tokens.split(batch.video)
    truth = model.tokens.targets(cubes[torch.arange(2)[:, None], batch.mask.target])
    model.predict = lambda video, visible, target: truth
    with torch.inference_mode():
        made = model.reconstructed(batch).video.numpy()
    np.testing.assert_array_equal(made, batch.video.numpy())


def test_nothing_is_shown_as_the_models_work_that_is_not():
    video = np.full((1, 2, 2, 3), 200, dtype=np.uint8)
    made = np.full((1, 2, 2, 3), 7, dtype=np.uint8)
    masked = np.array([[[False, True], [True, False]]])
    targeted = np.array([[[False, True], [False, True]]])
    shown = compared(video, made, masked, targeted)["reconstruction"][0, ..., 0]
    assert shown[0, 0] == 200  # seen
    assert shown[0, 1] == 7  # hidden and predicted
    assert 7 < shown[1, 0] < 100  # hidden, not predicted: darkened, not the original
    assert shown[1, 1] == 200  # predicted though seen: the original


def test_views_show_original_seen_and_reconstruction():
    batch = clips(1)
    batch = replace(batch, video=torch.full_like(batch.video, 220))
    made = replace(batch, video=torch.full_like(batch.video, 20))
    card = VideoFigures(grid=GRID).compared(batch, made, 0)
    assert [item.alt for item in card.figures[0].items] == [f"original at {s:.2f} s" for s in (0.0, 0.5, 1.0, 1.5)]
    assert "neither shown" not in explain_unpredicted(batch)
    masked = batch.mask.masked[0].reshape(2, 4, 4).numpy()
    for f in range(4):
        original, seen, made = (
            decode(uri).astype(float).mean(-1).reshape(4, 56, 4, 56).mean((1, 3))
            for uri in (row.items[f].uri for row in card.figures)
        )
        assert (original > 200).all()
        np.testing.assert_array_equal(seen < 150, masked[f // 2])
        np.testing.assert_array_equal(made < 150, masked[f // 2])
        assert (made[masked[f // 2]] < seen[masked[f // 2]]).all()


def test_clips_without_a_mask_and_wrong_shapes_are_refused():
    batch = clips()
    model = model_of(tiny(Tube(ratio=0.75)))
    with pytest.raises(ValueError, match="no mask"):
        model.reconstructed(replace(batch, mask=None))
    with pytest.raises(ValueError, match="shape of the clips"):
        VideoFigures(grid=GRID).compared(
            batch, replace(batch, video=torch.zeros(2, 4, 16, 16, 3, dtype=torch.uint8)), 0
        )
    with pytest.raises(ValueError, match="covers"):
        VideoFigures(grid=TokenGrid.video(8, 32, 32, tubelet=2, patch=8)).compared(batch, batch, 0)


def test_page_is_one_well_formed_file_with_every_part():
    batches = [clips(2), clips(1, Random(ratio=0.5), "other")]
    text = report_page(
        steps(np.linspace(1.2, 0.6, 60).tolist()),
        batches,
        [batch.video.numpy() for batch in batches],
        {"recipe": "tiny"},
        grid=GRID,
        title="A run",
    )
    page = Page(text)
    assert "://" not in without_library(text)
    for tag, attrs in page.tags:
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("data:", "#")), (tag, attrs[name][:40])
    assert [attrs["data-key"] for tag, attrs in page.tags if tag == "article"] == ["clip0", "clip1", "other0"] * 2
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert "predicting every patch's mean" in page.text
    mean = np.linspace(1.2, 0.6, 60)[-20:].mean()
    assert f"Loss, mean of the last 20 steps {mean:.3f}" in page.text
    assert "Time spent waiting for data 25.0 %" in page.text
    told = ("Learning rate", "samples per second", "judge only the pattern inside it", "standard deviation of the true")
    for words in told:
        assert words in page.text
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    for row in ("original", "the encoder saw", "reconstruction"):
        assert sum(alt.startswith(f"{row} at ") for alt in alts) == 3 * 4


def test_tokens_that_nobody_predicted_are_told():
    masked = np.ones((1, 32), dtype=bool)
    masked[0, :8] = False
    target = np.zeros((1, 32), dtype=bool)
    target[0, 8:20] = True
    batch = replace(clips(1), mask=mask_batch(masked, target, grid=GRID))
    some = report_page(steps([1.0]), [batch], [batch.video.numpy()], {}, grid=GRID, title="t")
    every = report_page(steps([1.0]), [clips(1)], [clips(1).video.numpy()], {}, grid=GRID, title="t")
    assert "neither shown nor predicted" in Page(some).text
    assert "neither shown nor predicted" not in Page(every).text


def test_names_are_escaped():
    hostile = "<img src=x onerror=alert(1)>"
    batch = clips(1, key=hostile)
    text = report_page(
        steps([1.0]),
        [batch],
        [batch.video.numpy()],
        {hostile: hostile},
        grid=GRID,
        title=hostile,
        label_names=[hostile],
    )
    assert hostile not in text
    assert Page(text).text.count(hostile) >= 5
