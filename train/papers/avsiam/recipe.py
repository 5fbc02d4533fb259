"""Recipes of AVSiam (Lin & Bertasius, 2024)."""

from dataclasses import replace

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import Augmentation, CenterCrop, MultiScaleCrop
from maskstream.pipelines.masks import ByView, FilledStrips, Mask, MultiRatio, Padded, Random
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.pipelines.modalities.audiovisual.rows import SpectrogramNoise
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe

from .model import SiameseConfig

RATIOS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""The ratios of AVSiam's masks for matching; each is used for an equal part of a batch."""


def avsiam_base() -> Recipe[AudioVisualBatch]:
    """AVSiam (Lin & Bertasius, 2024): ViT-B, one frame and 10.24 s of audio.

    25 epochs, learning rate halved after epochs 10, 15 and 20; 16 ranks of 4 form a batch of 64. Matching uses five
    mask ratios (strips for audio); reconstruction hides 0.75 at random.

    Differences from the authors' code: the five ratios are spread over the whole batch (authors: four of them over a
    rank's four samples, without 0.8); spectrograms get noise but no random time shift, which would misalign audio and
    video; both losses share one optimiser step (authors: two steps); normalised targets (authors: raw); cropped frames
    (authors: resized to a square); the frame is drawn from the whole video (authors: one of ten); audio tokens are
    ordered by time, then frequency (authors: the reverse); positions fit the grid (authors: interpolated from an image
    model); random initial weights (authors: ImageNet-21k ViT); AdamW (authors: Adam with L2); embeddings are not
    doubled (authors: doubled by a norm that does not normalise); mask strips follow this package's rule, with equal
    counts.
    """
    return Recipe(
        name="avsiam-base",
        batch_size=4,
        data=siamese_data(size=224, seconds=10.24, augment=MultiScaleCrop()),
        model=SiameseConfig(parts=len(RATIOS), joint_depth=2, own_sounds=True, summed=True),
        optimiser=OptimiserConfig(betas=(0.95, 0.999), weight_decay=5e-7),
        schedule=ScheduleConfig(
            base_lr=8e-4, warmup=0.05, epochs=25, shape="multistep", milestones=(10 / 25, 15 / 25, 20 / 25), factor=0.5
        ),
    )


def siamese_data(
    *, size: int, seconds: float, augment: Augmentation, audio_patch: tuple[int, int] = (16, 16)
) -> AudioVisualData:
    """Return the data of a frame and its audio in two views: the first is matched at several ratios, the second
    reconstructed.

    Args:
        size: Side of the frame in pixels.
        seconds: Length of the audio.
        augment: Crop of the frame.
        audio_patch: Size of an audio token in frames and mel bins.
    """

    def mask(matched: Mask) -> Mask:
        return Padded(mask=ByView(masks=(matched, Random(ratio=0.75))))

    return AudioVisualData(
        clip=VideoClip(frames=1, stride=1, size=size),
        tubelet=1,
        seconds=seconds,
        views=2,
        video_mask=mask(Random(ratio=MultiRatio(ratios=RATIOS, name="image"))),
        audio_mask=mask(FilledStrips(ratio=MultiRatio(ratios=RATIOS, name="audio"))),
        spectrogram_noise=SpectrogramNoise(),
        augment=augment,
        audio_patch=audio_patch,
    )


def avsiam_tiny() -> Recipe[AudioVisualBatch]:
    """Scaled down to two CPU cores: 49 tokens of a frame at 112 pixels, 64 tokens of 1.28 s, 2.3 M parameters, 800
    steps, without joint blocks and second encoder. `make demo MODALITY=audiovisual` trains it.

    An audio token covers all bins of 20 ms. The paper's 16 x 16 tokens predict each other too weakly in so few, short
    clips: on the sample set, linear regression from visible tokens of the same bins is 0.7 % better than the mean token
    of a position, but 27 % better with 20 ms tokens.
    """
    return replace(
        avsiam_base(),
        name="avsiam-tiny",
        batch_size=20,
        data=siamese_data(size=112, seconds=1.28, augment=CenterCrop(), audio_patch=(2, 128)),
        model=SiameseConfig(
            width=192, depth=4, heads=3, decoder_width=96, decoder_depth=2, decoder_heads=3, matching=0.1
        ),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=1.9e-2, min_lr=1.9e-4, warmup=0.1, steps=800),
    )
