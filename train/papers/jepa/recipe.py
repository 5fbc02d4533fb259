"""Recipes of joint-embedding prediction: I-JEPA, A-JEPA, V-JEPA, V-JEPA 2 and 2.1, SALT and LeJEPA."""

from dataclasses import replace

from maskstream.pipelines import AudioClip, VideoClip
from maskstream.pipelines.augment import RandomResizedCrop, SharedCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.sound import RollGain
from maskstream.pipelines.masks import ByView, Curriculum, Linear, MultiBlock, Padded, Random, TargetBlocks, Tube
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.masked_autoencoder import VideoAutoencoderConfig

from .clips import VideoJepaConfig
from .dense import DenseJepaConfig
from .lejepa import ClipLeJepaConfig, LeJepaConfig
from .model import ImageJepaConfig, SpectrogramJepaConfig
from .salt import SaltConfig


def ijepa_base() -> Recipe[ImageBatch]:
    """I-JEPA (Assran et al., 2023, section 3 and appendix A.1) of ViT-B/16: four target blocks, each predicted by
    itself from the context, by a predictor of 6 blocks 384 wide; the teacher's momentum rises along a line from 0.996
    to 1, weight decay from 0.04 to 0.4; 600 epochs with 15 of warm-up, 64 ranks make a batch of 2048.

    Differs from the authors' code in: contexts are padded to the longest of a batch, theirs are cut to the shortest;
    blocks may touch the last row and column, theirs never do; the learning rate of warm-up begins at 0, theirs at a
    fifth of the peak, and falls to its end at the last step, theirs over a plan 1.25 times as long in the paper's
    longest runs; no bias for key, which changes no softmax; the mask token does not decay, theirs does; bf16 where the
    device gains by it, theirs is bf16 with loss scaling. The paper says that the loss is the squared distance, their
    code has smooth L1, and so has this. Encoders equal transformers' IJepa in float64.
    """
    return Recipe(
        name="ijepa-base",
        batch_size=32,
        data=ImageData(
            size=224, patch=16, mask=Padded(mask=TargetBlocks()), augment=RandomResizedCrop(scale=(0.3, 1.0))
        ),
        model=ImageJepaConfig(),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, last_weight_decay=0.4),
        schedule=ScheduleConfig(base_lr=1.25e-4, min_lr=1.25e-7, warmup=15 / 600, epochs=600),
    )


def ijepa_tiny() -> Recipe[ImageBatch]:
    """The same method for two CPU cores: 64 patches of 4 pixels, an encoder of 0.6 M parameters, 500 steps of 32
    pictures.
    """
    return replace(
        ijepa_base(),
        name="ijepa-tiny",
        batch_size=32,
        data=ImageData(
            size=32, patch=4, mask=Padded(mask=TargetBlocks()), augment=RandomResizedCrop(scale=(0.3, 1.0), flip=0.5)
        ),
        model=ImageJepaConfig(
            width=128, depth=3, heads=4, predictor_width=64, predictor_depth=2, predictor_heads=4, positions="grid"
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, last_weight_decay=0.4, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=8e-3, min_lr=8e-6, warmup=0.1, steps=500),
    )


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


VIDEOMAE_BASE = VideoAutoencoderConfig(width=768, heads=12, decoder_width=384, decoder_heads=6)
"""The sizes of `videomae-base`."""
MASKS = Padded(mask=ByView(masks=(MultiBlock(coupled=True), MultiBlock(blocks=2, scale=(0.7, 0.7), coupled=True))))
"""V-JEPA's two masks of a clip."""


