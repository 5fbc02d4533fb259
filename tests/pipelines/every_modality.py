"""A small split and a loader of every modality, for the tests that hold for all of them; a new one adds a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipelines import (
    AudioClip,
    PoseClip,
    SpectrogramNoise,
    VideoClip,
    audio_loader,
    audiovisual_loader,
    augment,
    image_text_loader,
    masks,
    mesh_loader,
    packed_loader,
    points_loader,
    pose_loader,
    text_loader,
    trajectory_loader,
    video_loader,
)
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.diffusion import LinearNoise
from maskstream.pipelines.augment.sound import Mixup, RollGain, SpecAugment
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.pipelines.modalities.image.data import ImageData, image_loader
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.mesh.data import MeshData, MeshNoise
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.read import PointAugment, PointSelection
from maskstream.pipelines.modalities.points.tokens import VoxelTokens
from maskstream.pipelines.modalities.pose.data import PoseData
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.modalities.trajectory.data import TrajectoryData
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.kept import OwnMemory
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.sampler import BatchSource
from maskstream.preprocess.encode.encoder import Encoder, list_attached_files
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard

from .modalities.mesh.small_simulations import mesh_rows
from .modalities.packed.small_kinds import WITH_ENERGY, video_sample
from .small_media import (
    SAMPLES,
    SHARD_SIZES,
    audio_samples,
    audiovisual_samples,
    image_samples,
    mesh_samples,
    packed_image_samples,
    packed_rows,
    points_samples,
    pose_samples,
    sample_rows,
    video_samples,
)
from .small_texts import image_text_encoder, image_text_rows, image_text_samples, text_encoder, text_rows, text_samples
from .small_walks import trajectory_samples


@dataclass(frozen=True, kw_only=True)
class Modality:
    """samples(folder) makes SAMPLES samples with raw files in `folder`; loader opens a split with the options that all
    loaders take; source is of a Split, with the same settings; component is the member that holds the
    data; rows are the comparable values of each sample of a batch; encoder is the one that made the samples, where a
    split says more of it than its name. shards: the modality of its split, where that is another one's. torch: whether
    worker processes have torch.
    """

    samples: Callable[[Path], list[Sample]]
    loader: Callable[..., Loader[Any]]
    component: str
    source: Callable[[Split], BatchSource[Any, Any, Any, Any]]
    rows: Callable[[Any], list[list[Any]]] = sample_rows
    encoder: Callable[[], Encoder] | None = None
    shards: str = ""
    torch: bool = True


class Littered(OwnMemory):
    """Memory of batches that others had before."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        array = super().empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xA5
        return array


def write_split(modality: str, folder: Path, samples: Callable[[Path], list[Sample]] | None = None) -> Path:
    """A finished split of the samples of LOADERS, or of those that `samples` makes, in shards of odd sizes."""
    raw, out = folder / "raw", folder / "split"
    raw.mkdir(parents=True)
    out.mkdir()
    left = iter((samples or LOADERS[modality].samples)(raw))
    shards = [[next(left) for _ in range(size)] for size in SHARD_SIZES]
    records = [write_shard(out / f"t-{i:06d}.tar", shard) for i, shard in enumerate(shards)]
    finish_split(out, described(modality, out), records, [])
    return out


def described(modality: str, folder: Path) -> DatasetInfo:
    """What dataset.json says of a split in a folder, where the files that lie beside it are written."""
    of, names = LOADERS[modality].shards or modality, ("a", "b")
    info = DatasetInfo(dataset="t", split="train", modality=of, profile="train", label_names=names)
    if (make := LOADERS[modality].encoder) is None:
        return info
    for name, data in list_attached_files(make()).items():
        (folder / name).write_bytes(data)
    return replace(info, settings={"encoder": make().to_dict(defaults=True)})


VIDEO: dict[str, Any] = {
    "clip": VideoClip(frames=2, stride=4, size=32),
    "mask": masks.MotionGuided(ratio=0.75),
    "augment": augment.RandomResizedCrop(flip=0.5),
    "patch": 8,
}


def open_video(split: Path, **options: Any) -> Loader[Any]:
    return video_loader(split, **VIDEO, **options)


