"""Processor time per clip of the audio loader, of librosa in a torch DataLoader and of DALI, one thread each.

    python benchmarks/audio.py [--rounds 5] [--out audio.json]

All readers read the same FLAC files of harmonics and noise, take a random segment of 10.24 s, mix to mono at 16 kHz and
make 128 mel bands every 10 ms from 512-point spectra (see audio_readers.py). They take turns, in batches of 8, and the
work of batches made ahead counts for its reader. maskstream also draws the mask. A second table lists the time of each
stage of maskstream.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import machine
import numpy as np
import torch
from audio_readers import BATCH, BINS, FFT, FRAMES, HOP, RATE, SECONDS, DaliClips, LibrosaClips
from torch.utils.data import DataLoader

from maskstream.pipelines import AudioClip, audio_loader, masks
from maskstream.pipelines.decode.sound import decode_segment, read_segment
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.audio.reader import SoundReader
from maskstream.pipelines.modalities.audio.spectrogram import LogMel
from maskstream.pipelines.stream.loader import Loader
from maskstream.preprocess import make_shards
from maskstream.preprocess.encode.audio.encoder import encoded_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.shards.format.manifest import Manifest

FILES, CLIPS = 16, 64
SETS = {"speech: 15 s, 16 kHz mono": (15, 16000, 1), "recordings: 60 s, 44.1 kHz stereo": (60, 44100, 2)}
FBANK, LOG_MEL = "maskstream, Fbank", "maskstream, LogMel"


def write_sounds(folder: Path, seconds: int, rate: int, channels: int) -> list[Path]:
    """Sixteen files of harmonics and noise, of FLAC's usual level 5."""
    folder.mkdir(parents=True)
    paths = []
    for i in range(FILES):
        rng = np.random.default_rng(i)
        t = np.arange(seconds * rate)[:, None] / rate
        wave = sum(np.sin(2 * np.pi * rng.uniform(80, 2000, channels) * t) / (k + 1) for k in range(8))
        samples = np.rint(4000 * wave + rng.normal(0, 200, (len(t), channels))).astype(np.int32)
        sound = Sound(samples=samples, bits=16, sample_rate=rate, codec="pcm_s16le", container="wav")
        paths.append(folder / f"{i}.flac")
        paths[-1].write_bytes(encoded_sound(sound, level=5).members["flac"])
    return paths


def ours(shards: Path, **features: Any) -> Loader[AudioBatch]:
    return audio_loader(
        shards,
        clip=AudioClip(seconds=SECONDS),
        mask=masks.Random(ratio=0.8),
        batch_size=BATCH,
        threads=1,
        device="cpu",
        **features,
    )


