"""A small split and a loader of every modality, for the tests that hold for all of them; a new one adds a line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

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
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.image.loader import image_loader
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.pipelines.modalities.mesh.noise import MeshNoise
from maskstream.pipelines.modalities.points.augment import PointAugment
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.read import PointSelection
from maskstream.pipelines.modalities.points.tokens import VoxelTokens
from maskstream.pipelines.modalities.pose.data import PoseData
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.modalities.trajectory.data import TrajectoryData
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.source import Source
from maskstream.preprocess.encode.audio.encoder import encoded_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder, ImageTokenEncoder
from maskstream.preprocess.encode.points.encoder import PointEncoder
from maskstream.preprocess.encode.pose.encoder import PoseEncoder
from maskstream.preprocess.encode.text.encoder import TextEncoder, TokenEncoder
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.preprocess.source import Source as Raw
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.array import array_member
from maskstream.shards.members.member import Member
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member

from .. import flash_and_beep
from ..conftest import write_moving_texture
from .modalities.mesh.small_simulations import mesh_rows, simulation
from .modalities.mesh.small_simulations import sample as mesh_sample
from .small_walks import trajectory_samples

SHARD_SIZES = (5, 3, 7)
SAMPLES = sum(SHARD_SIZES)


def sample_rows(batch: Any) -> list[list[Any]]:
    """What a batch holds of each sample, as comparable values: every field, nested ones too."""
    rows: list[list[Any]] = [[] for _ in range(len(batch))]
    for f in fields(batch):
        value = getattr(batch, f.name)
        for i, row in enumerate(rows):
            if isinstance(value, torch.Tensor):
                row.append((f.name, tuple(value[i].shape), value[i].numpy().tobytes()))
            elif isinstance(value, list):
                row.append((f.name, value[i]))
        if hasattr(value, "__dataclass_fields__"):
            for row, inner in zip(rows, sample_rows(Sized(value, len(batch))), strict=True):
                row += inner
    return rows


class Sized:
    """A nested part of a batch with the batch's length."""

    def __init__(self, part: Any, length: int) -> None:
        self.__dataclass_fields__ = part.__dataclass_fields__
        self.__dict__.update({f.name: getattr(part, f.name) for f in fields(part)})
        self._length = length

    def __len__(self) -> int:
        return self._length


@dataclass(frozen=True, kw_only=True)
class Modality:
    """samples(folder) makes SAMPLES samples with raw files in `folder`; loader opens a split with the options that all
    loaders take; source is of a Split, with the same settings; component is the member that holds the
    data; rows are the comparable values of each sample of a batch; encoder is the one that made the samples, where a
    split says more of it than its name.
    """

    samples: Callable[[Path], list[Sample]]
    loader: Callable[..., Loader[Any]]
    component: str
    source: Callable[[Split], Source[Any, Any, Any, Any]]
    rows: Callable[[Any], list[list[Any]]] = sample_rows
    encoder: Callable[[], TokenEncoder | ImageTokenEncoder] | None = None


def write_split(modality: str, folder: Path, samples: Callable[[Path], list[Sample]] | None = None) -> Path:
    """A finished split of the modality's samples, or of those that `samples` makes, in shards of odd sizes."""
    raw, out = folder / "raw", folder / "split"
    raw.mkdir(parents=True)
    out.mkdir()
    left = iter((samples or MODALITIES[modality].samples)(raw))
    shards = [[next(left) for _ in range(size)] for size in SHARD_SIZES]
    records = [write_shard(out / f"t-{i:06d}.tar", shard) for i, shard in enumerate(shards)]
    finish_split(out, described(modality, out), records, [])
    return out


def described(modality: str, folder: Path) -> DatasetInfo:
    """What dataset.json says of a split in a folder, where the files that lie beside it are written."""
    info = DatasetInfo(dataset="t", split="train", modality=modality, profile="train", label_names=("a", "b"))
    if (make := MODALITIES[modality].encoder) is None:
        return info
    for name, data in make().attached.items():
        (folder / name).write_bytes(data)
    return replace(info, settings={"encoder": make().to_dict(defaults=True)})


def video_samples(raw: Path) -> list[Sample]:
    path = write_moving_texture(raw / "v.mp4", seed=3, frames=40)
    video = encode_video(path, PROFILES["train"])
    members = {"mp4": video_member(video.data, video.index), "json": json_member(video.meta)}
    return [Sample(key=f"s{i}", members=members, source=f"{i}") for i in range(SAMPLES)]


VIDEO: dict[str, Any] = {
    "clip": VideoClip(frames=2, stride=4, size=32),
    "mask": masks.MotionGuided(ratio=0.75),
    "augment": augment.RandomResizedCrop(flip=0.5),
    "patch": 8,
}


def open_video(split: Path, **options: Any) -> Loader[Any]:
    return video_loader(split, **VIDEO, **options)


