"""Of every recipe whose model gives features, they are of each sample alone, and its encoder can be taken out whole."""

from dataclasses import replace

import pytest
import torch

from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.classifier import EncoderClassifier, select_body_weights, tune_classifier
from maskstream.train.evaluate.features import GivesFeatures, GivesTokens, drop_augmentation
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig
from maskstream.train.recipes import RECIPES, chosen_recipe

from ..test_every_recipe import CUTS

pytestmark = pytest.mark.slow

NONE = {
    "ca-dense-unet-tiny": "it removes noise",
    "diffmavil-tiny": "it denoises at a time that a sample does not have",
    "fastdit3d-tiny": "it denoises at a time that a sample does not have",
    "medthink-tiny": "it writes answers to questions",
    "oneref-tiny": "what it encodes is a picture with a phrase",
    "oneref-refer-tiny": "what it encodes is a picture with a phrase",
    "roar-lstm-tiny": "it is a classifier",
    "roar-roberta-tiny": "it is a classifier",
    "spiking-mst-tiny": "it is a classifier",
    "vq-tiny": "it makes ids",
    "vqa-tiny": "it is a classifier",
    "vqframes-tiny": "it makes ids",
    "where2imagine-tiny": "it predicts a waypoint",
}
"""The recipes whose models give no features, and why."""
TINY = [name for name in RECIPES if "-tiny" in name]


def small(name):
    return chosen_recipe(name, CUTS[name.partition("-")[0]])


def batches(data, split, size):
    options = {"batch_size": size, "shuffle": False, "device": "cpu", "rank": 0, "world_size": 1, "threads": 1}
    loader = data.loader(split, **options)
    try:
        return [batch for batch, _ in zip(loader, range(4 // size), strict=False)]
    finally:
        loader.close()


def test_all_but_these_give_features():
    assert {name for name in TINY if not isinstance(small(name).build(), GivesFeatures)} == NONE.keys()


@pytest.mark.parametrize("name", [name for name in TINY if name not in NONE])
def test_features_are_of_each_sample_alone_and_the_encoder_is_taken_out_whole(name, split_of):
    recipe = small(name)
    split = Manifest.load(split_of(recipe.data.modality))
    tuned = tune_classifier(recipe, split)
    kept = {"norm": "tokens"} if getattr(tuned.recipe.model, "norm", "") == "mean" else {}  # the norm of pre-training
    data, model = drop_augmentation(tuned.recipe.data, Manifest.load(split)), recipe.build(seed=1).eval()
    classifier = replace(tuned.recipe, model=replace(tuned.recipe.model, **kept)).build().eval()
    missing, unexpected = classifier.load_state_dict(tuned.initial(model), strict=False)
    assert not unexpected
    assert not [one for one in missing if not one.startswith(("head.", "norm."))]
    together, alone = batches(data, split, 2), batches(data, split, 1)
    with torch.no_grad():
        found = torch.cat([model.features(batch) for batch in together])
        assert found.dtype == torch.float32
        assert found.shape == (4, found.shape[1])
        assert found.isfinite().all()
        assert found.std(dim=0).max() > 0
        torch.testing.assert_close(torch.cat([model.features(batch) for batch in alone]), found, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.cat([classifier.features(batch) for batch in together]), found)
        if not isinstance(recipe.model, AutoencoderConfig):
            assert isinstance(classifier, EncoderClassifier)
            assert set(select_body_weights(model)) == {
                one for one in classifier.state_dict() if one.startswith("body.")
            }
            assert found.shape[1] == model.feature_width
        if isinstance(model, GivesTokens):
            tokens, inputs = model.token_features(together[0]), model.token_inputs(together[0])
            assert tokens.shape[:2] == inputs.shape[:2]
    losses = classifier.train().loss(together[0])
    assert losses.parts["classification"].total.isfinite()
