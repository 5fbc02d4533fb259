"""CPU and wall time of parts of a dataset in archives: shards of them as they are and unpacked first, and an index.

    python benchmarks/archives.py [--media data/raw/sample] [--files 20] [--clips 200] [--parts 4] [--out archives.json]

The parts are laid out as the CVD Foundation publishes Kinetics-400: `k400_targz/train/part_N.tar.gz`, with train.csv
and val.csv. The clips are made from the sample videos (`clips.py`). Each way starts with an empty cache folder and
ends with verified shards of a profile; the shards are compared byte for byte. An index is of plain tars, which gunzip
makes of the parts, and needs no shards.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import machine
from clips import Form

from shards import found_files

LABELS = ("abseiling", "zumba")
LAYOUTS = Path(__file__).parents[1] / "examples/first_hour"


def packed(root: Path, files: list[Path], parts: int, count: int) -> int:
    """Write the parts and lists of `count` clips, of which every tenth is of val; returns the bytes of the parts."""
    sys.path.insert(0, str(LAYOUTS))  # the layout of the publisher is that of the first hour
    from k400_parts import write_k400

    clips = []
    for n in range(count):
        clip = root.parent / "named" / f"clip{n:07d}.mp4"
        clip.parent.mkdir(exist_ok=True)
        shutil.copyfile(files[n % len(files)], clip)
        clips.append((LABELS[n % 2], clip))
    write_k400(root, {"train": [clip for n, clip in enumerate(clips) if n % 10], "val": clips[::10]}, parts)
    shutil.rmtree(root.parent / "named")
    return sum(path.stat().st_size for path in root.rglob("*.tar.gz"))


def timed(commands: list[list[str]], cache: Path) -> dict[str, float]:
    """Wall and CPU seconds of commands, one after the other."""
    env = {**os.environ, "MASKSTREAM_CACHE": str(cache)}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, env=env)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.monotonic() - begun, 1), "cpu_s": round(cpu_s, 1)}


def shards(root: Path, out: Path, profile: str, workers: int) -> list[str]:
    words = ["shards", "k400", "--root", str(root), "--out", str(out), "--profile", profile, "--workers", str(workers)]
    return [sys.executable, "-m", "maskstream", *words]


def compared(folder: Path, root: Path, profile: str, workers: int) -> dict[str, object]:
    """Both ways for a profile."""
    unpacked = folder / "unpacked"
    shutil.copytree(root / "annotations", unpacked / "annotations")
    unpack = []
    for path in sorted(root.rglob("*.tar.gz")):
        to = unpacked / path.parent.name
        to.mkdir(exist_ok=True)
        unpack.append(["tar", "xzf", str(path), "-C", str(to)])
    first = timed([*unpack, shards(unpacked, folder / "a", profile, workers)], folder / "cache_a")
    in_place = timed([shards(root, folder / "b", profile, workers)], folder / "cache_b")
    tars = [path.relative_to(folder / "a") for path in (folder / "a").rglob("*.tar")]
    same = all((folder / "a" / tar).read_bytes() == (folder / "b" / tar).read_bytes() for tar in tars)
    index = sum(path.stat().st_size for path in (folder / "cache_b").rglob("*.gzindex"))
    for name in ("a", "b", "unpacked", "cache_a", "cache_b"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return {
        "unpacked first": first,
        "in place": in_place,
        "same bytes": same,
        "shards": len(tars),
        "index_bytes": index,
    }


def indexed(folder: Path, root: Path, workers: int) -> dict[str, object]:
    """Plain tars of the parts, and an index of each split."""
    commands, words = [], [sys.executable, "-m", "maskstream", "index", "--workers", str(workers)]
    for split in ("train", "val"):
        tars = folder / "plain" / split
        tars.mkdir(parents=True)
        for path in sorted((root / "k400_targz" / split).glob("*.tar.gz")):
            commands.append(["sh", "-c", f"gunzip -c '{path}' > '{tars / path.stem}'"])
        commands.append([*words, "--labels", str(root / "annotations" / f"{split}.csv"), str(tars)])
    used = timed(commands, folder / "cache_c")
    plain = sum(path.stat().st_size for path in (folder / "plain").rglob("*.tar"))
    shutil.rmtree(folder / "plain")
    return {"gunzip and index": used, "plain_tars_bytes": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=Path("data/raw/sample"), help="the sample dataset")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--files", type=int, default=20, help="different files that the clips repeat")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profiles", nargs="+", default=["copy", "train"])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = found_files(folder / "clips", given.media, Form(files=given.files))
        size = packed(folder / "raw", files, given.parts, given.clips)
        found = {
            **machine.facts(("av", "indexed-gzip")),
            "clips": given.clips,
            "archives_bytes": size,
            "index": indexed(folder, folder / "raw", given.workers),
            **{name: compared(folder, folder / "raw", name, given.workers) for name in given.profiles},
        }
    print(json.dumps(found, indent=2))
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
