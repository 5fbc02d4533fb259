"""Recipes of MedThink (Gai et al., 2024): answers with their reasons."""

from dataclasses import replace

from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.image_text.strategies import STRATEGIES
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import RationaleWriterConfig


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
        model=RationaleWriterConfig(dropout=DropoutConfig(hidden=0.1, inner=0.1, attention=0.1)),
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
