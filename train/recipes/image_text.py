"""Recipes of images with texts: M3AE and answers, OneRef and what phrases refer to, MedThink and rationales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...pipelines.masks import Box, Padded, Random, Replace, WholeWords
from ...pipelines.modalities.image_text.batch import ImageTextBatch
from ...pipelines.modalities.image_text.data import ImageTextData
from ...pipelines.modalities.image_text.strategies import STRATEGIES
from ..core.optimiser import OptimiserConfig
from ..core.recipe import Recipe
from ..core.schedule import ScheduleConfig
from ..models.image_text_autoencoder import ImageTextAutoencoderConfig
from ..models.image_text_classifier import ImageTextClassifierConfig
from ..models.oneref import OneRefConfig
from ..models.rationale_writer import RationaleWriterConfig

TEXT_MASK = Padded(mask=Replace(mask=WholeWords(ratio=0.15)))
"""15 % of a text in whole words: 80 % become [MASK], 10 % a random token, 10 % stay."""


def _pairs(size: int, patch: int, length: int) -> ImageTextData:
    """M3AE's data: images and captions, both masked, of which half do not belong together."""
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
    """M3AE (Chen et al., 2022): ViT-B/16 at 288 pixels, a text encoder of 12 layers, 6 layers of fusion, 768 wide.

    0.75 of 324 patches and 15 % of a text's words are hidden; patches are predicted after three layers of fusion by a
    decoder of four layers 384 wide, words after all; 8 ranks make a batch of 256, 100,000 steps.

    Differs from the authors' code in: starts from random weights, theirs from CLIP's and RoBERTa's (of CLIP's 12 blocks
    all but the last, as here), whose rate is a fifth of the others'; here all learn at the rate of the others, 5e-5;
    pre-norm layers, theirs are post-norm but for the image's; no dropout; false pairs have another text, theirs another
    image; each pair is false with probability 1/2, theirs half of a batch; pixels are normalised by ImageNet's mean and
    deviation, theirs by CLIP's; half a cosine instead of a line to 0.
    """
    return Recipe(
        name="m3ae-base",
        batch_size=32,
        data=_pairs(size=288, patch=16, length=64),
        model=ImageTextAutoencoderConfig(depth=11, eps=1e-5),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), weight_decay=0.01),
        schedule=ScheduleConfig(base_lr=5e-5, warmup=0.1, steps=100_000),
    )


def m3ae_tiny() -> Recipe[ImageTextBatch]:
    """The same method for two CPU cores: 64 patches of 8 pixels, 24 tokens, layers 96 wide, 400 steps of 16 pairs.

    Differs from the authors' code as `m3ae_base` does.
    """
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
    """Answers to the questions of `easy-vqa`, one of 13 classes, by the encoder of `m3ae_tiny`: 400 steps of 32.

    `--initial RUN/model.safetensors` begins with the encoder that a run of M3AE trained on a split with the same
    tokenizer. Source: M3AE's fine-tuning (Chen et al., 2022, 3.3), without its separate rates.
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


def _phrases(size: int, patch: int, length: int) -> ImageTextData:
    """OneRef's data: images and phrases, both masked, with boxes and segments."""
    return ImageTextData(
        size=size,
        patch=patch,
        text=("phrase",),
        length=length,
        image_mask=Padded(mask=Box(inside=0.75, outside=0.35)),
        text_mask=Padded(mask=Replace(mask=WholeWords(ratio=0.4, each=True))),
        segments=True,
    )


def oneref_base() -> Recipe[ImageTextBatch]:
    """OneRef's mask referring modelling (Xiao et al., 2024): BEiT-3 base at 384 pixels, 64 tokens of text.

    0.75 of the patches of a phrase's box and 0.35 of the others are hidden, and 40 % of its words; 8 ranks make a batch
    of 256. `oneref-refer-base` is the fine-tuning.

    Differs from the authors' code in: starts from random weights, theirs from BEiT-3's; so there is no stage in which
    the tower is frozen; hidden patches are predicted as normalised pixels, theirs as ids of BEiT v2's quantiser; each
    word is hidden with that probability and has no relation score, in theirs the subject and the object are the first
    of so many, which a parser finds;
    attention is shared by both parts, as in BEiT-3's paper, in its code each part has its own layers; similarities have
    a learnt scale and bias, theirs none; a segment is a linear layer's, theirs three transposed convolutions'; pictures
    are squeezed to a centre crop, theirs are padded; no contrast of images with phrases, no dropout, no augmentation.
    """
    return Recipe(
        name="oneref-base",
        batch_size=32,
        data=_phrases(size=384, patch=16, length=64),
        model=OneRefConfig(),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=5e-5, warmup=0.05, epochs=100),
    )


