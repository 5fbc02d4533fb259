"""Stream masked batches from shards.

    from maskstream.pipelines import VideoClip, masks, video_loader

    loader = video_loader("data/shards/k400/train", clip=VideoClip(frames=16, stride=4, size=224),
                          mask=masks.MotionGuided(ratio=0.9), batch_size=32, seed=0)
    for batch in loader:            # one epoch; len(loader) batches
        batch.video, batch.mask.visible, batch.mask.target
    state = loader.state_dict()     # JSON-able; resumes with any number of ranks and workers

order -> read -> decode -> augment -> flow -> mask -> batch: docs/architecture.md follows one clip through the files.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskstream.shards.media.fbank import Fbank

    from . import augment, flow, masks
    from .augment.diffusion import CosineNoise, LinearNoise
    from .augment.sound import Mixup, RollGain, SpecAugment
    from .flow.base import Flow
    from .masks import MaskBatch, TokenGrid
    from .modalities.audio.batch import AudioBatch, NoisyBatch
    from .modalities.audio.data import AudioData, NoisyData, audio_loader, noisy_loader
    from .modalities.audio.reader import AudioClip
    from .modalities.audio.rows import MicrophoneLine
    from .modalities.audio.spectrogram import Librosa, LogMel
    from .modalities.audiovisual.batch import AudioVisualBatch
    from .modalities.audiovisual.data import AudioVisualData, audiovisual_loader
    from .modalities.audiovisual.rows import SpectrogramNoise
    from .modalities.fields import Field
    from .modalities.image.batch import ImageBatch
    from .modalities.image.data import ImageData, image_loader
    from .modalities.image_text.batch import ImageTextBatch
    from .modalities.image_text.data import ImageTextData, image_text_loader
    from .modalities.mesh.batch import MeshBatch
    from .modalities.mesh.data import MeshData, MeshNoise, mesh_loader
    from .modalities.mixture import DataMixture, MixtureSource
    from .modalities.packed.batch import PackedBatch, PackedMask
    from .modalities.packed.data import PackedData, packed_loader
    from .modalities.points.batch import PointsBatch
    from .modalities.points.data import PointsData, points_loader
    from .modalities.points.read import PointAugment, PointSelection, PointStats
    from .modalities.points.tokens import GroupTokens, VoxelTokens
    from .modalities.pose.batch import PoseBatch
    from .modalities.pose.data import Cameras, PoseClip, PoseData, pose_loader
    from .modalities.split import Split
    from .modalities.text.batch import TextBatch
    from .modalities.text.data import TextData, text_loader
    from .modalities.text.token_scores import TokenScores
    from .modalities.trajectory.batch import TrajectoryBatch
    from .modalities.trajectory.data import TrajectoryData, trajectory_loader
    from .modalities.video.batch import VideoBatch
    from .modalities.video.clip import VideoClip
    from .modalities.video.clip_decoder import ClipDecoder
    from .modalities.video.data import VideoData, video_loader
    from .stream.loader import Loader
    from .stream.mix import mix, mix_rows
    from .stream.weights import BySize
else:
    from maskstream.shards.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            "augment.diffusion": "CosineNoise LinearNoise",
            "augment.sound": "Mixup RollGain SpecAugment",
            "flow.base": "Flow",
            "masks": "MaskBatch TokenGrid",
            "modalities.audio.batch": "AudioBatch NoisyBatch",
            "modalities.audio.data": "AudioData NoisyData audio_loader noisy_loader",
            "modalities.audio.reader": "AudioClip",
            "modalities.audio.rows": "MicrophoneLine",
            "modalities.audio.spectrogram": "Fbank Librosa LogMel",
            "modalities.audiovisual.batch": "AudioVisualBatch",
            "modalities.audiovisual.data": "AudioVisualData audiovisual_loader",
            "modalities.audiovisual.rows": "SpectrogramNoise",
            "modalities.fields": "Field",
            "modalities.image.batch": "ImageBatch",
            "modalities.image.data": "ImageData image_loader",
            "modalities.image_text.batch": "ImageTextBatch",
            "modalities.image_text.data": "ImageTextData image_text_loader",
            "modalities.mesh.batch": "MeshBatch",
            "modalities.mesh.data": "MeshData MeshNoise mesh_loader",
            "modalities.mixture": "DataMixture MixtureSource",
            "modalities.packed.batch": "PackedBatch PackedMask",
            "modalities.packed.data": "PackedData packed_loader",
            "modalities.points.batch": "PointsBatch",
            "modalities.points.data": "PointsData points_loader",
            "modalities.points.read": "PointAugment PointSelection PointStats",
            "modalities.points.tokens": "GroupTokens VoxelTokens",
            "modalities.pose.batch": "PoseBatch",
            "modalities.pose.data": "Cameras PoseClip PoseData pose_loader",
            "modalities.split": "Split",
            "modalities.text.batch": "TextBatch",
            "modalities.text.data": "TextData text_loader",
            "modalities.text.token_scores": "TokenScores",
            "modalities.trajectory.batch": "TrajectoryBatch",
            "modalities.trajectory.data": "TrajectoryData trajectory_loader",
            "modalities.video.batch": "VideoBatch",
            "modalities.video.clip": "VideoClip",
            "modalities.video.clip_decoder": "ClipDecoder",
            "modalities.video.data": "VideoData video_loader",
            "stream.loader": "Loader",
            "stream.mix": "mix mix_rows",
            "stream.weights": "BySize",
        },
        modules="augment flow masks",
    )

__all__ = [
    "AudioBatch",
    "AudioClip",
    "AudioData",
    "AudioVisualBatch",
    "AudioVisualData",
    "BySize",
    "Cameras",
    "ClipDecoder",
    "CosineNoise",
    "DataMixture",
    "Fbank",
    "Field",
    "Flow",
    "GroupTokens",
    "ImageBatch",
    "ImageData",
    "ImageTextBatch",
    "ImageTextData",
    "Librosa",
    "LinearNoise",
    "Loader",
    "LogMel",
    "MaskBatch",
    "MeshBatch",
    "MeshData",
    "MeshNoise",
    "MicrophoneLine",
    "MixtureSource",
    "Mixup",
    "NoisyBatch",
    "NoisyData",
    "PackedBatch",
    "PackedData",
    "PackedMask",
    "PointAugment",
    "PointSelection",
    "PointStats",
    "PointsBatch",
    "PointsData",
    "PoseBatch",
    "PoseClip",
    "PoseData",
    "RollGain",
    "SpecAugment",
    "SpectrogramNoise",
    "Split",
    "TextBatch",
    "TextData",
    "TokenGrid",
    "TokenScores",
    "TrajectoryBatch",
    "TrajectoryData",
    "VideoBatch",
    "VideoClip",
    "VideoData",
    "VoxelTokens",
    "audio_loader",
    "audiovisual_loader",
    "augment",
    "flow",
    "image_loader",
    "image_text_loader",
    "masks",
    "mesh_loader",
    "mix",
    "mix_rows",
    "noisy_loader",
    "packed_loader",
    "points_loader",
    "pose_loader",
    "text_loader",
    "trajectory_loader",
    "video_loader",
]
