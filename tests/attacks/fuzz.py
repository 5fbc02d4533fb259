"""Hostile files of the formats that libraries parse, and hostile containers and lists, through `make_shards`.

Of a kind with many files, a job has `HOSTILE` hostile ones beside a good one: each becomes a sample or a reject, and
the good one its sample. Of a container or a list a job has one, and either refuses it with a message that names it, or
each source that it lists becomes a sample or a reject. "missed": a source is neither. "wrong": the good file, or a
member of a zip, has another sample, or the split does not verify. "memory": a process took more than its limit. Jobs
run in a process of their own; one that a file ends is run again, supervised, and only then judged.
"""

from __future__ import annotations

import io
import json
import re
import resource
import shutil
import tarfile
import wave
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import h5py
import laspy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import trimesh
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from maskstream.preprocess import DATASETS, make_shards
from maskstream.preprocess.encode.limits import MEMORY_BYTES
from maskstream.preprocess.encode.text.tokenizer import Training
from maskstream.preprocess.job.shards import find_dataset
from maskstream.preprocess.raw.tree import open_raw_tree
from maskstream.shards.errors import MaskstreamError, OutageError
from maskstream.shards.format.verify import verify

from ..preprocess.encode.motion_files import motion_bytes
from . import sources
from .kills import ended
from .sources import GOOD, HOSTILE, ROOM_BYTES, WAYS, samples_of

