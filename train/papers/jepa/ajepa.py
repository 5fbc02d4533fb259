"""A-JEPA (Fei et al., 2023): joint-embedding prediction for audio; its model is `Jepa` of model.py."""

from dataclasses import dataclass, replace

from maskstream.pipelines import AudioClip
from maskstream.pipelines.augment.sound import RollGain
from maskstream.pipelines.masks import Curriculum, Padded
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.train.core.model import Grids
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.media_tokens import SpectrogramTokens, TokenKind

from .model import JepaConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrogramJepaConfig(JepaConfig[AudioBatch]):
    """The sizes of a JEPA of patches of spectrograms."""

    def tokens(self, grids: Grids) -> TokenKind[AudioBatch]:
        """Return the patches on the grid "audio"."""
        return SpectrogramTokens(grids["audio"])


def ajepa_base() -> Recipe[AudioBatch]:
    """A-JEPA (Fei et al., 2023) with ViT-B/16 on 10.24 s of audio, split into 64 x 8 tokens of 16 frames and 16 of 128
    mel bands: I-JEPA with a mask curriculum, a predictor of 16 blocks of width 512, and a squared feature loss.

    24 epochs of AudioSet; 64 ranks of 8 form a batch of 512 at a learning rate of 2e-4.

    No code was published. Numbers come from two independent summaries of the paper, which agree; only one has the
    aspect ratios, context size, predictor width and gain, and neither states the batch size of the rate. The rest
    follows I-JEPA (momentum linear from 0.996 to 1, weight decay 0.04 to 0.4, channel-normalised targets, at least 11
    context tokens, initial weights) and Audio-MAE (3 warm-up epochs, 16 predictor heads).

    Differences from the summaries: a gain of 0.5 to 1.5 (summary: up to 6 dB) and a circular shift; blocks are
    stretched to the 64 x 8 grid; no regularised masking in fine-tuning; the harder context lacks whole rows and
    columns, as in other implementations.
    """
    return Recipe(
        name="ajepa-base",
        batch_size=8,
        data=AudioData(clip=AudioClip(seconds=10.24), mask=Padded(mask=Curriculum()), roll_gain=RollGain()),
        model=SpectrogramJepaConfig(predictor_width=512, predictor_depth=16, predictor_heads=16, distance="l2"),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, last_weight_decay=0.4),
        schedule=ScheduleConfig(base_lr=1e-4, min_lr=1e-7, warmup=3 / 24, epochs=24),
    )


def ajepa_tiny() -> Recipe[AudioBatch]:
    """Scaled down to two CPU cores: 64 tokens of 1.28 s, the `audiomae-tiny` encoder, 150 steps of 32 clips, at least 4
    context tokens. Initial weights are three times as large as I-JEPA's, which makes content small relative to
    position.
    """
    return replace(
        ajepa_base(),
        name="ajepa-tiny",
        batch_size=32,
        data=AudioData(
            clip=AudioClip(seconds=1.28, short="repeat"), mask=Padded(mask=Curriculum()), roll_gain=RollGain()
        ),
        model=SpectrogramJepaConfig(
            width=192,
            depth=4,
            heads=3,
            predictor_width=96,
            predictor_depth=2,
            predictor_heads=3,
            std=0.06,
            distance="l2",
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, last_weight_decay=0.4, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=2e-3, min_lr=2e-6, warmup=0.1, steps=150),
    )