def vjepa_large() -> Recipe[VideoBatch]:
    """V-JEPA (Bardes et al., 2024, section 3 and appendix) of ViT-L/16: 16 frames, every fourth, at 224 pixels, masked
    twice; the absolute distance of predicted features, a predictor of 12 blocks 384 wide, which reads position vectors
    as the encoder does; the teacher's momentum rises along a line from 0.998 to 1, weight decay from 0.04 to 0.4;
    90,000 steps with 12,000 of warm-up, 128 ranks make a batch of 3072. Numbers are those of the authors' repository.

    Differs from the authors' code in: visible tokens and targets are padded to the longest of a batch, theirs are cut
    to the shortest; a clip's two rows count alike, theirs the two masks of a batch; the learning rate of warm-up begins
    at 0, theirs at a third of the peak; rate, decay and momentum reach their ends at the last step, theirs over a plan
    1.25 times as long; the gradient is clipped as a whole and from the first step, theirs that of each part and after
    warm-up; no bias for key, which changes no softmax; one split of videos, theirs are three; mask tokens do not decay,
    theirs do; bf16 where the device gains by it, theirs is bf16 with loss scaling.
    """
    return replace(
        vjepa2_large(),
        name="vjepa-large",
        data=VideoData(
            clip=VideoClip(frames=16, stride=4, size=224),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.3, 1.0), ratio=(0.75, 1.35), flip=0.5)),
            views=2,
        ),
        model=VideoJepaConfig(
            width=1024,
            depth=24,
            heads=16,
            predictor_depth=12,
            predictor_heads=16,
            momentum=Linear(start=0.998, end=1.0),
            distance="l1",
            masks=2,
            places="added",
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, last_weight_decay=0.4, max_grad_norm=10.0),
        schedule=ScheduleConfig(base_lr=6.25e-4 / 12, min_lr=1e-6 / 12, warmup=40 / 300, steps=90_000),
    )


def vjepa2_large() -> Recipe[VideoBatch]:
    """V-JEPA 2 (Assran et al., 2025, section 2) of ViT-L/16: 16 frames, 4 a second, at 256 pixels, masked twice; the
    absolute distance of predicted features, a predictor of 12 blocks 384 wide, a teacher with a momentum of 0.99925
    throughout; the primary phase of 240,000 steps with 12,000 of warm-up at one rate, 128 ranks make a batch of 3072.

    Differs from the authors' code in: visible tokens and targets are padded to the longest of a batch, theirs are cut
    to the shortest; a clip's two rows count alike, theirs the two masks of a batch; the learning rate of warm-up begins
    at 0, theirs at a fifth of the peak; no second phase of longer clips at more pixels, which data.over_run makes; one
    split of videos, theirs is a weighted mixture of three with pictures; mask tokens do not decay, theirs do; bf16
    where the device gains by it, theirs is bf16 with loss scaling. Encoder and predictor equal transformers' VJEPA2 in
    float64, with its frequencies.
    """
    return Recipe(
        name="vjepa2-large",
        batch_size=24,
        data=VideoData(
            clip=VideoClip(frames=16, fps=4.0, size=256),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.3, 1.0), flip=0.5)),
            views=2,
        ),
        model=VideoJepaConfig(
            width=1024,
            depth=24,
            heads=16,
            predictor_depth=12,
            momentum=Linear(start=0.99925, end=0.99925),
            distance="l1",
            masks=2,
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04),
        schedule=ScheduleConfig(base_lr=4.375e-5, min_lr=0.0, warmup=0.05, steps=240_000, shape="constant"),
    )


def vjepa2_tiny() -> Recipe[VideoBatch]:
    """The same method for two CPU cores: 256 tokens of 8 frames at 64 pixels, an encoder of 0.6 M parameters."""
    return replace(
        vjepa2_large(),
        name="vjepa2-tiny",
        batch_size=8,
        data=VideoData(
            clip=VideoClip(frames=8, stride=2, size=64),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.6, 1.0), flip=0.5)),
            views=2,
            patch=8,
        ),
        model=VideoJepaConfig(
            width=120,
            depth=3,
            heads=4,
            predictor_width=60,
            predictor_depth=2,
            predictor_heads=2,
            momentum=Linear(start=0.99, end=0.99),
            distance="l1",
            masks=2,
        ),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.04, max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=0.0, warmup=0.1, steps=400, shape="constant"),
    )


