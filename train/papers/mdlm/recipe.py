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
    """Each token becomes [MASK] with a chance that is drawn for the text."""
    return Padded(mask=Replace(mask=diffusion, keep=0.0, random=0.0))


def mdlm_base() -> Recipe[TextBatch]:
    """MDLM (Sahoo et al., 2024, section 5.1 and appendix C) on LM1B: 12 pre-norm layers of width 768, rotary positions.

    A text of up to 128 tokens a row, by BERT's uncased tokenizer; a batch of 512 (8 ranks of 64), a million steps,
    AdamW without decay with a rate of 3e-4 that stays after 2,500 steps of warm-up; an average of the weights with
    0.9999. Times from 0.001, a log-linear schedule, no conditioning on the time, as in the authors' code.

    Differs from the authors' code in: times that are drawn for each text alone, where theirs spreads those of a batch
    evenly (masks.Stratified spreads those of a text over views or epochs); special tokens that are never hidden, so
    that the length of a text is given; blocks without adaptive norms, whose condition is constant without a time; a
    head with a layer of its own over the table of the ids, where theirs has another table; the GELU itself instead of
    its approximation by tanh; biases in attention; other random numbers.
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
    """The same method for two CPU cores: 2,000 steps of 32 rows of up to 64 tokens, 2 pre-norm layers of width 128.

    Differs from the authors' code as `mdlm_base` does, and in times from 0.1, since a token that counts a thousandfold
    is noise in so small a batch; a rate that falls along a cosine; and no average of the weights, since the run is
    short.
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
