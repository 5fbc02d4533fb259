import pytest
import torch

from maskstream.pipelines.masks import ByClass, Feedback, Padded, Replace
from maskstream.train import load_model, train
from maskstream.train.core.recipe import find_channels, publish_scores
from maskstream.train.nn.token_model import TokenModelConfig

from ...pipelines.every_modality import write_split
from ..text_batches import MASK_ID, VOCABULARY, made_up


def following(feedback):
    return Padded(mask=Replace(mask=ByClass(ratio=0.4, feedback=feedback), mask_id=MASK_ID, vocabulary=VOCABULARY))


def test_the_channel_in_a_mask_is_found():
    channel = Feedback(3)
    assert find_channels(following(channel)) == [channel]
    assert find_channels(following(None)) == []


def test_a_step_publishes_the_scores_that_the_next_masks_follow():
    channel = Feedback(3)
    batch = made_up(mask=following(channel), classes=3)
    assert batch.mask.version.tolist() == [0] * len(batch)
    sizes = {"vocabulary": VOCABULARY, "width": 32, "depth": 1, "heads": 4, "classes": 3, "momentum": 0.5}
    model = TokenModelConfig(**sizes).build({"text": batch.mask.grid}).train()
    model(batch)
    publish_scores([channel], model)
    assert channel.read().scores.tolist() == model.class_scores.tolist()
    assert made_up(mask=following(channel)).mask.version.tolist() == [1] * len(batch)
    publish_scores([channel], model, trained=False)
    assert channel.read().scores.tolist() == model.class_scores.tolist()


def test_a_model_without_scores_is_refused():
    publish_scores([], torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"model\.classes"):
        publish_scores([Feedback(3)], torch.nn.Linear(1, 1))


def test_a_run_averages_the_losses_of_classes_and_a_resume_begins_with_them(tmp_path):
    split = write_split("text", tmp_path)
    cuts = ("model.width=16", "model.depth=1", "model.heads=2", "data.length=32", "batch_size=2", "model.momentum=0.5")
    words = {"data": split, "out": tmp_path / "run", "set": cuts, "device": "cpu", "progress": False}
    train("ptw-tiny", steps=3, **words)
    first = load_model(tmp_path / "run/model.safetensors").class_scores
    assert (first > 1).any()
    train("ptw-tiny", steps=6, **words)
    assert (load_model(tmp_path / "run/model.safetensors").class_scores >= first).all()
