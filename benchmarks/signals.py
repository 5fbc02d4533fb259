"""CPU time of writing shards with signals, over writing them without.

    python benchmarks/signals.py PHOTOS CLIPS WORK --rounds 10

PHOTOS and CLIPS are folders of the sample datasets. The process writes a folder of pictures (JPEGs of 640x427, cut from
the photographs), of clips, of sounds and of texts, in turns with and without signals, the whole job in this process.
Printed are the medians of the CPU seconds and of the ratio of each round, with quartiles.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import machine
import numpy as np
import soundfile as sf
from turns import in_turns, quartiles

from maskstream.preprocess import make_shards
from maskstream.preprocess.curate import Signals

SIZE = (640, 427)
WORDS = ("a", "picture", "of", "the", "river", "and", "some", "trees", "under", "clouds,", "at", "noon.", "2", "boats")


def write_pictures(photos: Path, folder: Path, count: int) -> None:
    """JPEGs of SIZE, quality 90: parts of photographs, drawn."""
    found = [cv2.imread(str(path)) for path in sorted(photos.rglob("*")) if path.suffix in (".jpg", ".png")]
    large = [one for one in found if one is not None and min(one.shape[:2]) >= 400]
    for n in range(count):
        draw = np.random.default_rng(n)
        photo = large[n % len(large)]
        height, width = photo.shape[:2]
        share = draw.uniform(0.6, 1)
        part_width = int(share * min(width, height * SIZE[0] / SIZE[1]))
        part_height = int(part_width * SIZE[1] / SIZE[0])
        left, top = draw.integers(width - part_width + 1), draw.integers(height - part_height + 1)
        part = photo[top : top + part_height, left : left + part_width]
        resized = cv2.resize(part, SIZE, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{n:04}.jpg"), resized, [cv2.IMWRITE_JPEG_QUALITY, 90])


def write_sounds(folder: Path, count: int) -> None:
    """WAVs of 10 s at 16 kHz: drawn tones in noise."""
    times = np.arange(160_000) / 16_000
    for n in range(count):
        draw = np.random.default_rng(n)
        tones = sum(np.sin(times * 2 * np.pi * draw.uniform(80, 4000)) for _ in range(5))
        sf.write(folder / f"{n:04}.wav", 0.05 * tones + 0.01 * draw.standard_normal(len(times)), 16_000)


def write_texts(folder: Path, count: int) -> None:
    """Files of 300 drawn words."""
    for n in range(count):
        (folder / f"{n:04}.txt").write_text(" ".join(np.random.default_rng(n).choice(WORDS, 300)))


def prepared(arguments: argparse.Namespace) -> dict[str, tuple[str, Path, dict[str, Any]]]:
    """The dataset, the folder and further options of each kind, whose files are made once."""
    root: Path = arguments.work / "raw"
    makers = {
        "pictures": lambda folder: write_pictures(arguments.photos, folder, arguments.pictures),
        "clips": lambda folder: [shutil.copy(one, folder) for one in sorted(arguments.clips.rglob("*.mp4"))[:12]],
        "sounds": lambda folder: write_sounds(folder, 60),
        "texts": lambda folder: write_texts(folder, 400),
    }
    names = {"pictures": "image-folder", "clips": "folder", "sounds": "audio-folder", "texts": "txt"}
    for kind, make in makers.items():
        if not (root / kind).exists():
            (root / kind).mkdir(parents=True)
            make(root / kind)
    more = {"texts": {"settings": ("tokenizer=train:bpe:300",)}}
    return {kind: (names[kind], root / kind, more.get(kind, {})) for kind in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("photos", type=Path, help="a folder of photographs")
    parser.add_argument("clips", type=Path, help="a folder of clips")
    parser.add_argument("work", type=Path, help="where files and shards are written")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--kinds", default="pictures,clips,sounds,texts")
    arguments = parser.parse_args()
    kinds = prepared(arguments)

    def job(kind: str, measure: Signals | None) -> float:
        name, raw, more = kinds[kind]
        out = arguments.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        start = time.process_time()
        make_shards(name, raw, out, workers=0, as_is=True, measure=measure, **more)
        return time.process_time() - start

    print(machine.facts(("numpy", "opencv-python-headless", "maskstream")))
    for kind in arguments.kinds.split(","):
        works = {
            "without": lambda kind=kind: job(kind, None),
            "with": lambda kind=kind: job(kind, Signals()),
        }
        found = in_turns(works, arguments.rounds)
        ratios = [a / b for a, b in zip(found["with"], found["without"], strict=True)]
        quarters = " to ".join(f"{q:.3f}" for q in quartiles(ratios)[::2])
        seconds = ", ".join(f"{name} {median(values):.3f} s" for name, values in found.items())
        print(f"{kind}: {seconds}; with / without {median(ratios):.3f} ({quarters})", flush=True)


if __name__ == "__main__":
    main()
