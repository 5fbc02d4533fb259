"""Flips single bits in all files of splits of every modality, and of indexes of foreign tars.

    python -m tests.attacks flips -n 5000 --seed 0

`verify` must notice each flip, and a loader must give the right samples or a MaskstreamError. The ends are "right" and
"refused", by what the loader did; bad ones are "wrong" (another sample), "missed" (by `verify`), "foreign" (another
exception), "signal" (the process died) and "hang". Flips are done in a process of its own, which reports each by a
line, so that its death is seen.
"""

from __future__ import annotations

import json
import logging
import select
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.preprocess.foreign.job import index_tars
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from ..pipelines.every_modality import AUDIO, MODALITIES, write_split
from ..pipelines.small_media import SAMPLES
from .where import HERE, Where

SOURCES = {name: modality.source for name, modality in MODALITIES.items()} | {
    "audio": AudioData(**{name: value for name, value in AUDIO.items() if name != "mixup"}).source
}
"""Sounds are not mixed, because another one takes the place of a damaged partner."""
FOREIGN = ("audio", "video")
"""The modalities whose tars are also indexed as foreign ones."""
HANG_S = 120.0
ROOT = Path(__file__).resolve().parents[2]


def attack(count: int, seed: int, folder: Path, where: Where = HERE) -> Counter[str]:
    """Flips `count` bits, one at a time, in splits below `folder`; returns how many flips ended in which way."""
    if where.store == "http":
        folder = where.root / "attack"
    make_splits(folder)
    ends: Counter[str] = Counter()
    while (done := ends.total()) < count:
        words = [sys.executable, "-m", __name__, str(folder), str(done), str(count), str(seed)]
        words += [where.store, where.url, str(where.root)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as process:
            ended = _ends_of(process, ends, count - done)
        if not ended and ends.total() < count:
            print(f"seed {seed}, flip {ends.total()}: exit code {process.returncode}", flush=True)
            ends["hang" if process.returncode == -9 else "signal"] += 1
            _whole_again(folder)
    return ends


def _ends_of(process: subprocess.Popen[bytes], ends: Counter[str], wanted: int) -> bool:
    """Count the ends that a process reports; whether it reported all. A silent process is killed."""
    if process.stdout is None:
        return False
    for _ in range(wanted):
        if not select.select([process.stdout], [], [], HANG_S)[0]:
            process.kill()
            return False
        line = process.stdout.readline()
        if not line.strip():
            return False
        ends[json.loads(line)] += 1
    return True


def make_splits(folder: Path) -> None:
    """A split of every modality and indexes of foreign tars, each with an untouched copy."""
    for name in MODALITIES:
        write_split(name, folder / name)
    for name in FOREIGN:
        out = folder / f"foreign-{name}" / "split"
        out.mkdir(parents=True)
        tars = [shutil.copy(tar, out) for tar in sorted((folder / name / "split").glob("*.tar"))]
        index_tars([Path(tar) for tar in tars], out, modality=name, as_is=True, workers=0)
    for split in _splits(folder):
        shutil.copytree(split, split.with_name("whole"))


def _splits(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/split"))


def _whole_again(folder: Path) -> None:
    for split in _splits(folder):
        shutil.copytree(split.with_name("whole"), split, dirs_exist_ok=True)


class Target:
    """A split whose bits are flipped, and what its samples are."""

    def __init__(self, split: Path, where: Where) -> None:
        self.split, self.where = split, where
        self.location = where.copied(split)
        self.name = split.parent.name.removeprefix("foreign-")
        self.files = sorted(path for path in split.iterdir() if path.is_file())
        self.truth = self.rows(range(SAMPLES))

    def rows(self, samples: Any) -> dict[int, Any]:
        """The values of some samples, as a loader makes them; None for one that it refuses."""
        manifest = Manifest.load(self.location)
        split = Split(manifest=manifest, seed=5, device=torch.device("cpu"), workers=0, threads=1)
        sampler = SOURCES[self.name](split).sampler
        found: dict[int, Any] = {}
        for sample in samples:
            try:
                found[sample] = MODALITIES[self.name].rows(batch_of(sampler, Wanted.of([sample])))
            except MaskstreamError:
                found[sample] = None
        return found

    def end_of(self, rng: np.random.Generator) -> tuple[str, str]:
        """Flip a bit, see what readers do, and flip it back; the end, and what was flipped."""
        path = self.files[rng.integers(len(self.files))]
        whole = path.read_bytes()
        at, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        samples = {int(rng.integers(SAMPLES)), *self._nearest(path, at)}
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([whole[at] ^ 1 << bit]))
        self.where.changed(self.location, path, self.split)
        try:
            return self._seen(sorted(samples)), f"{path}, byte {at}, bit {bit}"
        finally:
            path.write_bytes(whole)
            self.where.changed(self.location, path, self.split)

    def _nearest(self, path: Path, at: int) -> list[int]:
        """The samples whose data a byte of a tar or of its sums is about, if any."""
        manifest = Manifest.load(self.split)
        begin, end = (at // 8 * 4096, at // 8 * 4096 + 4096) if path.suffix == ".sums" else (at, at + 1)
        near = [
            i
            for component in manifest.components.values()
            for i in range(SAMPLES)
            if Path(manifest.shard_name(i)).stem == path.name.partition(".")[0]
            and (component.offset[i] < end and begin < component.offset[i] + component.size[i])
        ]
        return near[:2]

    def _seen(self, samples: list[int]) -> str:
        try:
            noticed = bool(verify(self.location).problems)
            try:
                inspect(self.location)
                rows = self.rows(samples)
            except MaskstreamError:
                return "refused" if noticed else "missed"
        except Exception as error:
            print(repr(error), file=sys.stderr)
            return "foreign"
        if any(row is not None and row != self.truth[sample] for sample, row in rows.items()):
            return "wrong"
        if not noticed:
            return "missed"
        return "refused" if None in rows.values() else "right"


def flip(folder: Path, first: int, count: int, seed: int, where: Where) -> None:
    """Do the flips [first, count) and print the end of each as a line."""
    torch.set_num_threads(1)
    splits = _splits(folder)
    targets: dict[Path, Target] = {}
    for number in range(first, count):
        rng = np.random.default_rng((seed, number))
        split = splits[number % len(splits)]
        if split not in targets:
            targets[split] = Target(split, where)
        end, what = targets[split].end_of(rng)
        if end not in ("right", "refused"):
            print(f"{end}: seed {seed}, flip {number}: {what}", file=sys.stderr)
        print(json.dumps(end), flush=True)


def main() -> None:
    """The process that flips bits: its arguments are those of `flip`."""
    folder, first, count, seed, store, url, root = sys.argv[1:]
    logging.disable(logging.WARNING)
    flip(Path(folder), int(first), int(count), int(seed), Where(store, url, Path(root)))


if __name__ == "__main__":
    main()
