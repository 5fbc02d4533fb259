"""Recipes of M3AE (Geng et al., 2022), and of answers to questions by its encoder."""

from dataclasses import replace

from maskstream.pipelines.masks import Padded, Random, Replace, WholeWords
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import ImageTextAutoencoderConfig, ImageTextClassifierConfig

TEXT_MASK = Padded(mask=Replace(mask=WholeWords(ratio=0.15)))
"""15 % of a text in whole words: 80 % become [MASK], 10 % a random token, 10 % are unchanged."""


def _pairs(size: int, patch: int, length: int) -> ImageTextData:
    """Return M3AE's data: masked images and captions, half of which do not match."""
    return ImageTextData(
        size=size,
        patch=patch,
        text=("caption",),
        length=length,
        image_mask=Random(ratio=0.75),
        text_mask=TEXT_MASK,
        pairs=True,
    )


def m3ae_base() -> Recipe[ImageTextBatch]:
    """M3AE (Chen et al., 2022): ViT-B/16 at 288 pixels, a text encoder of 12 layers, 6 fusion layers, width 768.

    0.75 of 324 patches and 15 % of a text's words are hidden; patches are predicted after three fusion layers by a
    decoder of four layers of width 384, words after all six; 8 ranks form a batch of 256, 100,000 steps.

    Differences from the authors' code: random initial weights (authors: CLIP's and RoBERTa's, with a fifth of the
    learning rate); one learning rate of 5e-5; false pairs replace the text (authors: the image); each pair is false
    with probability 1/2 (authors: half of a batch); ImageNet's pixel mean and standard deviation (authors: CLIP's); an
    epsilon of 1e-5 in all norms (authors: 1e-12 in the fusion and the word head).
    """
    return Recipe(
        name="m3ae-base",
        batch_size=32,
        data=_pairs(size=288, patch=16, length=64),
        model=ImageTextAutoencoderConfig(
            depth=11,
            eps=1e-5,
            clip=True,
            norm="post",
            projected=True,
            positions="columns",
            untied=True,
            dropout=DropoutConfig(hidden=0.1, attention=0.1, only=("encoder.embed", "encoder.text", "encoder.blocks")),
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), weight_decay=0.01),
        schedule=ScheduleConfig(base_lr=5e-5, warmup=0.1, steps=100_000, shape="linear"),
    )


def m3ae_tiny() -> Recipe[ImageTextBatch]:
    """Scaled down to two CPU cores: 64 patches of 8 pixels, 24 tokens, width 96, 400 steps of 16 pairs."""
    return replace(
        m3ae_base(),
        name="m3ae-tiny",
        batch_size=16,
        data=_pairs(size=64, patch=8, length=24),
        model=ImageTextAutoencoderConfig(
            vocabulary=2048,
            width=96,
            depth=2,
            text_depth=2,
            fusion_depth=2,
            heads=3,
            image_layer=1,
            decoder_width=48,
            decoder_depth=1,
            decoder_heads=3,
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=16e-3, min_lr=16e-5, warmup=0.1, steps=400),
    )


def vqa_tiny() -> Recipe[ImageTextBatch]:
    """Answers the questions of `easy-vqa`, one of 13 classes, with the encoder of `m3ae-tiny`: 400 steps at batch size
    32.

    `--initial RUN/model.safetensors` starts from the encoder of an M3AE run with the same tokenizer. It follows M3AE's
    fine-tuning (3.3) without separate rates.
    """
    return Recipe(
        name="vqa-tiny",
        batch_size=32,
        data=ImageTextData(size=64, patch=8, text=("question",), length=12),
        model=ImageTextClassifierConfig(
            vocabulary=2048, width=96, depth=2, text_depth=2, fusion_depth=2, heads=3, answers=13
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=8e-3, min_lr=8e-5, warmup=0.1, steps=400),
    )
