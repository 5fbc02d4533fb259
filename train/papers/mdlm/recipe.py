"""Recipes of MDLM (Sahoo et al., 2024)."""

from dataclasses import replace

from maskstream.pipelines.masks import MaskedDiffusion, Padded, Replace, Uniform
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import DiffusionLanguageConfig


def _hide_tokens(diffusion: MaskedDiffusion) -> Padded:
    """Replace each token by [MASK] with a probability that is drawn for the text."""
    return Padded(mask=Replace(mask=diffusion, keep=0.0, random=0.0))


def mdlm_base() -> Recipe[TextBatch]:
    """MDLM (Sahoo et al., 2024, section 5.1 and appendix C) on LM1B: 12 pre-norm layers of width 768, rotary positions.

    One text of up to 128 tokens a row, BERT's uncased tokenizer; a batch of 512 (8 ranks of 64), a million steps, AdamW
    without weight decay at a constant 3e-4 after 2,500 warm-up steps; averaged weights (0.9999). Times from 0.001, a
    log-linear schedule and no time conditioning, as in the authors' code.

    Differences from the authors' code: times are drawn independently (authors: spread evenly over a batch);
    `masks.Stratified` spreads those of one text over views or epochs; special tokens are never hidden, so the text's
    length is known; no adaptive norms, whose input would be constant without time; the head shares the embedding table
    after one layer (authors: a separate table); exact GELU (authors: tanh approximation); biases in attention; other
    random numbers.
    """
    return Recipe(
        name="mdlm-base",
        batch_size=64,
        data=TextData(length=128, packing="row", mask=_hide_tokens(MaskedDiffusion())),
        model=DiffusionLanguageConfig(norm="pre", positions="rotary", eps=1e-5, dropout=DropoutConfig(hidden=0.1)),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1.0, average=0.9999),
        schedule=ScheduleConfig(base_lr=3e-4 / 2, warmup=0.0025, steps=1_000_000, shape="constant"),
    )


def mdlm_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores: 2,000 steps of 32 rows of up to 64 tokens, 2 layers of width 128.

    Times start at 0.1, since a token with a weight of a thousand is noise in so small a batch; the rate follows a
    cosine; weights are not averaged, as the run is short.
    """
    return replace(
        mdlm_base(),
        name="mdlm-tiny",
        batch_size=32,
        data=TextData(length=64, packing="row", mask=_hide_tokens(MaskedDiffusion(ratio=Uniform(low=0.1, high=1.0)))),
        model=DiffusionLanguageConfig(
            vocabulary=8192, width=128, depth=2, heads=4, norm="pre", positions="rotary", eps=1e-6
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=24e-3, warmup=0.1, steps=2000),
    )
