"""Small samples of media, as many as the shards of a split hold, and what a batch holds of each."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from maskstream.preprocess.encode.audio.encoder import encode_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.points.encoder import PointEncoder
from maskstream.preprocess.encode.pose.encoder import PoseEncoder
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.preprocess.source import Source as Raw
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member

from .. import flash_and_beep
from ..conftest import write_moving_texture
from .modalities.mesh.small_simulations import sample as mesh_sample
from .modalities.mesh.small_simulations import simulation

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


def video_samples(raw: Path) -> list[Sample]:
    path = write_moving_texture(raw / "v.mp4", seed=3, frames=40)
    video = encode_video(path, PROFILES["train"])
    members = {"mp4": video_member(video.data, video.index), "json": json_member(video.meta)}
    return [Sample(key=f"s{i}", members=members, source=f"{i}") for i in range(SAMPLES)]


def points_samples(raw: Path) -> list[Sample]:
    samples = []
    for i in range(SAMPLES):
        np.save(raw / f"{i}.npy", np.random.default_rng(i).normal(size=(80 + 5 * i, 4)))
        made = PointEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.npy"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}"))
    return samples


def image_samples(raw: Path) -> list[Sample]:
    samples = []
    for i in range(SAMPLES):
        smooth = np.random.default_rng(i).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        cv2.imwrite(str(raw / f"{i}.jpg"), cv2.resize(smooth, (90 + i, 70), interpolation=cv2.INTER_CUBIC))
        made = ImageEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.jpg"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", label=i % 2))
    return samples


def packed_image_samples(raw: Path) -> list[Sample]:
    """Pictures of many sizes: a row of `PACKED` holds one or two of them."""
    samples = []
    for i in range(SAMPLES):
        smooth = np.random.default_rng(i).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        size = (40 + 13 * (i % 4), 90 - 15 * (i % 3))
        cv2.imwrite(str(raw / f"{i}.jpg"), cv2.resize(smooth, size, interpolation=cv2.INTER_CUBIC))
        made = ImageEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.jpg"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", label=i % 2))
    return samples


def packed_rows(batch: Any) -> list[list[Any]]:
    """What a batch of packed rows holds of each sample, wherever it stands in the batch."""
    starts, visible, target = (one.tolist() for one in (batch.cu_seqlens, batch.mask.cu_visible, batch.mask.cu_target))
    row = np.repeat(np.arange(len(batch.cu_rows) - 1), np.diff(batch.cu_rows.numpy())).tolist()
    values = batch.tokens if batch.sounds is None else batch.sounds
    rows = []
    for i, key in enumerate(batch.key):
        own, seen, wanted = (slice(ends[i], ends[i + 1]) for ends in (starts, visible, target))
        arrays = (
            values[own],
            batch.place[own],
            batch.grid_thw[i],
            batch.label[i],
            batch.kind[i],
            batch.mask.masked[own],
            batch.mask.visible[seen] - starts[i],
            batch.mask.target[wanted] - starts[i],
            batch.mask.weight[wanted],
        )
        mates = [other for other, of in zip(batch.key, row, strict=True) if of == row[i]]
        fields = {name: values[i] for name, values in batch.fields.items()}
        rows.append([key, mates, str(fields), *((tuple(one.shape), one.numpy().tobytes()) for one in arrays)])
    return rows


def audio_samples(raw: Path) -> list[Sample]:
    samples = []
    for i in range(SAMPLES):
        rng = np.random.default_rng(i)
        n, channels = 9000 + 700 * i, 1 + i % 2
        time = np.arange(n)[:, None] / 22050
        wave = np.sin(2 * np.pi * rng.uniform(200, 3000, channels) * time) * 9000 + rng.normal(0, 900, (n, channels))
        sound = Sound(samples=wave.astype(np.int32), bits=16, sample_rate=22050, codec="pcm_s16le", container="wav")
        made = encode_sound(sound)
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", sums=made.sums))
    return samples


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


def mesh_samples(raw: Path) -> list[Sample]:
    return [mesh_sample(f"s{i}", simulation(i, columns=5 + i % 3)) for i in range(SAMPLES)]


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
