"""Recipes of OneRef (Xiao et al., 2024): a phrase and its object, by masks and by whole images."""

from dataclasses import replace

from maskstream.pipelines.masks import Box, ByView, Padded, Random, Replace, Tokens, WholeWords
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import OneRefConfig


def _phrases(size: int, patch: int, length: int) -> ImageTextData:
    """Return OneRef's data: masked images and phrases, with boxes and segments."""
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
    """OneRef's mask referring modelling (Xiao et al., 2024) with BEiT-3 base at 384 pixels and 64 text tokens.

    75 % of the patches in a phrase's box, 35 % of the others and 40 % of the words are hidden; 8 ranks form a batch of
    256. `oneref-refer-base` is the fine-tuning.

    Differences from the authors' code: random initial weights (authors: BEiT-3's), so no stage with a frozen tower;
    hidden patches are predicted as normalised pixels (authors: BEiT v2 ids); words are hidden independently without
    relation scores (authors: a parser finds subject and object, which are hidden first); segments come from a linear
    layer on the products (authors: the phrase times transposed convolutions of the patches); no weight decay on biases,
    norms and tables; images are resized to a square centre crop (authors: padded); no image-phrase contrast and no
    augmentation.
    """
    return Recipe(
        name="oneref-base",
        batch_size=32,
        data=_phrases(size=384, patch=16, length=64),
        model=OneRefConfig(
            apart=True, plain=True, untied=True, smoothing=0.1, drop_worst=0.2, dropout=DropoutConfig(path=0.1)
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=1e-4),
        schedule=ScheduleConfig(base_lr=5e-5, warmup=0.05, epochs=100),
    )


def oneref_tiny() -> Recipe[ImageTextBatch]:
    """Scaled down to two CPU cores: 36 patches of 16 pixels, 12 tokens, width 64, 2,400 steps of 8 phrases.

    Each phrase comes with and without masks: a model that only sees masked images finds 1.4 % of the boxes of whole
    ones. The tower follows BEiT-3's paper.
    """
    data = _phrases(size=96, patch=16, length=12)
    return replace(
        oneref_base(),
        name="oneref-tiny",
        batch_size=8,
        data=replace(
            data,
            image_mask=Padded(mask=ByView(masks=(Box(inside=0.75, outside=0.35), Random(ratio=0.0)))),
            text_mask=Padded(mask=Replace(mask=ByView(masks=(WholeWords(ratio=0.4, each=True), Tokens(ratio=0.0))))),
            views=2,
        ),
        model=OneRefConfig(vocabulary=512, width=64, depth=4, heads=2),
        optimiser=OptimiserConfig(betas=(0.9, 0.98), weight_decay=0.01, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=96e-3, min_lr=96e-5, warmup=0.05, steps=2400),
    )


def _whole(recipe: Recipe[ImageTextBatch], name: str) -> Recipe[ImageTextBatch]:
    """Return a recipe of OneRef with unmasked images and phrases, and one view."""
    data = recipe.data
    assert isinstance(data, ImageTextData)
    return replace(recipe, name=name, data=replace(data, image_mask=None, text_mask=None, views=1))


def oneref_refer_base() -> Recipe[ImageTextBatch]:
    """OneRef's fine-tuning: box and segment from whole images and phrases (Xiao et al., 2024).

    `--initial RUN/model.safetensors` starts from a run of `oneref-base` with the same tokenizer, and the same
    differences apply.
    """
    recipe = _whole(oneref_base(), "oneref-refer-base")
    return replace(recipe, schedule=ScheduleConfig(base_lr=3e-5, warmup=0.05, epochs=20))


def oneref_refer_tiny() -> Recipe[ImageTextBatch]:
    """Scaled down to the size and length of `oneref-tiny`, with 16 phrases per step."""
    schedule = ScheduleConfig(base_lr=48e-3, min_lr=48e-5, warmup=0.05, steps=2400)
    return replace(_whole(oneref_tiny(), "oneref-refer-tiny"), batch_size=16, schedule=schedule)