JOBS = 4
"""Of a container or a list, for each job of a kind with many files."""
OVERSHOOT_BYTES = 3 << 29
"""What a process may take between two looks at its memory, beside its libraries."""
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.){0,200}"|-?\d+(?:\.\d+)?|true|false|null')
_ODD = (
    *(b"-1", b"0", b"3000000000", b"9" * 40, b"1e400", b"NaN", b"null", b"true", b"[]", b"{}", b"[1]", b'"x"', b'""'),
    *(b'"\\ud800"', b'"../../x"', b'"/etc/passwd"', b"0.5", b'"' + b"x" * 300 + b'"', b"[" * 20_000),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A format: the dataset, the good files of its root, the one of them that is made hostile, and settings.

    many: whether a job has many of the hostile file, which are named after `hostile`.
    """

    dataset: str
    files: dict[str, bytes]
    hostile: str
    many: bool = False
    settings: dict[str, str] = field(default_factory=dict)


def odd_value(rng: np.random.Generator, data: bytes, files: sources.Files) -> bytes:
    """A text or a number becomes an odd one."""
    found = list(_TOKEN.finditer(data, 0, 1 << 16))
    if not found:
        return sources.huge(rng, data, files)
    at = found[rng.integers(len(found))]
    return data[: at.start()] + bytes(_ODD[rng.integers(len(_ODD))]) + data[at.end() :]


ALL_WAYS = (*(way for way in WAYS if way is not sources.without_pictures), odd_value, odd_value, odd_value)


def picture(seed: int) -> bytes:
    smooth = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.imencode(".png", cv2.resize(smooth, (20, 16)))[1].tobytes()


def trajectories() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as out:
        for n in range(3):
            rng, group = np.random.default_rng(n), out.create_group(str(n))
            group["cells"] = np.array([[[0, 1, 2], [1, 3, 2]]], np.int32)
            group["mesh_pos"] = rng.random((1, 4, 2), np.float32)
            group["node_type"] = np.zeros((1, 4, 1), np.int32)
            group.create_dataset("velocity", data=rng.random((3, 4, 2), np.float32), chunks=(1, 4, 2), compression=4)
    return file.getvalue()


def dicom() -> bytes:
    about = Dataset()
    about.file_meta = FileMetaDataset()
    about.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    about.file_meta.MediaStorageSOPClassUID = about.SOPClassUID = SecondaryCaptureImageStorage
    about.file_meta.MediaStorageSOPInstanceUID = about.SOPInstanceUID = "1.2.3"
    about.Rows, about.Columns, about.BitsAllocated, about.BitsStored, about.HighBit = 24, 32, 16, 12, 11
    about.SamplesPerPixel, about.PixelRepresentation, about.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    about.WindowCenter, about.WindowWidth, about.RescaleSlope, about.RescaleIntercept = 200, 400, "1.5", "-100"
    about.PixelData = np.random.default_rng(0).integers(0, 4000, 24 * 32).astype("<u2").tobytes()
    file = io.BytesIO()
    pydicom.dcmwrite(file, about, enforce_file_format=True)
    return file.getvalue()


def tile(packed: bool) -> bytes:
    points, rng, file = (
        laspy.LasData(laspy.LasHeader(point_format=3, version="1.2")),
        np.random.default_rng(0),
        io.BytesIO(),
    )
    points.x, points.y, points.z = rng.random((3, 300)) * 100
    points.write(file, do_compress=packed)
    return file.getvalue()


def rows(**columns: list[object]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=3)
    return file.getvalue()


def tone() -> bytes:
    """Five seconds of noise as WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(np.random.default_rng(0).integers(-9000, 9000, 40_000, np.int16).tobytes())
    return file.getvalue()


def packed_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(6):
            archive.writestr(f"{'ab'[n % 2]}/{n}.png", picture(n))
    return file.getvalue()


def packed_tar(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for n in range(6):
            info = tarfile.TarInfo(f"{'ab'[n % 2]}/{n}.png")
            info.size = len(picture(n))
            archive.addfile(info, io.BytesIO(picture(n)))
    return file.getvalue()


META = {
    "dt": 0.01,
    "features": {
        "cells": {"type": "static", "shape": [1, -1, 3]},
        "mesh_pos": {"type": "static", "shape": [1, -1, 2]},
        "node_type": {"type": "static", "shape": [1, -1, 1]},
        "velocity": {"type": "dynamic", "shape": [3, -1, 2]},
    },
}
INFO = {
    "codebase_version": "v2.1",
    "total_episodes": 2,
    "fps": 10,
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    "chunks_size": 1000,
    "splits": {"train": "0:2"},
    "features": {"observation.images.top": {"dtype": "video"}, "action": {"dtype": "float32", "shape": [2]}},
}


def list_kinds(name: str, count: int) -> dict[str, Kind]:
    """Lists of so many rows, in each form. The first six rows name pictures that are there."""
    pngs = {f"{n}.png": picture(n) for n in range(6)}
    table: dict[str, list[object]] = {
        "path": [f"{n}.png" for n in range(count)],
        "labels": ["a;b" if n % 2 else "b" for n in range(count)],
        "split": ["val" if n % 2 else "train" for n in range(count)],
        "score": [n / 2 for n in range(count)],
        "caption": ["a"] * count,
    }
    records = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    forms = {
        "csv": "\n".join(",".join(map(str, row)) for row in [[*table], *(one.values() for one in records)]).encode(),
        "jsonl": "".join(json.dumps(one) + "\n" for one in records).encode(),
        "parquet": rows(**table),
    }
    return {
        f"{name}-{form}": Kind(dataset="image-folder", files={**pngs, f"list.{form}": data}, hostile=f"list.{form}")
        for form, data in forms.items()
    }


def kinds(folder: Path) -> dict[str, Kind]:
    """The kinds by name; `folder` is for the tokenizer."""
    ball = trimesh.creation.icosphere(subdivisions=1)
    meshes = {form: ball.export(file_type=form) for form in ("obj", "ply", "glb")}
    of_files = {
        **{form: ("mesh-folder", data if isinstance(data, bytes) else data.encode()) for form, data in meshes.items()},
        "dcm": ("image-folder", dicom()),
        "las": ("points-folder", tile(False)),
        "laz": ("points-folder", tile(True)),
        "bvh": ("pose-folder", motion_bytes(".bvh")),
    }
    lines = [{"text": f"the cat sat on mat {n}", "label": n % 2, "id": f"n{n}", "more": [n]} for n in range(6)]
    texts = {f"train/{n}.txt": line["text"].encode() for n, line in enumerate(lines)}
    episodes = [{"episode_index": n, "tasks": ["lift"], "length": 5} for n in range(2)]
    pictures = [picture(n) for n in range(6)]
    meta = {"meta.json": json.dumps(META).encode(), "train.h5": trajectories()}
    walk = {
        "meta/info.json": json.dumps(INFO).encode(),
        "meta/episodes.jsonl": "".join(json.dumps(one) + "\n" for one in episodes).encode(),
    }
    jsonl = "".join(json.dumps(line) + "\n" for line in lines).encode()
    pngs = {f"{n}.png": data for n, data in enumerate(pictures)}
    spans = b"path,start,end,labels\n" + b"".join(b"a.wav,%d,%d.5,a;b\n" % (n, n) for n in range(4))
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    llava = [{"id": n, "image": name, "conversations": said} for n, name in enumerate(pngs)]
    words = {"tokenizer": "train:wordpiece:300"}
    definition = Training.parse("train:wordpiece:300").trained([str(line["text"]) for line in lines])
    return {
        **{
            form: Kind(dataset=dataset, files={f"{GOOD}.{form}": data}, hostile=f".{form}", many=True)
            for form, (dataset, data) in of_files.items()
        },
        "hdf5": Kind(dataset="meshgraphnets", files=meta, hostile="train.h5"),
        "meshgraphnets-meta": Kind(dataset="meshgraphnets", files=meta, hostile="meta.json"),
        "parquet-media": Kind(
            dataset="parquet-image",
            files={"train.parquet": rows(image=[*pictures], label=[0, 1] * 3, caption=["a"] * 6)},
            hostile="train.parquet",
        ),
        "parquet-text": Kind(
            dataset="parquet-text",
            files={"train.parquet": rows(text=[str(line["text"]) for line in lines], label=[0, 1] * 3)},
            hostile="train.parquet",
        ),
        "zip": Kind(dataset="image-folder", files={"a.zip": packed_zip()}, hostile="a.zip"),
        "tar": Kind(dataset="image-folder", files={"a.tar": packed_tar("w")}, hostile="a.tar"),
        "tar-gz": Kind(dataset="image-folder", files={"a.tar.gz": packed_tar("w:gz")}, hostile="a.tar.gz"),
        **list_kinds("list", len(pngs)),
        "list-spans": Kind(dataset="audio-folder", files={"a.wav": tone(), "list.csv": spans}, hostile="list.csv"),
        "llava": Kind(
            dataset="image-text-folder",
            files={**pngs, "llava.json": json.dumps(llava).encode()},
            hostile="llava.json",
            settings=words,
        ),
        "jsonl": Kind(dataset="jsonl", files={"train.jsonl": jsonl}, hostile="train.jsonl"),
        "lerobot-info": Kind(dataset="lerobot", files=walk, hostile="meta/info.json"),
        "lerobot-episodes": Kind(dataset="lerobot", files=walk, hostile="meta/episodes.jsonl"),
        "tokenizer": Kind(
            dataset="txt",
            files={**texts, "tokenizer.json": definition},
            hostile="tokenizer.json",
            settings={"tokenizer": str(folder / "job/raw/tokenizer.json")},
        ),
    }


def convert(kind: Kind, root: Path, out: Path, workers: int) -> None:
    """Make the shards and note what came of it: what was refused, or the sources and what `verify` finds."""
    base = peak_bytes(resource.RUSAGE_SELF)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, used + ROOM_BYTES))
    note: dict[str, object] = {}
    try:
        make_shards(
            kind.dataset,
            root,
            out,
            workers=workers,
            settings=[f"{name}={value}" for name, value in kind.settings.items()],
            as_is=True,
            max_rejects=1,
            pauses_s=(),
        )
        with open_raw_tree(root) as tree:
            listed = find_dataset(tree, DATASETS[kind.dataset])
        note["listed"] = [source.id for some in listed.splits.values() for source in some]
        note["problems"] = [one for split in listed.splits for one in verify(out / split, decode=True).problems]
    except OutageError:
        raise
    except (MaskstreamError, ValueError) as error:  # ValueError: of the setting `tokenizer`
        if isinstance(error, ValueError) and "tokenizer" not in str(error):
            raise
        note["refused"] = str(error)
    note["bytes"] = max(peak_bytes(resource.RUSAGE_SELF) - base, peak_bytes(resource.RUSAGE_CHILDREN))
    (out.parent / "note.json").write_text(json.dumps(note))


