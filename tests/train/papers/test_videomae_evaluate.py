"""The held-out error of models of pixels beside guesses."""

from dataclasses import replace

import pytest
import torch

from maskstream.pipelines import VideoClip
from maskstream.pipelines.masks import PartDecoded, Random
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.patches import (
    COPY,
    GUESSES,
    HARMONIC,
    MEAN,
    SHRUNK,
    PixelLosses,
    copy_nearest,
    interpolate_pixels,
    repeat_mean,
)
from maskstream.train.models import VideoAutoencoderConfig
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.papers.videomae.evaluate import compare_with, evaluate, measure_clips, read_clips

DATA = VideoData(
    clip=VideoClip(frames=4, stride=1, size=32), mask=PartDecoded(mask=Random(ratio=0.75)), patch=8, views=2
)
SIZES = VideoAutoencoderConfig(
    width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2, target="pixels"
)


@pytest.fixture(scope="module")
def model():
    return SIZES.build(DATA.grids).eval()


def test_all_hidden_tokens_of_one_view_are_measured_on_enough_clips(eleven):
    clips = read_clips(DATA, Manifest.load(eleven))
    assert sum(len(batch) for batch in clips) == 24  # 3 rounds of 8 of the 11
    assert all(torch.equal(batch.mask.masked.sum(dim=1), torch.full((8,), 24)) for batch in clips)
    assert all(batch.mask.target.shape[1] == 24 for batch in clips)
    again = read_clips(DATA, Manifest.load(eleven))
    assert all(torch.equal(a.video, b.video) for a, b in zip(clips, again, strict=True))


def test_losses_are_those_of_each_clip_and_the_shrunk_copy_is_the_best_mixture(model, eleven):
    clips = read_clips(DATA, Manifest.load(eleven))[:2]
    found = measure_clips(model, clips)
    each = [error for batch in clips for error in compare_with(interpolate_pixels, model, batch)[1]]
    assert found.samples == len(each) == 16
    assert found.model == pytest.approx(sum(own for own, _ in each) / 16, rel=1e-5)
    assert found.guesses[HARMONIC] == pytest.approx(sum(guess for _, guess in each) / 16, rel=1e-5)
    tried = []
    for share in torch.linspace(0, 1, 21).tolist():

        def mixed(tokens, cubes, mask, share=share):
            copy, mean = copy_nearest(tokens, cubes, mask), repeat_mean(tokens, cubes, mask)
            return mean + share * (copy - mean)

        tried += [sum(guess for batch in clips for _, guess in compare_with(mixed, model, batch)[1]) / 16]
    assert found.guesses[SHRUNK] == pytest.approx(min(tried), rel=5e-3)
    assert found.guesses[SHRUNK] <= min(found.guesses[COPY], found.guesses[MEAN])


def test_the_best_mixture_with_the_interpolation_is_that_of_a_search(model, eleven, monkeypatch):
    batch = read_clips(DATA, Manifest.load(eleven))[0]
    tokens, target = model.tokens, batch.mask.target
    cubes = tokens.inputs(tokens.split(batch.video))
    line, true = interpolate_pixels(tokens, cubes, batch.mask), gather_tokens(cubes, target)
    own = true + 0.3 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(model, "predict", lambda data, visible, target: own)
    found = measure_clips(model, [batch])
    errors = [float((line + share / 100 * (own - line) - true).square().mean()) for share in range(101)]
    (name, error), (share, of_model) = found.notes().items()
    assert name == f"best mixture of the model and {HARMONIC}"
    assert share == "share of the model in the best mixture"
    assert error == pytest.approx(min(errors), rel=1e-3)
    assert error < min(found.model, found.guesses[HARMONIC])
    assert of_model == pytest.approx(errors.index(min(errors)) / 100, abs=0.01)


def test_the_guess_is_painted_where_the_model_would_be(model, eleven):
    (batch, *_) = read_clips(DATA, Manifest.load(eleven))
    guessed, _ = compare_with(interpolate_pixels, model, batch)
    kept = model.tokens.split(guessed.video).eq(model.tokens.split(batch.video)).all(dim=2)
    assert kept[~batch.mask.masked].all()
    assert not kept[batch.mask.masked].all()


def test_clips_are_measured_as_centre_crops_and_as_random_ones_beside_all_guesses(model, eleven):
    found = evaluate(model, DATA, Manifest.load(eleven), 2)
    centres, crops = found.scores
    assert (centres.of, centres.count, crops.of, crops.count) == ("centre crops", 24, "clips", 24)
    assert crops.name.endswith("in random crops")
    assert all(set(GUESSES) < set(score.baselines) for score in found.scores)
    drawn, same = found.examples
    assert len(drawn.rows) == len(same.rows) == 2
    assert [set(row) for row in drawn.errors] == [{"error", "interpolation error"}] * 2
    losses = PixelLosses(model=0.4, guesses={MEAN: 0.9, HARMONIC: 0.5, COPY: 1.1}, apart={HARMONIC: 0.3}, samples=3)
    assert losses.best == losses.score("clips").best == losses.measure_training_loss().baseline == HARMONIC


def test_models_of_normalised_tokens_and_no_clips_are_refused(model, eleven):
    other = replace(SIZES, target="normalised").build(DATA.grids)
    with pytest.raises(ValueError, match="target='pixels'"):
        measure_clips(other, read_clips(DATA, Manifest.load(eleven))[:1])
    with pytest.raises(ValueError, match="at least one clip"):
        measure_clips(model, [])