def points_samples(raw: Path) -> list[Sample]:
    samples = []
    for i in range(SAMPLES):
        np.save(raw / f"{i}.npy", np.random.default_rng(i).normal(size=(80 + 5 * i, 4)))
        made = PointEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.npy"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}"))
    return samples


POINTS: dict[str, Any] = {
    "select": PointSelection(points=100, features=1),
    "augment": PointAugment(scale=(0.5, 2), rotate="any", jitter=0.01),
    "tokens": VoxelTokens(resolution=16, patch=4),
    "mask": masks.Random(ratio=0.75),
    "noise": LinearNoise(),
}


def open_points(split: Path, **options: Any) -> Loader[Any]:
    return points_loader(split, **POINTS, **options)


def image_samples(raw: Path) -> list[Sample]:
    samples = []
    for i in range(SAMPLES):
        smooth = np.random.default_rng(i).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        cv2.imwrite(str(raw / f"{i}.jpg"), cv2.resize(smooth, (90 + i, 70), interpolation=cv2.INTER_CUBIC))
        made = ImageEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.jpg"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", label=i % 2))
    return samples


IMAGE: dict[str, Any] = {"size": 32, "patch": 8, "mask": masks.Random(ratio=0.75), "colour": ColourJitter()}


def open_image(split: Path, **options: Any) -> Loader[Any]:
    return image_loader(split, **IMAGE, **options)


def audio_samples(raw: Path) -> list[Sample]:
    samples = []
    for i in range(SAMPLES):
        rng = np.random.default_rng(i)
        n, channels = 9000 + 700 * i, 1 + i % 2
        time = np.arange(n)[:, None] / 22050
        wave = np.sin(2 * np.pi * rng.uniform(200, 3000, channels) * time) * 9000 + rng.normal(0, 900, (n, channels))
        sound = Sound(samples=wave.astype(np.int32), bits=16, sample_rate=22050, codec="pcm_s16le", container="wav")
        made = encoded_sound(sound)
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", sums=made.sums))
    return samples


AUDIO: dict[str, Any] = {
    "clip": AudioClip(seconds=0.32),
    "mask": masks.Strips(time=0.5, freq=0.5),
    "roll_gain": RollGain(),
    "spec_augment": SpecAugment(time=5, freq=9),
    "mixup": Mixup(p=0.5),
}


def open_audio(split: Path, **options: Any) -> Loader[Any]:
    return audio_loader(split, **AUDIO, **options)


def audiovisual_samples(raw: Path) -> list[Sample]:
    samples = []
    for number in range(3):
        path = flash_and_beep.write(raw / f"{number}.mp4", (9 + 5 * number,), frames=40, late=3 * number)
        made = AudioVisualEncoder().encode(Raw(id=f"{number}", path=path))
        members = {**made.members, "json": json_member(made.meta)}
        samples += [
            Sample(key=f"s{i}", members=members, source=f"{i}", sums=made.sums) for i in range(number, SAMPLES, 3)
        ]
    return samples


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


def mesh_samples(raw: Path) -> list[Sample]:
    return [mesh_sample(f"s{i}", simulation(i, columns=5 + i % 3)) for i in range(SAMPLES)]


MESH: dict[str, Any] = {"mask": masks.MeshNodes(ratio=0.4, protect=(4,)), "noise": MeshNoise()}


def open_mesh(split: Path, **options: Any) -> Loader[Any]:
    return mesh_loader(split, **MESH, **options)