def vjepa21_large() -> Recipe[VideoBatch]:
    """V-JEPA 2.1 (Mur-Labadia et al., 2026, section 3) of ViT-L/16: V-JEPA 2 that predicts the features of four blocks
    of the encoder, those of visible tokens too, by a predictor of 24 blocks 384 wide; the loss of visible tokens is
    divided by the root of their distance from the nearest target, and its factor rises from 0 to 0.5 between steps
    15,000 and 30,000; 300,000 steps with 12,000 of warm-up at one rate, 128 ranks make a batch of 3072. Numbers are
    those of the configuration in the authors' repository.

    Differs from the authors' code in: no pictures beside clips, so none of their tokens and no vector that says which
    of both a token is of; rows and columns are not scaled to a grid of 16, which changes nothing at 256 pixels; what
    else `vjepa2-large` says. Encoder, predictor and loss equal the authors' code in float64, with the same weights and
    masks.
    """
    return replace(
        vjepa2_large(),
        name="vjepa21-large",
        data=VideoData(
            clip=VideoClip(frames=16, fps=4.0, size=256),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.3, 1.0), ratio=(0.75, 1.35), flip=0.5)),
            views=2,
        ),
        model=DenseJepaConfig(
            width=1024,
            depth=24,
            heads=16,
            predictor_depth=24,
            momentum=Linear(start=0.99925, end=0.99925),
            distance="l1",
            masks=2,
        ),
        schedule=ScheduleConfig(base_lr=5e-5, min_lr=0.0, warmup=12 / 300, steps=300_000, shape="constant"),
    )


def vjepa21_tiny() -> Recipe[VideoBatch]:
    """The same method for two CPU cores: 256 tokens of 8 frames at 64 pixels, the encoder of `videomae-tiny`, features
    of two of its four blocks, 150 steps of 8 clips.
    """
    return replace(
        vjepa2_tiny(),
        name="vjepa21-tiny",
        model=DenseJepaConfig(
            width=128,
            depth=4,
            heads=4,
            predictor_width=64,
            predictor_depth=2,
            predictor_heads=4,
            momentum=Linear(start=0.99, end=0.99),
            distance="l1",
            masks=2,
            levels=2,
        ),
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=0.0, warmup=0.1, steps=150, shape="constant"),
    )


def lejepa_base() -> Recipe[ImageBatch]:
    """LeJEPA (Balestriero and LeCun, 2025) of ViT-B/16: four views of a picture, a projector of 2048, 2048 and 128
    channels, SIGReg along 1024 directions with a share of 0.02; drop path 0.1, one rate of 5e-4 that falls to a
    thousandth of it, 100 epochs with one of warm-up, 4 ranks make a batch of 256. Numbers are those of the authors'
    repository, its README and its small example.

    Differs from the authors' code in: all views have 224 pixels and are cropped alike, as in their small example, where
    their larger runs take two views of 224 and six of 98 pixels; no grey pictures, blur and solarisation; the projector
    normalises over the batch of all ranks, and keeps no running mean; warm-up begins at 0, theirs at a hundredth of the
    peak; bf16 where the device gains by it, theirs is bf16 with loss scaling; no probe that trains beside it, see
    `--probe`.
    """
    return Recipe(
        name="lejepa-base",
        batch_size=64,
        data=ImageData(
            size=224,
            patch=16,
            augment=RandomResizedCrop(scale=(0.08, 1.0), flip=0.5),
            colour=ColourJitter(hue=0.1, saturation=0.2, share=0.8),
            views=4,
        ),
        model=LeJepaConfig(dropout=DropoutConfig(path=0.1)),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05),
        schedule=ScheduleConfig(base_lr=5e-4, min_lr=5e-7, warmup=1 / 100, epochs=100),
    )


