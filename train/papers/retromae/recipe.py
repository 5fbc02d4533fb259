"""Recipes of RetroMAE (Xiao et al., 2022)."""

from dataclasses import replace

from maskstream.pipelines.masks import (
    DecoderRows,
    Padded,
    Replace,
    WholeWords,
)
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import RetroModelConfig


def retromae_base() -> Recipe[TextBatch]:
    """RetroMAE (Xiao et al., 2022): 30 % of whole words hidden from the encoder, 50 % from each decoder position.

    BERT base and a decoder of one layer; one text of up to 512 tokens a row, 32 on each of 8 ranks, 8 epochs, AdamW at
    1e-4 with weight decay 0.01 and 10 % warm-up.

    Differences from the authors' code: random initial weights (authors: BERT's, possible with `--initial`); texts are
    cut to 512 tokens (authors: packed sentences); no weight decay on embeddings; bf16 or float32 (authors: fp16); other
    random numbers.
    """
    return Recipe(
        name="retromae-base",
        batch_size=32,
        data=TextData(length=512, packing="row", mask=_retro()),
        model=RetroModelConfig(segment=True, dropout=DropoutConfig(hidden=0.1, attention=0.1)),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=1e-4, warmup=0.1, epochs=8, shape="linear"),
    )


def retromae_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores: 800 steps of 16 texts of up to 64 tokens, 2 layers of width 128.

    Uses pre-norm layers and rotary positions in the encoder.
    """
    return replace(
        retromae_base(),
        name="retromae-tiny",
        batch_size=16,
        data=TextData(length=64, packing="row", mask=_retro()),
        model=RetroModelConfig(vocabulary=8192, width=128, depth=2, heads=4, norm="pre", positions="rotary", eps=1e-6),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=48e-3, warmup=0.1, steps=800),
    )


def _retro() -> Padded:
    """Return RetroMAE's masks of the encoder and of the decoder."""
    return Padded(mask=DecoderRows(encoder=Replace(mask=WholeWords(ratio=0.3)), ratio=0.5))
