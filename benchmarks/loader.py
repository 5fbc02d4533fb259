"""What maskstream's loaders and their peers cost, modality by modality: `make bench MODALITY=all`.

    python benchmarks/loader.py [--modality video] [--rounds 9] [--only found,train] [--docs docs/benchmarks.md]

In a round each reader makes the batches of an epoch of the same samples, in turn and with one thread (contest.py), so
that other load on the machine affects all of them. Printed are medians and quartiles of the CPU time of a sample, and
of the ratio to maskstream's within a round. The peers are in video_peers.py and so on. A modality is a process of its
own; sets and shards are made once, which takes minutes. With --docs the tables replace what stands between the
modality's two marks in that file.
"""

import argparse
import gc
import importlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import median
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The ratio of two readers that the project has set itself: at most `most`, or at least `least`; or what one costs
    more than the other, at most `more`, in the table's unit.
    """

    contest: str
    one: str
    other: str
    most: float | None = None
    least: float | None = None
    more: float | None = None

    def verdict(self, contest: Any) -> str:
        """What was measured, and what is to be reached; nothing where a reader is missing."""
        if not {self.one, self.other} <= contest.taken.keys():
            return ""
        pairs = [*zip(contest.taken[self.one], contest.taken[self.other], strict=True)]
        if self.more is not None:
            cost = median(one - other for one, other in pairs)
            return f"{self.one} - {self.other}: {cost:.2f} {contest.unit} (target: at most {self.more:g})."
        bound = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        return f"{self.one} / {self.other}: {median(one / other for one, other in pairs):.2f} (target: {bound})."


OURS, OFFICIAL = "maskstream", "VideoMAE's own: decord, PIL, float"
TARGETS = (
    Target(contest="train", one=OURS, other="floor", most=1.40),
    Target(contest="train", one=f"{OURS}, tube masks", other="floor", most=1.42),
    Target(contest="train", one=f"{OURS}, motion-guided masks", other=OURS, more=0.8),
    Target(contest="train", one=f"{OURS}, a quarter of the tokens", other="floor", most=1.45),
    Target(contest="train", one=f"{OURS}, by energy", other=OURS, more=15),
    Target(contest="train", one=f"{OURS}, float", other=OURS, most=1.12),
    Target(contest="train", one=OURS, other="SPDL without frames that none refers to", most=0.52),
    Target(contest="found", one=OURS, other="SPDL", most=0.58),
    Target(contest="cores", one=OFFICIAL, other=f"{OURS}, profile `train`, uint8", least=16),
    Target(contest="cores", one=OFFICIAL, other=f"{OURS}, profile `train`, float", least=10),
)


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
    from machine import facts

    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(f"files and shards to read: {arguments.data} (made once, which takes a few minutes)", flush=True)
    module, function = MODULES[arguments.modality]
    contests = getattr(importlib.import_module(module), function)(arguments.data, arguments.media)
    only = [name for name in arguments.only.split(",") if name]
    tables, rows = [], []
    for contest in contests:
        if only and contest.name not in only:
            continue
        contest.warm_up()
        for number in range(1, arguments.rounds + 1):
            contest.round(number)
        verdicts = [target.verdict(contest) for target in TARGETS if target.contest == contest.name]
        contest.notes += [verdict for verdict in verdicts if verdict]
        rows += contest.as_rows()
        tables.append(contest.table())
        print(tables[-1], flush=True)
    gc.unfreeze()
    about = facts(("numpy", "torch", "torchvision", *PACKAGES[arguments.modality].split()))
    versions = ", ".join(f"{name} {one}" for name, one in about["versions"].items() if one != "not installed")
    machine = f"{about['cores']} cores of {about['cpu']}, load {about['load'][0]}, {about['date']}"
    said = f"{machine}, commit {about['commit']}, {arguments.rounds} rounds; Python {about['python']}, {versions}."
    print(said)
    out = arguments.out or arguments.data / f"{arguments.modality}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    if arguments.docs and not only:
        write_between(arguments.docs, arguments.modality, "\n".join([*tables, said]))


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
    parser.add_argument("--rounds", type=int, default=9, help="rounds in which all readers take turns")
    parser.add_argument("--only", default="", help="the tables to make, separated by commas, such as train,cores")
    parser.add_argument("--docs", type=Path, help="the page that gets the tables")
    parser.add_argument("--out", type=Path, help="the JSON file to write, by default in --data")
    parser.add_argument("--data", type=Path, default=ROOT / "runs/bench", help="folder of the files and shards")
    parser.add_argument("--media", type=Path, default=ROOT / "data/raw/sample", help="the sample dataset's folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