def peak_bytes(who: int) -> int:
    return resource.getrusage(who).ru_maxrss << 10


def ends_of(kind: Kind, files: dict[str, bytes], right: dict[str, list[bytes]], folder: Path) -> dict[str, str]:
    """How a job of these files ended, by hostile file; `right` has samples that sources must have if they have any."""
    hostile = [name for name in files if name.endswith(kind.hostile)]
    for workers in (0, 1):
        shutil.rmtree(folder, ignore_errors=True)
        for name, data in files.items():
            (folder / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "raw" / name).write_bytes(data)
        end = ended(partial(convert, kind, folder / "raw", workers=workers), folder / "out")
        note = json.loads((folder / "note.json").read_text()) if end == "finished" else {"bytes": 0}
        if end == "finished" and note["bytes"] > MEMORY_BYTES + OVERSHOOT_BYTES:
            end = "memory"
        if end == "finished":
            break
    if end != "finished":
        return dict.fromkeys(hostile, end)
    if "sources can be used" in note.get("refused", ""):
        return dict.fromkeys(hostile, "rejected")
    if "refused" in note:
        named = Path(kind.hostile).name in note["refused"] or Path(kind.hostile).parts[0] in note["refused"]
        named = named or "a list or a link points outside" in note["refused"]
        if not named or (kind.many and len(files) > 1):
            print(f"refused: {note['refused'][:300]}")
            return dict.fromkeys(hostile, "foreign")
        return dict.fromkeys(hostile, "refused")
    if note["problems"]:
        print(note["problems"][0])
        return dict.fromkeys(hostile, "wrong")
    samples: dict[str, list[bytes]] = {}
    rejects: set[str] = set()
    for split in (path for path in (folder / "out").iterdir() if (path / "dataset.json").is_file()):
        samples |= samples_of(split)
        rejects |= {row["source"] for row in pq.read_table(split / "rejects.parquet").to_pylist()}
    wrong = any(name in samples and samples[name] != known for name, known in right.items())
    missed = {*note["listed"]} - samples.keys() - rejects
    if not kind.many:
        return dict.fromkeys(hostile, "missed" if missed else "wrong" if wrong else "right")
    found = {name: "sample" if name in samples else "rejected" if name in rejects else "missed" for name in hostile}
    return {
        name: "wrong" if wrong or (name.startswith(GOOD) and end != "sample") else end for name, end in found.items()
    }


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Converts `count` hostile files, in jobs of one kind after the other."""
    return attack_kinds(kinds(folder), count, seed, folder)


def attack_kinds(made: dict[str, Kind], count: int, seed: int, folder: Path) -> Counter[str]:
    """The same of some kinds."""
    right = dict[str, dict[str, list[bytes]]]()
    good = [data for kind in made.values() for data in kind.files.values()]
    turns = [name for name, kind in made.items() for _ in range(1 if kind.many else JOBS)]
    ends: Counter[str] = Counter()
    number = 0
    while ends.total() < count:
        name = turns[number % len(turns)]
        kind, rng = made[name], np.random.default_rng((seed, number))
        if name not in right:
            seen = ends_of(kind, kind.files, {}, folder / "job")
            assert {*seen.values()} <= {"sample", "right", *(["refused"] if kind.dataset == "lerobot" else [])}, (
                name,
                seen,
            )
            knows = kind.many or name == "zip"
            right[name] = samples_of(folder / "job/out/train") if knows else {}
        data = next(data for path, data in kind.files.items() if path.endswith(kind.hostile))
        beside = sources.Files({name: data}, good, b"")
        hostile: dict[str, bytes] = {}
        for i in range(min(HOSTILE, count - ends.total()) if kind.many else 1):
            way: Callable[..., bytes] = ALL_WAYS[rng.integers(len(ALL_WAYS))]
            hostile[f"{i}-{way.__name__}{kind.hostile}" if kind.many else kind.hostile] = way(rng, data, beside)
        found = ends_of(kind, {**kind.files, **hostile}, right[name], folder / "job")
        for file, end in found.items():
            if kind.many and file.startswith(GOOD) and end == "sample":
                continue
            ends[end] += 1
            if end not in ("sample", "rejected", "right", "refused"):
                print(f"{end}: seed {seed}, job {number} of {name}, file {file}")
        number += 1
    return ends
