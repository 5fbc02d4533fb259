"""Figures of pictures: what is bright was seen, and only what was hidden is the model's."""

import base64
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from maskstream.pages.figures.image import ImageFigures
from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import compute_image_grid

GRID = compute_image_grid(32, 8)
FIGURES = ImageFigures(grid=GRID, label_names=("a", "b"))


@pytest.fixture
def batch():
    mask = Random(ratio=0.75).draw(GRID, [np.random.default_rng(i) for i in range(2)])
    image = torch.full((2, 32, 32, 3), 200, dtype=torch.uint8)
    return ImageBatch(image=image, mask=mask, key=["s0", "s1"], label=torch.tensor([1, -1]))


def pixels(picture):
    data = base64.b64decode(picture.uri.partition(",")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)


def cells(picture):
    """The mean of each token's part of a square picture, (N,)."""
    shown = pixels(picture).mean(axis=2)
    side = len(shown) // 4
    return shown.reshape(4, side, 4, side).mean(axis=(1, 3)).reshape(-1)


def test_a_sample_is_shown_with_what_the_encoder_sees(batch):
    card = FIGURES.sample(batch, 0)
    whole, seen = (figure.items[0] for figure in card.figures)
    hidden = batch.mask.masked[0].numpy()
    assert (np.abs(cells(whole) - 200) < 5).all()
    assert (np.abs(cells(seen)[~hidden] - 200) < 5).all()
    assert (cells(seen)[hidden] < 100).all()
    assert card.label == "b (1)"
    assert FIGURES.sample(batch, 1).label == ""
    first = card.facts[0].items[0]
    assert (first.name, first.value) == ("Visible tokens", "4")


def test_only_what_was_hidden_and_predicted_is_the_models(batch):
    made = replace(batch, image=torch.full((2, 32, 32, 3), 120, dtype=torch.uint8))
    original, seen, completed = FIGURES.compared(batch, made, 0).figures[0].items
    hidden = batch.mask.masked[0].numpy()
    assert (np.abs(cells(original) - 200) < 5).all()
    assert (np.abs(cells(completed)[hidden] - 120) < 5).all()
    assert (np.abs(cells(completed)[~hidden] - 200) < 5).all()
    assert (cells(seen)[hidden] < 100).all()


def test_without_a_mask_the_whole_picture_is_compared(batch):
    made = replace(batch, image=torch.full_like(batch.image, 120))
    (figure,) = FIGURES.compared(replace(batch, mask=None), made, 0).figures
    original, completed = (pixels(item) for item in figure.items)
    assert np.abs(original - 200).max() < 5
    assert np.abs(completed - 120).max() < 5


def test_what_does_not_fit_is_refused(batch):
    with pytest.raises(ValueError, match=r"a grid of \(2, 2\) tokens of .*, but the images are \(32, 32\)"):
        ImageFigures(grid=compute_image_grid(16, 8)).sample(batch, 0)
    assert FIGURES.sample(replace(batch, mask=None), 0).missing == ("The loader was built without a mask.",)