def readers_of(paths: list[Path], shards: Path, seconds: int) -> dict[str, Callable[[], Any]]:
    """What makes CLIPS clips with each of the readers, and leaves no work behind."""
    fbank = ours(shards).repeat()
    mel = ours(shards, features=LogMel(n_fft=FFT, hop=HOP, n_bins=BINS), statistics=(-30.0, 15.0)).repeat()
    dali = DaliClips(paths)
    whole, seeking = (
        DataLoader(LibrosaClips(paths, seconds, CLIPS, seek=seek), batch_size=BATCH) for seek in (False, True)
    )
    return {
        FBANK: lambda: last(islice(fbank, CLIPS // BATCH)).spectrogram.transpose(1, 2),
        LOG_MEL: lambda: last(islice(mel, CLIPS // BATCH)).spectrogram.transpose(1, 2),
        "librosa": lambda: last(whole),
        "librosa, seeking": lambda: last(seeking),
        "DALI": lambda: last(dali.batch() for _ in range(CLIPS // BATCH)),
    }


def last(batches: Iterable[Any]) -> Any:
    """The last batch; each one goes when the next one is there, as in a training loop."""
    batch = None
    for one in batches:
        batch = one
    return batch


def cpu_ms(run: Callable[[], Any], clips: int) -> float:
    """Processor milliseconds per clip of all threads of this process."""
    start = time.process_time()
    run()
    now, before = time.process_time(), 0.0
    while now - before > 1e-3:  # what a loader makes ahead belongs to its own turn
        time.sleep(0.05)
        now, before = time.process_time(), now
    return (now - start) / clips * 1e3


def check(readers: dict[str, Callable[[], Any]]) -> None:
    """Runs every reader once as warm-up, and checks that all make clips of the same shape."""
    for name, run in readers.items():
        batch = run()
        if batch.shape != (BATCH, BINS, FRAMES):
            raise SystemExit(f"{name} made {tuple(batch.shape)}, not {(BATCH, BINS, FRAMES)}")


def stages(loader: Loader[AudioBatch], sounds: SoundReader, rounds: int) -> dict[str, float]:
    """Medians of the processor milliseconds per clip of each stage, as the loader counts them, and of all.

    How much of decoding is resampling comes from decoding the same bytes with and without it.
    """
    names = {"read": "read", "decode": "FLAC", "convert": "features", "mask": "mask", "collate": "collate"}
    found: list[dict[str, float]] = []
    batches = loader.repeat()
    last(islice(batches, CLIPS // BATCH))
    for epoch in range(rounds):
        before = taken(loader)
        whole = cpu_ms(lambda: last(islice(batches, CLIPS // BATCH)), CLIPS)
        one = {name: (taken(loader)[stage] - before[stage]) / CLIPS * 1e3 for stage, name in names.items()}
        one["resampling"] = max(resampling_ms(sounds, epoch), 0.0)
        one["FLAC"] -= one["resampling"]
        found.append({**one, "threads and the rest": whole - sum(one.values()), "all": whole})
    return {name: round(median(one[name] for one in found), 2) for name in found[0]}


def taken(loader: Loader[AudioBatch]) -> dict[str, float]:
    """Processor seconds of each stage so far."""
    counted = loader.stats()["cpu_seconds"]
    assert isinstance(counted, dict)
    return {stage: counted.get(stage, 0.0) for stage in ("read", "decode", "convert", "mask", "collate")}


def resampling_ms(sounds: SoundReader, epoch: int) -> float:
    """What decoding takes longer with resampling than without, of the segments that an epoch shows."""
    manifest = sounds.manifest
    read = [
        read_segment(manifest.store, manifest.member(i, "flac"), sounds.header(i), *sounds.segment(i, epoch), rate=RATE)
        for i in range(8)
    ]

    def decode(rate: int) -> None:
        for segment in read:
            decode_segment(segment, rate=rate, gain=1.0, channels="mono")

    own = int(manifest.component("flac").facts["sample_rate"][0])
    if own == RATE:
        return 0.0
    return cpu_ms(lambda: decode(RATE), len(read)) - cpu_ms(lambda: decode(own), len(read))


def measure(seconds: int, rate: int, channels: int, folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of alternating rounds, and the stages of ours."""
    paths = write_sounds(folder / "raw/train/a", seconds, rate, channels)
    make_shards("audio-folder", folder / "raw", folder / "shards", as_is=True, workers=0)
    readers = readers_of(paths, folder / "shards/train", seconds)
    manifest = Manifest.load(folder / "shards/train")
    sounds = SoundReader(manifest=manifest, clip=AudioClip(seconds=SECONDS), seed=0)
    check(readers)
    turns = [{name: cpu_ms(run, CLIPS) for name, run in readers.items()} for _ in range(rounds)]
    return {
        "readers": {name: round(median(turn[name] for turn in turns), 2) for name in readers},
        "stages": stages(ours(folder / "shards/train"), sounds, rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which all readers take turns")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name, settings in SETS.items():
        with TemporaryDirectory() as folder:
            results[name] = measure(*settings, Path(folder), arguments.rounds)
        ms = results[name]["readers"]
        print(f"{name}: CPU ms per clip, and how many times {FBANK}")
        for reader, value in ms.items():
            print(f"  {reader:20} {value:7.2f} {value / ms[FBANK]:6.1f}")
        print("  stages:", ", ".join(f"{stage} {value}" for stage, value in results[name]["stages"].items()))
    facts = machine.facts(("librosa", "soxr", "av", "torch", "numpy", "nvidia-dali-cuda130"))
    print(json.dumps(facts))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"machine": facts, "cpu_ms_per_clip": results}, indent=2))


if __name__ == "__main__":
    main()