def oneref_tiny() -> Recipe[ImageTextBatch]:
    """The same method for two CPU cores: 36 patches of 16 pixels, 12 tokens, layers 64 wide, 2,400 steps of 16 phrases.

    Differs from the authors' code as `oneref_base` does.
    """
    return replace(
        oneref_base(),
        name="oneref-tiny",
        batch_size=16,
        data=_phrases(size=96, patch=16, length=12),
        model=OneRefConfig(vocabulary=512, width=64, depth=4, heads=2),
        schedule=ScheduleConfig(base_lr=48e-3, min_lr=48e-5, warmup=0.05, steps=2400),
    )


def _whole(recipe: Recipe[ImageTextBatch], name: str) -> Recipe[ImageTextBatch]:
    """A recipe of OneRef whose images and phrases are not masked."""
    data = recipe.data
    assert isinstance(data, ImageTextData)
    return replace(recipe, name=name, data=replace(data, image_mask=None, text_mask=None))


def oneref_refer_base() -> Recipe[ImageTextBatch]:
    """OneRef's fine-tuning: box and segment of whole images and phrases (Xiao et al., 2024).

    `--initial RUN/model.safetensors` begins with the model of a run of `oneref-base` on a split with the same
    tokenizer. Differs from the authors' code as `oneref_base` does.
    """
    recipe = _whole(oneref_base(), "oneref-refer-base")
    return replace(recipe, schedule=ScheduleConfig(base_lr=3e-5, warmup=0.05, epochs=20))


def oneref_refer_tiny() -> Recipe[ImageTextBatch]:
    """The fine-tuning of `oneref_tiny`, of the same size and length."""
    return _whole(oneref_tiny(), "oneref-refer-tiny")


def medthink_base() -> Recipe[ImageTextBatch]:
    """MedThink (Gai et al., 2024), of the size of T5 base: questions of 512 tokens, answers and rationales of 256.

    The strategy is reasoning, the rationale before the answer; `--set data.target=["answer","rationale"]` makes it an
    explanation, and the other names of `STRATEGIES` likewise. 150 epochs of batches of 8, as for R-RAD.

    Differs from the authors' code in: starts from random weights, theirs from UnifiedQA's T5; one tower reads patches
    of 16 pixels and words, theirs is T5's encoder, whose words attend once to DETR's features through a gate; learned
    positions; the second of two stages reads true rationales in training and is learnt by the same model at the same
    time, theirs reads written ones and is another model; no words such as "Solution:" around the texts, and options are
    not read, for which `--set data.text=["question","choice"]` is near; AdamW instead of Adafactor, half a cosine.
    """
    return Recipe(
        name="medthink-base",
        batch_size=8,
        data=ImageTextData(
            size=224, patch=16, text=("question",), length=512, target_length=256, **STRATEGIES["reasoning"]
        ),
        model=RationaleWriterConfig(),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=16e-3, warmup=0.05, epochs=150),
    )


def medthink_tiny() -> Recipe[ImageTextBatch]:
    """The same method for two CPU cores, on `scenes-counting`: 36 patches of 16 pixels, layers 64 wide, 2,000 steps of
    32 questions.

    Differs from the authors' code as `medthink_base` does.
    """
    return replace(
        medthink_base(),
        name="medthink-tiny",
        batch_size=32,
        data=ImageTextData(
            size=96, patch=16, text=("question",), length=40, target_length=32, **STRATEGIES["reasoning"]
        ),
        model=RationaleWriterConfig(vocabulary=512, width=64, depth=3, decoder_depth=2, heads=2, longest=32),
        schedule=ScheduleConfig(base_lr=24e-3, min_lr=24e-5, warmup=0.1, steps=2000),
    )


RECIPES: dict[str, Callable[[], Recipe[ImageTextBatch]]] = {
    "m3ae-base": m3ae_base,
    "m3ae-tiny": m3ae_tiny,
    "medthink-base": medthink_base,
    "medthink-tiny": medthink_tiny,
    "oneref-base": oneref_base,
    "oneref-refer-base": oneref_refer_base,
    "oneref-refer-tiny": oneref_refer_tiny,
    "oneref-tiny": oneref_tiny,
    "vqa-tiny": vqa_tiny,
}
