"""CPU time per clip of maskstream and of other readers, which take turns in one process: `make bench`.

A clip is 16 frames, 4 apart at 30 frames a second, from a random start, and a multi-scale crop of them at 224 x 224
pixels, out of 10 s of 340 x 256 pixels (clips.py). In every round every reader (readers.py, ours.py) reads the same
clips with one thread, a few at a time, so that other load on the machine affects all of them. Printed are medians over
the rounds.

    found   the original files: in a plain tar with an index (`maskstream index`), and as other readers open them
    copy    the same packets in shards
    train   encoded anew in shards (profile `train`); other readers get the same packets as plain files
    fps     the same at 7.5 frames a second

The reader `floor` is PyAV decoding the packets that a clip needs, found and cut out beforehand, without any conversion.
Readers whose name ends in -all-cores have a thread or a process for each core; their wall time is what counts.
webdataset and hf-datasets read whole tars, as is their design.

Rows of the JSON: variant, reader, output ("uint8", "float"; "yuv" for the floor), cpu_ms_per_clip (user and system time
of all threads and worker processes), wall_clips_per_s (one reader at a time), bytes_per_clip (what read system calls
gave), gop_bytes_per_clip (what the GOPs of the clips hold), peak_mb (how far the memory of a copy of this process rises
while it reads 4 clips), cpu_ms_rounds (each round's figure). Machine, versions and commit are in the file beside it.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

from libraries import start_with_pyav_libraries

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "av",
    "datasets",
    "decord",
    "opencv-python-headless",
    "pillow",
    "spdl",
    "spdl-io",
    "torch",
    "torchcodec",
    "torchvision",
    "webdataset",
)


def main() -> None:
    arguments = parse()
    start_with_pyav_libraries(arguments.data / "ffmpeg")
    import cv2
    import torch
    from clips import Form, build
    from machine import facts
    from rows import check, measure_round, peak_mb, rows_of
    from table import show

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(f"files and shards to read: {arguments.data} (made once, which takes a few minutes)", flush=True)
    variants = build(arguments.data, arguments.media, Form())
    rows, notes = rows_of(variants, arguments.epochs, [name for name in arguments.only.split(",") if name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads; here they are idle
        for row in rows:
            row.peak_mb = peak_mb(row)
    notes += check(rows)
    for n in range(arguments.rounds):
        measure_round(rows, first=n * len(rows) // arguments.rounds)
        print(f"round {n + 1} of {arguments.rounds}", flush=True)
    depends_on = facts(PACKAGES)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n")
    arguments.out.with_suffix(".machine.json").write_text(json.dumps(depends_on, indent=1) + "\n")
    show(rows, depends_on, notes)
    print(f"wrote {arguments.out}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs/bench/loader.json", help="the JSON file to write")
    parser.add_argument("--data", type=Path, default=ROOT / "runs/bench/clips", help="folder of the files and shards")
    parser.add_argument("--media", type=Path, default=ROOT / "data/raw/sample", help="the sample dataset's folder")
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which all readers take turns")
    parser.add_argument("--epochs", type=int, default=1, help="clips that a round reads of each of the 20 files")
    parser.add_argument("--only", default="", help="other readers to run, separated by commas, such as spdl,floor")
    return parser.parse_args()


if __name__ == "__main__":
    main()
