"""A-JEPA (Fei et al., 2023): joint-embedding prediction of sounds; its model is `Jepa` of model.py."""

from dataclasses import dataclass, replace

from maskstream.pipelines import AudioClip
from maskstream.pipelines.augment.sound import RollGain
from maskstream.pipelines.masks import Curriculum, Padded
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.train.core.model import Grids
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.masked_autoencoder import TokenKind
from maskstream.train.nn.media_tokens import SpectrogramTokens

from .model import JepaConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrogramJepaConfig(JepaConfig[AudioBatch]):
    """The sizes of a JEPA of patches of spectrograms."""

    def tokens(self, grids: Grids) -> TokenKind[AudioBatch]:
        """Patches on the grid "audio"."""
        return SpectrogramTokens(grids["audio"])


def ajepa_base() -> Recipe[AudioBatch]:
    """A-JEPA (Fei et al., 2023) of ViT-B/16 on 10.24 s of sound, 64 x 8 tokens of 16 frames and 16 of 128 mel bands:
    I-JEPA whose masks follow a curriculum, by a predictor of 16 blocks 512 wide; the squared distance of features, 24
    epochs of AudioSet, a batch of 512 (64 ranks of 8) with a rate of 2e-4. No code was published. The numbers are those
    of two independent summaries of the paper, which agree; the aspects, the size of the context, the predictor's width
    and the gain stand in one of them alone, and neither says whether the rate is for that batch, as is taken here.

    Not in them, and so as in I-JEPA: the teacher's momentum along a line from 0.996 to 1, weight decay from 0.04 to
    0.4, targets normalised over channels, at least 11 tokens of context, initial weights; as in Audio-MAE: 3 epochs of
    warm-up, 16 heads of the predictor. Differs from them in: a gain of 0.5 to 1.5 and a circular shift, theirs is up to
    6 dB; blocks are stretched to the plane of 64 x 8 tokens, of which the summaries say nothing; no regularised masks
    in fine-tuning. That the context of the harder mask lacks whole rows and columns is how others' code reads the
    paper. Loss and gradients equal a second writing of I-JEPA's section 3 in float64, on these tokens and masks.
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
    """The same method for two CPU cores: 64 tokens of 1.28 s, the encoder of `audiomae-tiny`, 150 steps of 32 sounds.
    The context keeps 4 tokens or more. Initial weights are three times as large as I-JEPA's, with which what a token
    shows is little beside where it is.
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
