"""M3AE and answers: what each task reads, padding, matching, and an encoder's weights in a classifier."""

from dataclasses import replace

import pytest
import torch

from maskstream.train.core.recipe import Recipe
from maskstream.train.core.weights import load_matching_weights, save_model
from maskstream.train.nn.transformer import FusionBlock
from maskstream.train.papers.m3ae.evaluate import Priors, measure_answers
from maskstream.train.papers.m3ae.model import ImageTextAutoencoderConfig
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import write_split
from ..first_batch import first_batch
from ..test_every_recipe import CUTS


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image-text")
    for name in ("train", "val"):
        write_split("image-text", folder / name / "of").rename(folder / f"{name}-split")
    (folder / "data").mkdir()
    for name in ("train", "val"):
        (folder / f"{name}-split").rename(folder / "data" / name)
    return folder / "data" / "val"


def small(name, *more) -> Recipe:
    return chosen_recipe(name, (*CUTS[name.partition("-")[0]], "batch_size=5", *more))


@pytest.fixture(scope="module")
def batch(split):
    return first_batch(split, small("m3ae-tiny", 'data.text=["caption"]', "data.length=40"))


@pytest.fixture
def model():
    made = small("m3ae-tiny", "model.fusion_depth=2", "model.image_layer=1", "data.length=40").build().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return made


def repainted(batch, tokens):
    """The batch with other pixels in some patches, bool (B, N)."""
    b, n = tokens.shape
    side = int(n**0.5)
    pixels = tokens.reshape(b, side, side).repeat_interleave(8, 1).repeat_interleave(8, 2)[..., None]
    return replace(batch, image=torch.where(pixels, 255 - batch.image, batch.image))


@torch.no_grad()
def test_patches_are_predicted_from_the_visible_ones_and_the_text(batch, model):
    before = model.predict_patches(batch)
    hidden = batch.image_mask.masked
    torch.testing.assert_close(model.predict_patches(repainted(batch, hidden)), before)
    assert not torch.allclose(model.predict_patches(repainted(batch, ~hidden)), before, atol=1e-4)
    others = replace(batch.text, tokens=batch.text.tokens.flip(0), roles=batch.text.roles.flip(0))
    assert not torch.allclose(model.predict_patches(replace(batch, text=others)), before, atol=1e-4)


@torch.no_grad()
def test_words_are_predicted_from_the_visible_ones_and_the_whole_image(batch, model):
    words, judged = model.judged(batch)
    text = replace(batch.text, tokens=torch.where(batch.text_mask.masked, 7, batch.text.tokens))
    same, _ = model.judged(replace(batch, text=text))
    torch.testing.assert_close(same, words)
    seen, other = model.judged(repainted(batch, batch.image_mask.masked))
    assert not torch.allclose(seen, words, atol=1e-4)
    assert not torch.allclose(other, judged, atol=1e-4)


@torch.no_grad()
def test_padding_changes_nothing(batch, model):
    def noisy(rows):
        tokens = torch.where(rows.valid, rows.tokens, 9)
        return replace(rows, tokens=tokens)

    mask = replace(batch.text_mask, tokens=torch.where(batch.text.valid, batch.text_mask.tokens, 9))
    assert not batch.text.valid.all()
    changed = replace(batch, text=noisy(batch.text), pair=noisy(batch.pair), text_mask=mask)
    for one, other in zip(model.judged(changed), model.judged(batch), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(model.predict_patches(changed), model.predict_patches(batch))


@torch.no_grad()
def test_the_loss_is_that_of_each_task_alone(batch, model):
    parts = model.loss(batch).parts
    assert [*parts] == ["hidden words", "hidden patches", "matching"]
    words, judged = model.judged(batch)
    wrong, count = 0.0, 0
    for i in range(len(batch)):
        for place, target in enumerate(batch.text_mask.target[i, : batch.text_mask.n_target[i]]):
            wrong -= words[i, place].log_softmax(-1)[batch.text.tokens[i, target]]
            count += 1
    torch.testing.assert_close(parts["hidden words"].mean(), wrong / count)
    match = -judged.log_softmax(-1)[torch.arange(len(batch)), batch.match.long()]
    torch.testing.assert_close(parts["matching"].mean(), match.mean())


@torch.no_grad()
def test_predictions_stand_only_in_hidden_places(batch, model):
    made = model.reconstructed(batch)
    hidden = batch.text_mask.masked
    assert made.text.tokens[~hidden].equal(batch.text.tokens[~hidden])
    assert not made.text.tokens[hidden].equal(batch.text.tokens[hidden])
    pixels = (made.image != batch.image).any(-1).reshape(len(batch), 4, 8, 4, 8).any(dim=4).any(dim=2).flatten(1)
    assert not (pixels & ~batch.image_mask.masked).any()


def test_each_stream_of_a_block_reads_the_other_as_it_was():
    block = FusionBlock(16, 2, 2, 1e-6)
    image, text = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    valid = torch.tensor([[True, True, False], [True, True, True]])[:, None, None]
    seen, read = block(image, text, valid)
    torch.testing.assert_close(seen, block.image(image, text, None, valid))
    torch.testing.assert_close(read, block.text(text, image, valid, None))
    alone, _ = block(image[:1], text[:1, :2], valid[:1, ..., :2])
    torch.testing.assert_close(alone, seen[:1])


def test_a_classifier_takes_the_encoder_of_a_run(batch, tmp_path):
    cuts = ("data.length=40",)
    first, second = small("m3ae-tiny", *cuts), small("vqa-tiny", *cuts)
    model, classifier = first.build(seed=3).eval(), second.build(seed=4).eval()
    save_model(model, tmp_path / "model.safetensors")
    own = load_matching_weights(classifier, tmp_path / "model.safetensors")
    assert {name.partition(".")[0] for name in own} == {"head"}
    with torch.no_grad():
        torch.testing.assert_close(classifier.pooler(*classifier.encoder.whole(batch)), model.features(batch))


def test_answers_are_counted_by_kind_and_compared_with_answers_without_looking(batch):
    classifier = small("vqa-tiny", "data.length=40").build().eval()
    label = torch.tensor([0, 1, 1, -1, 1])
    asked = replace(batch, label=label, fields={"kind": ["a", "b", "a", "b", "b"]})
    priors = Priors.of([asked])
    assert priors.label == 1
    with torch.no_grad():
        classifier.head[3].bias[1] = 1e4
    found = measure_answers(classifier, [asked], priors)
    assert found.model == {"all": 0.6, "a": 0.5, "b": 2 / 3} == found.frequent
    assert found.questions == {"all": 5, "a": 2, "b": 3}
    assert found.unseen["all"] == 0.8
    frequency = torch.tensor([1 / 4, 3 / 4, 3 / 4, 3 / 4]).log().neg().mean()
    assert found.prior_loss == pytest.approx(float(frequency))


def test_sizes_and_data_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="image_layer must be 0 to fusion_depth=6, got 7"):
        ImageTextAutoencoderConfig(image_layer=7)
    with pytest.raises(ValueError, match="multiple of 4 and of heads, got width=30"):
        ImageTextAutoencoderConfig(width=30)
    with pytest.raises(ValueError, match="pairs=True"):
        chosen_recipe("m3ae-tiny", ("data.pairs=false",))
