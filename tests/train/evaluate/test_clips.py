"""The held-out error of models of pixels beside guesses."""

from dataclasses import replace

import pytest
import torch

from maskstream.pipelines import VideoClip
from maskstream.pipelines.masks import PartDecoded, Random
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.evaluate.clips import (
    SHRUNK,
    ClipLosses,
    PixelLosses,
    beside_guess,
    clip_losses,
    held_out,
    measured_clips,
)
from maskstream.train.evaluate.guesses import COPY, GUESSES, HARMONIC, MEAN, harmonic, nearest_copy, visible_mean
from maskstream.train.models import VideoAutoencoderConfig

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
    clips = measured_clips(DATA, eleven)
    assert sum(len(batch) for batch in clips) == 24  # 3 rounds of 8 of the 11
    assert all(torch.equal(batch.mask.masked.sum(dim=1), torch.full((8,), 24)) for batch in clips)
    assert all(batch.mask.target.shape[1] == 24 for batch in clips)
    again = measured_clips(DATA, eleven)
    assert all(torch.equal(a.video, b.video) for a, b in zip(clips, again, strict=True))


def test_losses_are_those_of_each_clip_and_the_shrunk_copy_is_the_best_mixture(model, eleven):
    clips = measured_clips(DATA, eleven)[:2]
    found = clip_losses(model, clips)
    each = [error for batch in clips for error in beside_guess(harmonic, model, batch)[1]]
    assert found.samples == len(each) == 16
    assert found.model == pytest.approx(sum(own for own, _ in each) / 16, rel=1e-5)
    assert found.guesses[HARMONIC] == pytest.approx(sum(guess for _, guess in each) / 16, rel=1e-5)
    tried = []
    for share in torch.linspace(0, 1, 21).tolist():

        def mixed(tokens, cubes, mask, share=share):
            copy, mean = nearest_copy(tokens, cubes, mask), visible_mean(tokens, cubes, mask)
            return mean + share * (copy - mean)

        tried += [sum(guess for batch in clips for _, guess in beside_guess(mixed, model, batch)[1]) / 16]
    assert found.guesses[SHRUNK] == pytest.approx(min(tried), rel=5e-3)
    assert found.guesses[SHRUNK] <= min(found.guesses[COPY], found.guesses[MEAN])


def test_the_guess_is_painted_where_the_model_would_be(model, eleven):
    (batch, *_) = measured_clips(DATA, eleven)
    guessed, _ = beside_guess(harmonic, model, batch)
    kept = model.tokens.split(guessed.video).eq(model.tokens.split(batch.video)).all(dim=2)
    assert kept[~batch.mask.masked].all()
    assert not kept[batch.mask.masked].all()


def test_facts_say_by_how_much_the_best_guess_is_beaten_or_not(model, eleven):
    facts = held_out(DATA, model, eleven).facts
    assert "% above" in facts["error on 24 centre crops"]
    found = ClipLosses(model=0.4, guesses={MEAN: 0.9, HARMONIC: 0.5, COPY: 1.1}, samples=3)
    assert found.words() == f"0.400; 20% below {HARMONIC} (0.500); 56% below {MEAN} (0.900)"
    table = PixelLosses(centres=found, crops=found).table()
    assert [name for name, _ in table] == ["the model", HARMONIC, MEAN, COPY]
    assert table[1][1] == "0.500 on centre crops, 0.500 on random crops"
    assert set(GUESSES) < set(clip_losses(model, measured_clips(DATA, eleven)[:1]).guesses)


def test_models_of_normalised_tokens_and_no_clips_are_refused(model, eleven):
    other = replace(SIZES, target="normalised").build(DATA.grids)
    with pytest.raises(ValueError, match="target='pixels'"):
        clip_losses(other, measured_clips(DATA, eleven)[:1])
    with pytest.raises(ValueError, match="at least one clip"):
        clip_losses(model, [])