def random_motion(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A motion (frames, 17, 3) in metres, z upwards: a standing person whose joints sway and who drifts."""
    standing = np.array(
        [
            *([0, 0, 0.9], [0.13, 0, 0.9], [0.13, 0, 0.45], [0.13, 0, 0], [-0.13, 0, 0.9], [-0.13, 0, 0.45]),
            *([-0.13, 0, 0], [0, 0, 1.15], [0, 0, 1.4], [0, 0.05, 1.5], [0, 0, 1.65], [-0.2, 0, 1.4]),
            *([-0.2, 0, 1.1], [-0.2, 0.1, 0.9], [0.2, 0, 1.4], [0.2, 0, 1.1], [0.2, 0.1, 0.9]),
        ]
    )
    time = np.arange(frames)[:, None, None] / 50
    sway = 0.1 * np.sin(2 * np.pi * (time * rng.uniform(0.5, 2, (1, 17, 1)) + rng.uniform(size=(1, 17, 3))))
    return standing + sway + time * rng.normal(0, 0.3, (1, 1, 3)) * (1, 1, 0)


def pose_samples(raw: Path) -> list[Sample]:
    samples = []
    for i in range(SAMPLES):
        poses = random_motion(np.random.default_rng(i), 20 + 3 * i)
        np.savez(raw / f"{i}.npz", positions=poses, rate_hz=50)
        made = PoseEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.npz"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}"))
    return samples


POSE: dict[str, Any] = {"clip": PoseClip(frames=12), "mask": masks.Joints(frames=0.5, joints=5), "flip": 0.5}


def open_pose(split: Path, **options: Any) -> Loader[Any]:
    return pose_loader(split, **POSE, **options)


STORY = "the quick brown fox jumped over the lazy dog and ran home while unbelievably many old birds sang"


def text_of(i: int) -> str:
    """Text `i`, of 20 words and more."""
    words = np.random.default_rng(i).choice(STORY.split(), 20 + i)
    return f"{' '.join(words)}."


@cache
def text_encoder() -> TokenEncoder:
    """An encoder whose tokenizer is trained on all texts, with a lexicon of four words."""
    sources = [Raw(id=f"{i}", path=Path(), computed=True, meta={"text": text_of(i)}) for i in range(SAMPLES)]
    with tempfile.TemporaryDirectory() as folder:
        for name, line in {"noun": "fox n", "verb": "run v", "adj": "lazy a", "adv": "home r"}.items():
            (Path(folder) / f"index.{name}").write_text(f"{line} 1 0 1 1 01\n")
        return TextEncoder(tokenizer="train:bpe:300", classes=folder).prepared({"train": sources})


def text_samples(raw: Path) -> list[Sample]:
    samples = []
    for i in range(SAMPLES):
        (raw / f"{i}.txt").write_text(text_of(i))
        made = text_encoder().encode(Raw(id=f"{i}", path=raw / f"{i}.txt"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", label=i % 2))
    return samples


TEXT: dict[str, Any] = {
    "length": 24,
    "packing": "row",
    "mask": masks.Padded(mask=masks.Replace(mask=masks.ByClass(ratio=0.3))),
}


def open_text(split: Path, **options: Any) -> Loader[Any]:
    return text_loader(split, **TEXT, **options)


def text_rows(batch: Any) -> list[list[Any]]:
    """Those of the rows, and the tokens of the form without padding, which has no rows."""
    mask = batch.mask
    real = [mask.target[i, : mask.n_target[i]].tolist() for i in range(len(batch))]
    arrays = (batch.tokens, batch.documents, batch.words, batch.classes, batch.lengths, mask.masked, mask.tokens)
    places = batch.unpadded.index // batch.tokens.shape[1]
    unpadded = [batch.unpadded.tokens[places == i].tolist() for i in range(len(batch))]
    return [
        [batch.key[i], int(batch.label[i]), real[i], unpadded[i], *(one[i].tolist() for one in arrays)]
        for i in range(len(batch))
    ]


def image_text_source(i: int, path: Path) -> Raw:
    """A picture with a caption, one to three questions with their answers, and a phrase with its box."""
    words = text_of(i).split()
    questions = [f"is it {word}?" for word in words[: 1 + i % 3]]
    meta = {
        "caption": text_of(i),
        "question": questions,
        "answer": [f"{word} {n}" for n, word in enumerate(words[: 1 + i % 3])],
        "rationale": f"it says {words[0]}",
        "phrase": f"the {words[0]}",
        "box": [[10, 5 + i, 20, 30]],
    }
    return Raw(id=f"{i}", path=path, meta=meta)


@cache
def image_text_encoder() -> ImageTokenEncoder:
    """An encoder whose tokenizer is trained on all texts."""
    sources = [image_text_source(i, Path()) for i in range(SAMPLES)]
    return ImageTextEncoder(tokenizer="train:wordpiece:300").prepared({"train": sources})


def image_text_samples(raw: Path) -> list[Sample]:
    image_samples(raw)
    samples = []
    for i in range(SAMPLES):
        source = image_text_source(i, raw / f"{i}.jpg")
        made = image_text_encoder().encode(source)
        members = {**made.members, "json": json_member({**source.meta, **made.meta})}
        members["segments.npy"] = segment_member(made.meta["width"], made.meta["height"], *source.meta["box"][0])
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", label=i % 2))
    return samples


def segment_member(width: int, height: int, x: int, y: int, w: int, h: int) -> Member:
    """The segment of a phrase: its whole box."""
    shown = np.zeros((1, height, width), np.bool_)
    shown[:, y : y + h, x : x + w] = True
    return array_member(np.packbits(shown, axis=-1))


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


def image_text_rows(batch: Any) -> list[list[Any]]:
    """Those of the rows; targets of masks without the padding, which depends on the rest of the batch."""
    found = sample_rows(replace(batch, image_mask=None, text_mask=None))
    for i, row in enumerate(found):
        for mask in (batch.image_mask, batch.text_mask):
            row += [mask.masked[i].tolist(), mask.target[i, : mask.n_target[i]].tolist()]
        row.append(batch.text_mask.tokens[i].tolist())
    return found


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
    ),
    "video": Modality(
        samples=video_samples,
        loader=open_video,
        source=VideoData(**VIDEO).source,
        component="mp4",
    ),
}
