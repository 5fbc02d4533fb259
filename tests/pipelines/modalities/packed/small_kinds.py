"""Small splits of clips and of sounds of many sizes, for the tests of packed rows."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from maskstream.preprocess.encode.audio.encoder import encode_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.preprocess.source import Source as Raw
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member

from ....videos import write_frames

RATES = (10, 25, 30)
WITH_ENERGY = VideoEncoder(video=replace(PROFILES["train"], energy=True))
"""What encodes the clips."""


def video_sample(raw: Path, i: int) -> Sample:
    """A moving picture of other sides, length and rate for each i, from 0.4 seconds on; with energy."""
    rng = np.random.default_rng(i)
    width, height = (2 * int(side) for side in rng.integers(20, 60, 2))
    rate = RATES[i % 3]
    path, n = raw / f"{i}.mp4", max(int(rate * (0.4 + 0.25 * (i % 11))), 4)
    whole = cv2.resize(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8), (2 * width, 2 * height))
    frames = (np.roll(whole, (k, 2 * k), (0, 1))[:height, :width] for k in range(n))
    write_frames(path, frames, rate=rate, options={"preset": "ultrafast", "qp": "18"})
    video = encode_video(path, WITH_ENERGY.video)
    members = {"mp4": video_member(video.data, video.index), "json": json_member(video.meta)}
    return Sample(key=f"v{i}", members=members, source=f"{i}", label=i % 2)


def picture_sample(raw: Path, i: int) -> Sample:
    """A smooth picture of other sides for each i."""
    rng = np.random.default_rng(i)
    smooth = cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), tuple(rng.integers(70, 200, 2).tolist()))
    cv2.imwrite(str(raw / f"{i}.png"), smooth)
    made = ImageEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.png"))
    return Sample(key=f"p{i}", members={**made.members, "json": json_member(made.meta)}, source=f"{i}", label=i % 2)


def sound_sample(i: int) -> Sample:
    """A sound of 16 kHz, from 0.1 seconds on, of another length for each i."""
    rng = np.random.default_rng(i)
    n = 1600 + 1777 * (i % 17)
    wave = np.sin(np.arange(n) * rng.uniform(0.05, 0.9)) * 9000 + rng.normal(0, 900, n)
    sound = Sound(
        samples=wave.astype(np.int32)[:, None], bits=16, sample_rate=16000, codec="pcm_s16le", container="wav"
    )
    made = encode_sound(sound)
    members = {**made.members, "json": json_member(made.meta)}
    return Sample(key=f"a{i}", members=members, source=f"{i}", label=i % 2, sums=made.sums)


def written(folder: Path, modality: str, samples: list[Sample], per_shard: int = 10) -> Path:
    """A finished split of these samples."""
    records = [
        write_shard(folder / f"t-{first:06d}.tar", samples[first : first + per_shard])
        for first in range(0, len(samples), per_shard)
    ]
    info = DatasetInfo(
        dataset="t",
        split="train",
        modality=modality,
        profile="train",
        label_names=("a", "b"),
        settings={"encoder": WITH_ENERGY.to_dict(defaults=True)} if modality == "video" else {},
    )
    finish_split(folder, info, records, [])
    return folder
