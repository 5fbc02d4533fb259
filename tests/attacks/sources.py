"""Hostile raw files, beside good ones, through `maskstream shards`: each becomes a sample or a reject.

A job has `HOSTILE` hostile files of one modality and a good one, and runs in a process of its own. Its split must
verify, decoded, and the good file must become the sample that it always becomes. "missed": a file is neither a sample
nor a reject. "wrong": the good file has another sample, so has a file that is only renamed, or the split does not
verify. "foreign": the job ends with any error, also one about data, because one file ends no job.
"""

from __future__ import annotations

import gzip
import io
import json
import resource
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from maskstream.preprocess import make_shards
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from .kills import ended
from .raw_files import audio_only_video, raw_files
from .where import HERE, Where

HOSTILE = 10
SETTINGS: dict[str, Any] = {"max_rejects": 1, "pauses_s": (0,), "samples_per_shard": 4}
ROOM_BYTES = 8 << 30
"""The address space that a job may add after its imports."""
GOOD = "good"
BY_NAME = ("points-folder",)
"""The datasets whose samples depend on the source's name: their order of points is drawn from it."""


@dataclass(frozen=True, slots=True)
class Files:
    """The good files: of the modality, by ending; of all others; and an mp4 without pictures."""

    own: dict[str, bytes]
    others: list[bytes]
    audio_only: bytes


Way = Callable[[np.random.Generator, bytes, Files], bytes]