POINTS: dict[str, Any] = {
    "select": PointSelection(points=100, features=1),
    "augment": PointAugment(scale=(0.5, 2), rotate="any", jitter=0.01),
    "tokens": VoxelTokens(resolution=16, patch=4),
    "mask": masks.Random(ratio=0.75),
    "noise": LinearNoise(),
}


def open_points(split: Path, **options: Any) -> Loader[Any]:
    return points_loader(split, **POINTS, **options)


IMAGE: dict[str, Any] = {"size": 32, "patch": 8, "mask": masks.Random(ratio=0.75), "colour": ColourJitter()}


def open_image(split: Path, **options: Any) -> Loader[Any]:
    return image_loader(split, **IMAGE, **options)


AUDIO: dict[str, Any] = {
    "clip": AudioClip(seconds=0.32),
    "mask": masks.Strips(time=0.5, freq=0.5),
    "roll_gain": RollGain(),
    "spec_augment": SpecAugment(time=5, freq=9),
    "mixup": Mixup(p=0.5),
}


PACKED: dict[str, Any] = {
    "native": augment.Native(patch=8, least=4, most=48, scale=(0.5, 1.0)),
    "mask": masks.Random(ratio=0.75),
    "row_tokens": 12,
    "row_targets": 40,
    "scaling": 0.2,
    "colour": ColourJitter(),
}


PACKED_CLIPS: dict[str, Any] = {
    "native": augment.Native(patch=8, tubelet=2, least=16, most=64, scale=(0.5, 1.0)),
    "mask": masks.ByEnergy(ratio=0.75, energy="stored"),
    "row_tokens": 16,
    "scaling": 0.2,
    "clip": VideoClip(seconds=(0.8, 1.6), fps=2.5),
}
PACKED_SOUNDS: dict[str, Any] = {
    "native": augment.Native(patch=16, least=16, most=40),
    "mask": masks.Random(ratio=0.75),
    "row_tokens": 10,
    "scaling": 0.2,
}


def open_packed_clips(split: Path, *, batch_size: int = 4, **options: Any) -> Loader[Any]:
    return packed_loader(split, rows=batch_size, **PACKED_CLIPS, **options)


def open_packed_sounds(split: Path, *, batch_size: int = 4, **options: Any) -> Loader[Any]:
    return packed_loader(split, rows=batch_size, **PACKED_SOUNDS, **options)


def open_packed(split: Path, *, batch_size: int = 4, **options: Any) -> Loader[Any]:
    return packed_loader(split, rows=batch_size, **PACKED, **options)


def open_audio(split: Path, **options: Any) -> Loader[Any]:
    return audio_loader(split, **AUDIO, **options)


AUDIOVISUAL: dict[str, Any] = {
    "clip": VideoClip(frames=4, stride=4, size=32),
    "seconds": 0.64,
    "video_mask": masks.Random(ratio=0.75),
    "audio_mask": masks.FilledStrips(ratio=0.6),
    "augment": augment.RandomResizedCrop(flip=0.5),
    "spec_augment": SpecAugment(time=5, freq=9),
    "spectrogram_noise": SpectrogramNoise(),
    "noise": LinearNoise(),
    "patch": 8,
}


def open_audiovisual(split: Path, **options: Any) -> Loader[Any]:
    return audiovisual_loader(split, **AUDIOVISUAL, **options)


MESH: dict[str, Any] = {"mask": masks.MeshNodes(ratio=0.4, protect=(4,)), "noise": MeshNoise()}


def open_mesh(split: Path, **options: Any) -> Loader[Any]:
    return mesh_loader(split, **MESH, **options)


POSE: dict[str, Any] = {"clip": PoseClip(frames=12), "mask": masks.Joints(frames=0.5, joints=5), "flip": 0.5}


def open_pose(split: Path, **options: Any) -> Loader[Any]:
    return pose_loader(split, **POSE, **options)


TEXT: dict[str, Any] = {
    "length": 24,
    "packing": "row",
    "mask": masks.Padded(mask=masks.Replace(mask=masks.ByClass(ratio=0.3))),
}


