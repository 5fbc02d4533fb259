"""Processor time per clip of the audio loader, beside librosa in a torch Dataset: the same clips, one thread each.

    python benchmarks/audio.py [--out audio.json]

Both read FLAC files of harmonics and noise, take a random 10.24 s, mix to mono at 16 kHz and make 128 mel bands every
10 ms. The peer is what its documentation shows: librosa.load of the file, a crop, librosa.feature.melspectrogram and
power_to_db. "peer, seeking" loads only the crop (offset= and duration=). Rounds of ours and of the peers alternate.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import librosa
import machine
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from maskstream.pipelines import AudioClip, audio_loader, masks
from maskstream.preprocess import make_shards
from maskstream.preprocess.encode.audio import encoded_sound
from maskstream.preprocess.encode.sound import Sound

SECONDS, RATE, CLIPS, ROUNDS = 10.24, 16000, 32, 5
SETS = {"speech: 15 s, 16 kHz mono": (15, 16000, 1), "recordings: 60 s, 44.1 kHz stereo": (60, 44100, 2)}


def write_sounds(folder: Path, seconds: int, rate: int, channels: int) -> list[Path]:
    """Sixteen files of harmonics and noise, of FLAC's usual level 5."""
    folder.mkdir(parents=True)
    paths = []
    for i in range(16):
        rng = np.random.default_rng(i)
        t = np.arange(seconds * rate)[:, None] / rate
        wave = sum(np.sin(2 * np.pi * rng.uniform(80, 2000, channels) * t) / (k + 1) for k in range(8))
        samples = np.rint(4000 * wave + rng.normal(0, 200, (len(t), channels))).astype(np.int32)
        sound = Sound(samples=samples, bits=16, sample_rate=rate, codec="pcm_s16le", container="wav")
        paths.append(folder / f"{i}.flac")
        paths[-1].write_bytes(encoded_sound(sound, level=5).members["flac"])
    return paths


class LibrosaClips(Dataset[torch.Tensor]):
    """Clips as librosa's documentation makes them."""

    def __init__(self, paths: list[Path], seconds: int, *, seek: bool) -> None:
        self.paths, self.seconds, self.seek = paths, seconds, seek
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return CLIPS

    def __getitem__(self, i: int) -> torch.Tensor:
        start, path = self.rng.uniform(0, self.seconds - SECONDS), self.paths[i % len(self.paths)]
        if self.seek:
            wave, _ = librosa.load(path, sr=RATE, mono=True, offset=start, duration=SECONDS)
        else:
            wave, _ = librosa.load(path, sr=RATE, mono=True)
            wave = wave[int(start * RATE) :][: int(SECONDS * RATE)]
        power = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=128)
        return torch.from_numpy(librosa.power_to_db(power)[:, :1024])


def cpu_ms(run: Callable[[], Any]) -> float:
    """Processor milliseconds per clip of all threads of this process."""
    start = time.process_time()
    run()
    return (time.process_time() - start) / CLIPS * 1e3


def measure(seconds: int, rate: int, channels: int, folder: Path) -> dict[str, float]:
    """Medians of alternating rounds."""
    paths = write_sounds(folder / "raw/train/a", seconds, rate, channels)
    make_shards("audio-folder", folder / "raw", folder / "shards", workers=0)
    ours = audio_loader(
        folder / "shards/train",
        clip=AudioClip(seconds=SECONDS),
        mask=masks.Random(ratio=0.8),
        batch_size=8,
        threads=1,
        device="cpu",
    )
    stream = ours.repeat()
    readers: dict[str, Callable[[], Any]] = {"maskstream": lambda: [next(stream) for _ in range(CLIPS // 8)]}
    for name, seek in (("librosa", False), ("librosa, seeking", True)):
        batches = DataLoader(LibrosaClips(paths, seconds, seek=seek), batch_size=8)
        readers[name] = lambda batches=batches: list(batches)  # type: ignore[misc]
    rounds = [{name: cpu_ms(run) for name, run in readers.items()} for _ in range(ROUNDS + 1)]
    return {name: round(median(one[name] for one in rounds[1:]), 2) for name in readers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    results = {}
    for name, settings in SETS.items():
        with TemporaryDirectory() as folder:
            results[name] = measure(*settings, Path(folder))
        ms = results[name]
        print(name, "CPU ms per clip:", ", ".join(f"{reader} {value}" for reader, value in ms.items()))
        print("   times ours:", ", ".join(f"{reader} {value / ms['maskstream']:.1f}" for reader, value in ms.items()))
    facts = machine.facts(("librosa", "soxr", "av", "torch", "numpy"))
    print(json.dumps(facts))
    if out is not None:
        out.write_text(json.dumps({"machine": facts, "cpu_ms_per_clip": results}, indent=2))


if __name__ == "__main__":
    main()
