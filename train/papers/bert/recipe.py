"""Recipes of text: BERT, MosaicBERT, Learning Better Masking, PMLM and RetroMAE.

Ids come from the split's tokenizer and must be below the model's `vocabulary`: 8,192 in the tiny recipes, like the
tokenizer trained by `maskstream shards`, and 30,522 in full-size recipes, whose tokenizer is passed by path.
"""

from dataclasses import replace

from maskstream.pipelines.masks import (
    ByClass,
    Mask,
    Padded,
    RatioDecay,
    Replace,
    Tokens,
    UniformCount,
)
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.token_model import TokenModelConfig

CLASSES = 17
"""The universal parts of speech."""


DROPOUT = DropoutConfig(hidden=0.1, attention=0.1)
"""Dropout of BERT and its successors (Devlin et al., 2019, A.2)."""
SMALL = TokenModelConfig(vocabulary=8192, width=128, depth=2, heads=4, norm="pre", positions="rotary", eps=1e-6)
"""The model of the tiny recipes: 2 pre-norm layers of width 128, with rotary positions.

Learned position vectors fail in short runs, because the model first has to learn which positions are neighbours.
"""


def replaced(mask: Mask) -> Padded:
    """Replace 80 % of the tokens that `mask` hides with [MASK] and 10 % with a random token; 10 % are unchanged."""
    return Padded(mask=Replace(mask=mask))


def bert_base() -> Recipe[TextBatch]:
    """BERT's masked language model (Devlin et al., 2019, 3.1 and A.2): 12 layers of width 768, 15 % of the tokens
    hidden.

    256 rows of 512 tokens, a million steps, AdamW at 1e-4, 10,000 warm-up steps.

    Differences from the authors' code: no next-sentence prediction, so one segment and no pooler; documents packed to
    512 tokens throughout (authors: 128 for the first 900,000 steps, and one in ten shortened); at most round(0.15 n)
    hidden tokens, without a limit of 20 or 80 per row; exact GELU (authors: tanh approximation); no weight decay on
    embeddings; other random numbers.
    """
    return Recipe(
        name="bert-base",
        batch_size=32,
        data=TextData(length=512, packing="pack", mask=replaced(Tokens(ratio=0.15))),
        model=TokenModelConfig(dropout=DROPOUT),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=1e-4, warmup=0.01, steps=1_000_000, shape="linear"),
    )


def bert_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores: rows of 128 tokens, 2 layers of width 128, 800 steps of 16 rows.

    Uses pre-norm layers and rotary positions.
    """
    return replace(
        bert_base(),
        name="bert-tiny",
        batch_size=16,
        data=TextData(length=128, packing="pack", mask=replaced(Tokens(ratio=0.15))),
        model=SMALL,
        optimiser=OptimiserConfig(betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=48e-3, warmup=0.1, steps=800),
    )


def mosaicbert_base() -> Recipe[TextBatch]:
    """MosaicBERT (Portes et al., 2023): no padding, ALiBi, gated layers, 30 % of the tokens hidden independently.

    One document per row, cut to 128 tokens; a batch of 4,096 (32 ranks of 128), 70,000 steps, AdamW at 5e-4 with betas
    (0.9, 0.98), 6 % warm-up, decay to 0.02 of the rate.

    Differences from the authors' code: weight decay is multiplied by the learning rate, so our 1e-5 / 5e-4 equals
    their decoupled 1e-5; no prediction at the first token; the vocabulary is not padded to a multiple of 64; no weight
    decay on embeddings; evaluation hides 30 % (authors: 15 %).
    """
    return Recipe(
        name="mosaicbert-base",
        batch_size=128,
        data=TextData(length=128, packing="row", mask=replaced(Tokens(ratio=0.3, each=True))),
        model=TokenModelConfig(positions="alibi", gated=True, dropout=DropoutConfig(hidden=0.1)),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), eps=1e-6, weight_decay=0.02),
        schedule=ScheduleConfig(base_lr=5e-4 / 16, min_lr=1e-5 / 16, warmup=0.06, steps=70_000, shape="linear"),
    )


def mosaicbert_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores: 2 layers of width 128, 800 steps of 16 rows of up to 128 tokens.

    Uses pre-norm layers and rotary positions: ALiBi's penalties are symmetric, so a small model is slow to learn on
    which side a neighbour is.
    """
    return replace(
        bert_tiny(),
        name="mosaicbert-tiny",
        data=TextData(length=128, packing="row", mask=replaced(Tokens(ratio=0.3, each=True))),
        model=replace(SMALL, gated=True),
    )