def cut(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    return data[: rng.integers(len(data))]


def flipped(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(len(data) * 8, size=rng.choice([1, 5, 100])):
        changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def zeros(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    begin, end = sorted(rng.integers(len(data) + 1, size=2))
    return data[:begin] + bytes(end - begin) + data[end:]


def hole(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    """A part is gone."""
    begin, end = sorted(rng.integers(len(data) + 1, size=2))
    return data[:begin] + data[end:]


def huge(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    """A size or count near the begin, or anywhere, becomes huge."""
    word = rng.choice(
        [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\xff\xff", b"\x80\0\0\0"]
    )
    at = int(rng.integers(min(len(data), 300) if rng.random() < 0.7 else len(data)))
    return data[:at] + bytes(word) + data[at + 4 :]


def digits(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    """A digit in the text of a header becomes several nines."""
    at = [i for i, byte in enumerate(data[:400]) if chr(byte).isdigit()]
    if not at:
        return huge(rng, data, files)
    i = int(rng.choice(at))
    return data[:i] + b"9" * int(rng.integers(1, 13)) + data[i + 1 :]


def empty(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    return b""


def noise(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    return rng.bytes(int(rng.integers(1, 5000)))


def text(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    """Text, some of which names other files."""
    return bytes(
        rng.choice(
            [
                b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
                b"ffconcat version 1.0\nfile /etc/passwd\n",
                b"<?xml version='1.0'?><MPD><Period/></MPD>",
                b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
                b"mtllib /etc/passwd\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
                b"f 1 2 3\n" * 50,
                b"hello\n" * 200,
                b"[" * 20000,
            ]
        )
    )


def other(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    """A file of another kind under this ending."""
    return files.others[rng.integers(len(files.others))]


def renamed(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    """A good file of the same modality, of another format."""
    return list(files.own.values())[rng.integers(len(files.own))]


def nested(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    """The file in an archive, in itself, or twice."""
    file = io.BytesIO()
    which = rng.integers(5)
    if which == 0:
        with tarfile.open(fileobj=file, mode="w") as tar:
            info = tarfile.TarInfo("x")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    elif which == 1:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x", data)
    elif which == 2:
        return gzip.compress(data, mtime=0)
    elif which == 3:
        at = int(rng.integers(len(data)))
        return data[:at] + data + data[at:]
    else:
        return data + data
    return file.getvalue()


def head(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    """The begin of one file and the rest of another."""
    rest = other(rng, data, files) if rng.random() < 0.5 else renamed(rng, data, files)
    at = int(rng.integers(min(len(data), len(rest))))
    return data[:at] + rest[at:]


def without_pictures(rng: np.random.Generator, data: bytes, files: Files) -> bytes:
    return files.audio_only


WAYS: tuple[Way, ...] = (
    *(cut, flipped, flipped, zeros, hole, huge, huge, digits, empty, noise, text, other, renamed, nested, head),
    without_pictures,
)


def convert(dataset: str, root: Path, out: Path, where: Where) -> None:
    """Make the shards in this process, with a limit of memory, or in a cluster, and note what `verify` finds."""
    where.enter()
    executor = where.executor()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, used + ROOM_BYTES))
    make_shards(dataset, root, out, workers=None if executor else 0, executor=executor, as_is=True, **SETTINGS)
    (out / "problems.json").write_text(json.dumps(verify(out / "train", decode=True).problems))


def samples_of(split: Path) -> dict[str, list[bytes]]:
    """The checksums of the members of each sample, by source; the json is left out, for it names the container."""
    manifest = Manifest.load(split)
    members = [(name, one) for name, one in sorted(manifest.components.items()) if name != "json"]
    return {
        source: [name.encode() + one.digest[i].tobytes() for name, one in members if one.present[i]]
        for i, source in enumerate(manifest.sources().to_pylist())
    }


def ends_of(
    dataset: str, sources: dict[str, bytes], right: dict[str, list[bytes]], folder: Path, where: Where
) -> dict[str, str]:
    """How a job of these sources and the good ones ended, for each source.

    `right` has the sample of each source that must have this one, if it has one.
    """
    root, out = folder / "raw", folder / "out"
    shutil.rmtree(folder, ignore_errors=True)
    root.mkdir(parents=True)
    for name, data in sources.items():
        (root / name).write_bytes(data)
    end = ended(partial(convert, dataset, root, where=where), out)
    if end != "finished":
        return dict.fromkeys(sources, end)
    samples = samples_of(out / "train")
    rejects = {row["source"] for row in pq.read_table(out / "train/rejects.parquet").to_pylist()}
    if problems := json.loads((out / "problems.json").read_text()):
        print(problems[0])
        return dict.fromkeys(sources, "wrong")
    ends: dict[str, str] = {}
    for name in sources:
        if (name in samples) == (name in rejects):
            ends[name] = "missed"
        elif name in rejects:
            ends[name] = "wrong" if name.startswith(GOOD) else "rejected"
        else:
            ends[name] = "sample" if samples[name] == right.get(name, samples[name]) else "wrong"
    return ends


def attack(count: int, seed: int, folder: Path, where: Where = HERE) -> Counter[str]:
    """Converts `count` hostile files, in jobs of one modality after the other."""
    made, audio_only = raw_files(folder), audio_only_video(folder)
    right: dict[str, dict[str, list[bytes]]] = {}
    ends: Counter[str] = Counter()
    number = 0
    while ends.total() < count:
        dataset = list(made)[number % len(made)]
        own = made[dataset]
        files = Files(own, [data for name in made if name != dataset for data in made[name].values()], audio_only)
        good = {f"{GOOD}{ending}": data for ending, data in own.items()}
        if dataset not in right:
            seen = ends_of(dataset, good, {}, folder / "job", where)
            assert set(seen.values()) == {"sample"}, (dataset, seen)
            right[dataset] = samples_of(folder / "job/out/train")
        rng = np.random.default_rng((seed, number))
        hostile: dict[str, bytes] = {}
        wanted = dict(right[dataset])
        for i in range(min(HOSTILE, count - ends.total())):
            ending = list(own)[rng.integers(len(own))]
            way = WAYS[rng.integers(len(WAYS))]
            name = f"{i}-{way.__name__}{ending}"
            hostile[name] = way(rng, own[ending], files)
            if way is renamed and dataset not in BY_NAME:
                kind = next(kind for kind, data in own.items() if data == hostile[name])
                wanted[name] = right[dataset][f"{GOOD}{kind}"]
        one = f"{GOOD}{list(own)[number // len(made) % len(own)]}"
        found = ends_of(dataset, {**hostile, one: good[one]}, wanted, folder / "job", where)
        if found.pop(one) != "sample":  # the job broke: which file did it?
            found = {
                name: ends_of(dataset, {name: data, one: good[one]}, wanted, folder / "job", where)[name]
                for name, data in hostile.items()
            }
        for name, end in found.items():
            ends[end] += 1
            if end not in ("sample", "rejected"):
                print(f"{end}: seed {seed}, job {number} of {dataset}, file {name}")
        number += 1
    return ends
