"""Streams of masked batches out of shards.

    from maskstream.pipelines import VideoClip, masks, video_loader

    loader = video_loader("data/shards/k400/train", clip=VideoClip(frames=16, stride=4, size=224),
                          mask=masks.MotionGuided(ratio=0.9), batch_size=32, seed=0)
    for batch in loader:            # one epoch; len(loader) batches
        batch.video, batch.mask.visible, batch.mask.target
    state = loader.state_dict()     # JSON-able; resumes at any number of ranks and workers

order -> read -> decode -> augment -> flow -> mask -> batch: docs/architecture.md follows one clip through the files.
"""

from ..shards.fbank import Fbank
from . import augment, flow, masks
from .audio.clip import AudioClip
from .audio.loader import AudioLoader, audio_loader
from .audio.log_mel import LogMel
from .audio.microphones import MicrophoneLine
from .audio.noisy import NoisyLoader, noisy_loader
from .audiovisual.loader import AudioVisualLoader, audiovisual_loader
from .audiovisual.spectrogram_noise import SpectrogramNoise
from .augment.sound import Mixup, RollGain, SpecAugment
from .batch import AudioBatch, AudioVisualBatch, Flow, MaskBatch, MeshBatch, NoisyBatch, PointsBatch, VideoBatch
from .diffusion import CosineNoise, LinearNoise
from .loader import Loader
from .masks import TokenGrid
from .mesh.loader import MeshLoader, mesh_loader
from .mesh.noise import MeshNoise
from .mix import mix
from .points.augment import PointAugment, PointStats
from .points.loader import PointsLoader, points_loader
from .points.read import PointSelection
from .points.tokens import GroupTokens, VoxelTokens
from .video.clip import VideoClip
from .video.loader import VideoLoader, video_loader

__all__ = [
    "AudioBatch",
    "AudioClip",
    "AudioLoader",
    "AudioVisualBatch",
    "AudioVisualLoader",
    "CosineNoise",
    "Fbank",
    "Flow",
    "GroupTokens",
    "LinearNoise",
    "Loader",
    "LogMel",
    "MaskBatch",
    "MeshBatch",
    "MeshLoader",
    "MeshNoise",
    "MicrophoneLine",
    "Mixup",
    "NoisyBatch",
    "NoisyLoader",
    "PointAugment",
    "PointSelection",
    "PointStats",
    "PointsBatch",
    "PointsLoader",
    "RollGain",
    "SpecAugment",
    "SpectrogramNoise",
    "TokenGrid",
    "VideoBatch",
    "VideoClip",
    "VideoLoader",
    "VoxelTokens",
    "audio_loader",
    "audiovisual_loader",
    "augment",
    "flow",
    "masks",
    "mesh_loader",
    "mix",
    "noisy_loader",
    "points_loader",
    "video_loader",
]
