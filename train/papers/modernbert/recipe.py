"""Recipes of ModernBERT (Warner et al., 2024)."""

from dataclasses import replace

from maskstream.pipelines.masks import Padded, Replace, Tokens
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import ModernModelConfig

_MASK = Padded(mask=Replace(mask=Tokens(ratio=0.3, each=True)))
"""30 % of the tokens, chosen independently: 80 % of them become [MASK], 10 % a random token, and 10 % stay the same."""


def modernbert_base() -> Recipe[TextBatch]:
    """ModernBERT (Warner et al., 2024, table 4), first phase: packed rows of 1,024 tokens, 22 layers of width 768.

    1.72 trillion tokens in 364,300 steps of 4,608 rows (48 ranks of 96), AdamW with betas (0.9, 0.98) at a constant
    8e-4 after a warm-up over 3 billion tokens; rotary base 10,000 in all layers.

    Differences from the authors' code: AdamW with gradient clipping (authors: StableAdamW, which clips updates); the
    full batch from the start (authors: grows from 768 rows over 50 billion tokens); weight decay is multiplied by the
    learning rate, so our 1e-5 / 8e-4 equals their 1e-5, and applies to matrices only; no dropout (authors: 0.1 on
    attention outputs); special tokens are never hidden; initial weights are not truncated at 2 standard deviations;
    rows pack documents of one shard.
    """
    return Recipe(
        name="modernbert-base",
        batch_size=96,
        data=TextData(length=1024, packing="pack", mask=_MASK),
        model=ModernModelConfig(theta=10_000.0),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-5 / 8e-4, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=8e-4 / 18, warmup=0.00175, steps=364_300, shape="constant"),
    )


def modernbert_base_long() -> Recipe[TextBatch]:
    """The second phase: rows of 8,192 tokens, and rotary base 160,000 in global layers. Start it with `--initial
    runs/modernbert-base/model.safetensors`.

    300 billion tokens in 508,600 steps of 72 rows (24 ranks of 3) at 3e-4, falling as 1 - sqrt over the last 50
    billion.
    """
    return replace(
        modernbert_base(),
        name="modernbert-base-long",
        batch_size=3,
        data=TextData(length=8192, packing="pack", mask=_MASK),
        model=ModernModelConfig(),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-5 / 3e-4, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=3e-4 * 256 / 72, warmup=0.0, steps=508_600, shape="trapezoid", cooldown=1 / 6),
    )


def modernbert_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores: 800 steps of 16 packed rows of 128 tokens, 4 layers of width 128.

    Local layers see 32 tokens, to be local in such short texts. The rate falls over the last half of the run.
    """
    return replace(
        modernbert_base(),
        name="modernbert-tiny",
        batch_size=16,
        data=TextData(length=128, packing="pack", mask=_MASK),
        model=ModernModelConfig(vocabulary=8192, width=128, depth=4, heads=4, hidden=192, window=32, theta=10_000.0),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=48e-3, warmup=0.1, steps=800, shape="trapezoid", cooldown=0.5),
    )
