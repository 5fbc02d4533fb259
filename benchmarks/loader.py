"""What maskstream's loaders and their peers cost, modality by modality: `make bench MODALITY=all`.

    python benchmarks/loader.py [--modality video] [--rounds 9] [--only found,train] [--docs docs/benchmarks.md]

In a round each reader makes the batches of an epoch of the same samples, in turn and with one thread (contest.py), so
that other load on the machine affects all of them. Printed are the medians of the CPU time of a sample and of its ratio
to maskstream's within a round. The peers are in video_peers.py and so on. A modality is a process of its own; sets and
shards are made once, which takes minutes. With --docs the tables replace what stands between the modality's two marks
in that file, and benchmarks/results gets every round, quartiles and versions as JSON.
"""

import argparse
import gc
import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from libraries import start_with_pyav_libraries

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "video": ("video_peers", "contests"),
    "image": ("image_peers", "images"),
    "image-text": ("image_peers", "pairs"),
    "audio": ("sound_peers", "sounds"),
    "audiovisual": ("sound_peers", "clips_with_sound"),
    "text": ("array_peers", "texts"),
    "points": ("array_peers", "points"),
    "mesh": ("array_peers", "meshes"),
}
PACKAGES = {
    "video": "av datasets decord2 mosaicml-streaming opencv-python-headless pillow pylance spdl torchcodec webdataset",
    "image": "datasets mosaicml-streaming opencv-python-headless pillow pylance simplejpeg spdl torchcodec webdataset",
    "image-text": "pillow tokenizers webdataset",
    "audio": "av librosa nvidia-dali-cuda130 soundfile soxr spdl torchcodec",
    "audiovisual": "av librosa torchcodec",
    "text": "datasets mosaicml-streaming pylance tokenizers webdataset",
    "points": "h5py mosaicml-streaming webdataset",
    "mesh": "trimesh",
}


def main() -> None:
    arguments = parse()
    if arguments.modality == "all":
        words = [word for word in sys.argv[1:] if word not in ("--modality", "all")]
        codes = [subprocess.run([sys.executable, __file__, "--modality", name, *words]).returncode for name in MODULES]
        sys.exit(max(codes))
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "LANCE_LOG": "error"}
    start_with_pyav_libraries(arguments.data / "ffmpeg")
    import cv2
    import torch
    from contest import table
    from machine import facts

    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(f"files and shards to read: {arguments.data} (created once, which takes a few minutes)", flush=True)
    module, function = MODULES[arguments.modality]
    contests = getattr(importlib.import_module(module), function)(arguments.data, arguments.media)
    only = [name for name in arguments.only.split(",") if name]
    done: dict[tuple[str, bool], list[Any]] = {}
    rows = []
    for contest in contests:
        if only and contest.name not in only:
            continue
        contest.warm_up()
        for number in range(1, arguments.rounds + 1):
            contest.round(number)
        rows += contest.as_rows()
        done.setdefault((contest.title, contest.wall), []).append(contest)
        print(table([contest]), flush=True)
    gc.unfreeze()
    about = facts(("numpy", "torch", "torchvision", *PACKAGES[arguments.modality].split()))
    machine = f"{about['cores']} cores of {about['cpu']}, load {about['load'][0]}, {about['date']}"
    said = f"{machine}, commit {about['commit']}, {arguments.rounds} rounds."
    print(said)
    folder = ROOT / "benchmarks/results" if arguments.docs and not only else arguments.data
    out = arguments.out or folder / f"{arguments.modality}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    if arguments.docs and not only:
        write_between(arguments.docs, arguments.modality, "\n".join([*map(table, done.values()), said]))


def write_between(page: Path, name: str, text: str) -> None:
    """Replaces what stands in a page between the marks of a name; SystemExit where it has none."""
    first, last = f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"
    before, found, rest = page.read_text().partition(first)
    _, closed, after = rest.partition(last)
    if not (found and closed):
        raise SystemExit(f"{page} has no lines {first} and {last}")
    page.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--modality", choices=("all", *MODULES), default="video")
    parser.add_argument("--rounds", type=int, default=9, help="rounds in which every reader takes a turn")
    parser.add_argument("--only", default="", help="tables to create, separated by commas, such as train,cores")
    parser.add_argument("--docs", type=Path, help="page into which the tables are written")
    parser.add_argument("--out", type=Path, help="JSON file to write, by default in --data")
    parser.add_argument("--data", type=Path, default=ROOT / "runs/bench", help="folder of the files and shards")
    parser.add_argument("--media", type=Path, default=ROOT / "data/raw/sample", help="the sample dataset's folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
