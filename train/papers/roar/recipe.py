"""Recipes of classified texts: the two classifiers that Recursive ROAR retrains.

Their tiny sizes fit `vader`, sentences of four kinds of source, with a tokenizer of 4,096 ids (`maskstream shards vader
--set tokenizer=train:wordpiece:4096`). Another split may have other numbers of labels and ids: `--set model.labels=2
--set model.vocabulary=8192`.
"""

from dataclasses import replace

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import LSTMClassifierConfig, RobertaClassifierConfig


def roar_lstm_base() -> Recipe[TextBatch]:
    """Recursive ROAR's BiLSTM with attention (Madsen et al., 2022): embeddings of width 300, 128 channels per
    direction.

    8 epochs of batches of 32, a learning rate of 1e-3, weight decay 1e-5.

    Differences from the authors' code: random initial vectors (authors: GloVe); word pieces (authors: words); AdamW
    (authors: Adam with AMSGrad and L2); the last weights are used (authors: the best epoch's); texts are cut to 512
    tokens.
    """
    return Recipe(
        name="roar-lstm-base",
        batch_size=32,
        data=_beginnings(512),
        model=LSTMClassifierConfig(decayed_attention=False),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=1e-5),
        schedule=ScheduleConfig(base_lr=8e-3, warmup=0.0, epochs=8, shape="constant"),
    )


def roar_lstm_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores: vectors of width 48, 32 channels a direction, 32 tokens, 600 steps of 64 texts (two
    epochs of `vader`).
    """
    return replace(
        roar_lstm_base(),
        name="roar-lstm-tiny",
        batch_size=64,
        data=_beginnings(32),
        model=LSTMClassifierConfig(vocabulary=4096, width=48, hidden=32, labels=4, decayed_attention=False),
        schedule=ScheduleConfig(base_lr=4e-2, warmup=0.05, steps=600),
    )


def roar_roberta_base() -> Recipe[TextBatch]:
    """The RoBERTa of Recursive ROAR: 12 layers of width 768, 3 epochs of batches of 16, AdamW at 2e-5.

    Differences from the authors' code: random initial weights, for which the learning rate is low (authors: pre-trained
    RoBERTa); pre-norm blocks (authors: post-norm); the last weights are used (authors: the best epoch's).
    """
    return Recipe(
        name="roar-roberta-base",
        batch_size=16,
        data=_beginnings(512),
        model=RobertaClassifierConfig(vocabulary=50265, dropout=DropoutConfig(hidden=0.1, attention=0.1)),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01),
        schedule=ScheduleConfig(base_lr=3.2e-4, warmup=0.06, epochs=3, shape="linear"),
    )


def roar_roberta_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores: one layer of width 64, 32 tokens, 600 steps of 64 texts, with a rate for random
    weights.
    """
    return replace(
        roar_roberta_base(),
        name="roar-roberta-tiny",
        batch_size=64,
        data=_beginnings(32),
        model=RobertaClassifierConfig(vocabulary=4096, width=64, depth=1, heads=4, labels=4),
        schedule=ScheduleConfig(base_lr=1.6e-2, warmup=0.1, steps=600),
    )


def _beginnings(length: int) -> TextData:
    """Return the data of the first tokens of each text."""
    return TextData(length=length, packing="row", windows=False)