def mrd_base() -> Recipe[TextBatch]:
    """Masking ratio decay (Yang et al., 2023): the ratio falls from 0.32 to 0.02 along a cosine.

    200,000 steps of 256 rows of 512 tokens, AdamW at 2e-4, 10,000 warm-up steps.

    Differences from the authors' code: random initial weights (authors: BERT's, possible with `--initial`); rows of
    packed documents (authors: the first sentences of a text, about half a row); no weight decay on embeddings; bf16 or
    float32 (authors: fp16).
    """
    return replace(
        bert_base(),
        name="mrd-base",
        data=TextData(length=512, packing="pack", mask=replaced(Tokens(ratio=RatioDecay(), each=True))),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=2e-4, warmup=0.05, steps=200_000, shape="linear"),
    )


def mrd_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores, otherwise like `bert-tiny`."""
    mask = replaced(Tokens(ratio=RatioDecay(), each=True))
    return replace(bert_tiny(), name="mrd-tiny", data=TextData(length=128, packing="pack", mask=mask))


def ptw_base() -> Recipe[TextBatch]:
    """Masks weighted by part of speech (Yang et al., 2023): words of classes with a high loss are hidden more often.
    Needs a split with classes (`maskstream shards ... --set classes=FOLDER`).

    The loader draws masks from the running loss of each of 17 classes (momentum 0.999).

    Differences from the authors' code, besides those listed for `mrd-base` except initial weights: word classes come
    from a lexicon (authors: a tagger that reads the sentence); a resumed run starts from the checkpoint's scores.
    """
    return replace(
        mrd_base(),
        name="ptw-base",
        data=TextData(length=512, packing="pack", mask=replaced(ByClass(ratio=0.15))),
        model=TokenModelConfig(classes=CLASSES, dropout=DROPOUT),
    )


def ptw_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores, otherwise like `bert-tiny`; momentum 0.99, as the run is short."""
    return replace(
        bert_tiny(),
        name="ptw-tiny",
        data=TextData(length=128, packing="pack", mask=replaced(ByClass(ratio=0.15))),
        model=replace(SMALL, classes=CLASSES, momentum=0.99),
    )


def pmlm_base() -> Recipe[TextBatch]:
    """PMLM (Liao et al., 2020): a uniformly distributed number of hidden tokens, so that the model can generate in any
    order.

    Rows of 128 tokens, one document each, AdamW at 1e-4, a batch of 256.

    Differences from the authors' code: no next-sentence prediction, so one document per row instead of two segments;
    masks are redrawn each epoch (authors: ten drawn in advance); no limit on hidden tokens per row (authors: a limit
    that must be raised to the row's length); learned positions (their variant A), not relative ones; exact GELU
    (authors: tanh approximation).
    """
    return replace(
        bert_base(),
        name="pmlm-base",
        data=TextData(length=128, packing="row", mask=replaced(Tokens(ratio=UniformCount()))),
    )


def pmlm_tiny() -> Recipe[TextBatch]:
    """Scaled down to two CPU cores: 800 steps of 32 rows of up to 64 tokens.

    Uses pre-norm layers and rotary positions.
    """
    return replace(
        bert_tiny(),
        name="pmlm-tiny",
        batch_size=32,
        data=TextData(length=64, packing="row", mask=replaced(Tokens(ratio=UniformCount()))),
        schedule=ScheduleConfig(base_lr=24e-3, warmup=0.1, steps=800),
    )
