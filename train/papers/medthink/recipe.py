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
    """MedThink (Gai et al., 2024) of T5-base size: questions of 512 tokens, answers and rationales of 256.

    The default strategy, reasoning, puts the rationale before the answer; `--set data.target=["answer","rationale"]`
    selects explanation, and other names of `STRATEGIES` the others. 150 epochs of batches of 8, as for R-RAD.

    Differences from the authors' code: random initial weights (authors: UnifiedQA's T5); one encoder reads both words
    and patches of 16 pixels (authors: T5's encoder, whose words attend once to DETR's features through a gate); learned
    positions; the second of two stages is trained on true rationales with the same model (authors: on generated ones,
    with another model); no prefixes such as "Solution:" around texts; answer options are not read (`--set
    data.text=["question","choice"]` comes close); AdamW with half a cosine (authors: Adafactor).
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
    """Scaled down to two CPU cores: 36 patches of 16 pixels, width 64, 2,000 steps of 32 questions of
    `scenes-counting`.
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