def lejepa_tiny() -> Recipe[ImageBatch]:
    """The same method for two CPU cores: 64 patches of 4 pixels, an encoder of 0.6 M parameters, 300 steps of 32
    pictures. Views are random patches, 25 of the 64 of a crop, which the paper does not have. SIGReg, whose statistic
    grows with the batch, has a share of 0.15.
    """
    return replace(
        lejepa_base(),
        name="lejepa-tiny",
        batch_size=32,
        data=ImageData(size=32, patch=4, mask=Random(ratio=0.6), augment=RandomResizedCrop(scale=(0.6, 1.0)), views=4),
        model=LeJepaConfig(
            width=128, depth=3, heads=4, positions="grid", hidden=256, embedding=32, slices=256, share=0.15
        ),
        schedule=ScheduleConfig(base_lr=8e-3, min_lr=8e-6, warmup=0.1, steps=300),
    )


def videolejepa_tiny() -> Recipe[VideoBatch]:
    """LeJEPA of clips, which its paper does not have: four views of the same 8 frames of 8 clips, each of another crop
    and other colours, of which tubes leave 64 of 256 tokens, and the encoder of `videomae-tiny`.
    """
    return Recipe(
        name="videolejepa-tiny",
        batch_size=8,
        data=VideoData(
            clip=VideoClip(frames=8, stride=4, size=64),
            mask=Tube(ratio=0.75),
            augment=RandomResizedCrop(scale=(0.3, 1.0), flip=0.5),
            colour=ColourJitter(saturation=0.8, hue=0.5),
            views=4,
            patch=8,
        ),
        model=ClipLeJepaConfig(width=128, depth=4, heads=4, hidden=256, embedding=32, slices=256, share=0.1),
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05),
        schedule=ScheduleConfig(base_lr=16e-3, min_lr=16e-6, warmup=0.1, steps=600),
    )


def salt_base() -> Recipe[VideoBatch]:
    """SALT (Li et al., 2025) of ViT-B/16, which predicts what a frozen `videomae-base` makes of V-JEPA's hidden blocks:
    16 frames at 224 pixels, masked twice, the absolute distance of features, a predictor of 12 blocks 384 wide. Set
    model.teacher to the teacher's run. Rates, weight decay, steps and batch are those of `vjepa2-large`.

    Differs from the paper in: the teacher is trained with tubes at 0.9 by `videomae-base`, theirs with V-JEPA's blocks;
    clips are frames 4 apart, as the teacher's; targets are normalised over channels as V-JEPA's are; rates, decay and
    the length of the run are V-JEPA 2's; what else `vjepa2-large` says. Nothing of the authors' code was compared.
    """
    return replace(
        vjepa2_large(),
        name="salt-base",
        data=VideoData(
            clip=VideoClip(frames=16, stride=4, size=224),
            mask=MASKS,
            augment=SharedCrop(crop=RandomResizedCrop(scale=(0.3, 1.0), flip=0.5)),
            views=2,
        ),
        model=SaltConfig(predictor_depth=12, distance="l1", masks=2, autoencoder=VIDEOMAE_BASE),
    )


def salt_tiny() -> Recipe[VideoBatch]:
    """The same method for two CPU cores: 256 tokens of 8 frames at 64 pixels, an encoder of 0.6 M parameters, 100 steps
    of 8 clips, and a teacher of `videomae-tiny`: set model.teacher to its run.
    """
    return replace(
        vjepa2_tiny(),
        name="salt-tiny",
        schedule=ScheduleConfig(base_lr=3.2e-2, min_lr=3.2e-4, warmup=0.1, steps=100),
        model=SaltConfig(
            width=120,
            depth=3,
            heads=4,
            predictor_width=60,
            predictor_depth=2,
            predictor_heads=2,
            distance="l1",
            masks=2,
            autoencoder=VideoAutoencoderConfig(
                width=128,
                depth=4,
                heads=4,
                decoder_width=128,
                decoder_depth=2,
                decoder_heads=4,
                target="pixels",
                positions="grid",
            ),
        ),
    )