def open_text(split: Path, **options: Any) -> Loader[Any]:
    return text_loader(split, **TEXT, **options)


IMAGE_TEXT: dict[str, Any] = {
    "size": 32,
    "patch": 8,
    "text": ("phrase", "question"),
    "length": 24,
    "target": ("answer",),
    "target_length": 8,
    "image_mask": masks.Padded(mask=masks.Box(margin=0)),
    "text_mask": masks.Padded(mask=masks.Replace(mask=masks.WholeWords(ratio=0.3))),
    "pairs": True,
    "segments": True,
    "augment": augment.RandomResizedCrop(flip=0.5),
}


def open_image_text(split: Path, **options: Any) -> Loader[Any]:
    return image_text_loader(split, **IMAGE_TEXT, **options)


TRAJECTORY: dict[str, Any] = {
    "clip": VideoClip(frames=2, stride=4, size=32),
    "ahead_s": 0.5,
    "mask": masks.Tube(ratio=0.75),
    "augment": augment.RandomResizedCrop(flip=0.5),
    "patch": 8,
}


def open_trajectory(split: Path, **options: Any) -> Loader[Any]:
    return trajectory_loader(split, **TRAJECTORY, **options)


MODALITIES: dict[str, Modality] = {
    "audio": Modality(
        samples=audio_samples,
        loader=open_audio,
        source=AudioData(**AUDIO).source,
        component="flac",
    ),
    "audiovisual": Modality(
        samples=audiovisual_samples,
        loader=open_audiovisual,
        source=AudioVisualData(**AUDIOVISUAL).source,
        component="flac",
    ),
    "image": Modality(
        samples=image_samples,
        loader=open_image,
        source=ImageData(**IMAGE).source,
        component="jpg",
        torch=False,
    ),
    "image-text": Modality(
        samples=image_text_samples,
        loader=open_image_text,
        source=ImageTextData(**IMAGE_TEXT).source,
        component="texts.npy",
        rows=image_text_rows,
        encoder=image_text_encoder,
    ),
    "mesh": Modality(
        samples=mesh_samples,
        loader=open_mesh,
        source=MeshData(**MESH).source,
        component="mesh.npz",
        rows=mesh_rows,
    ),
    "points": Modality(
        samples=points_samples,
        loader=open_points,
        source=PointsData(**POINTS).source,
        component="points.npy",
    ),
    "pose": Modality(
        samples=pose_samples,
        loader=open_pose,
        source=PoseData(**POSE).source,
        component="poses.npy",
        torch=False,
    ),
    "text": Modality(
        samples=text_samples,
        loader=open_text,
        source=TextData(**TEXT).source,
        component="tokens.npy",
        rows=text_rows,
        encoder=text_encoder,
    ),
    "trajectory": Modality(
        samples=lambda raw: trajectory_samples(raw, SAMPLES),
        loader=open_trajectory,
        source=TrajectoryData(**TRAJECTORY).source,
        component="depth.mp4",
        torch=False,
    ),
    "video": Modality(
        samples=video_samples,
        loader=open_video,
        source=VideoData(**VIDEO).source,
        component="mp4",
        torch=False,
    ),
}

LOADERS: dict[str, Modality] = {
    **MODALITIES,
    "packed": Modality(
        samples=packed_image_samples,
        loader=open_packed,
        source=PackedData(**PACKED).source,
        component="jpg",
        rows=packed_rows,
        shards="image",
    ),
    "packed-video": Modality(
        samples=lambda raw: [video_sample(raw, i) for i in range(SAMPLES)],
        loader=open_packed_clips,
        source=PackedData(**PACKED_CLIPS).source,
        component="mp4",
        encoder=lambda: WITH_ENERGY,
        rows=packed_rows,
        shards="video",
    ),
    "packed-audio": Modality(
        samples=audio_samples,
        loader=open_packed_sounds,
        source=PackedData(**PACKED_SOUNDS).source,
        component="flac",
        rows=packed_rows,
        shards="audio",
    ),
}
"""What keeps the contract of loaders: those of the modalities, and those that make other batches of the same splits."""
