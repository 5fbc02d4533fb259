"""Hostile names in lists, archives, tables and descriptions of splits: nothing outside is written, deleted or read.

A name climbs (`..`), is absolute, goes through links, or looks like one in an archive. A job of pictures or a command
on a split meets it, on a disk, in an archive or at a URL. Around the raw data and the output lie files that nobody may
touch: their bytes, inodes and times are compared after each attack, and those of folders. All are old before it, and a
file that is made, renamed or deleted makes its folder new, also if it is gone at the end; what is written, linked or
made readable has another time of change, which no program can set. So this sees what a watch of the folders would, but
for the folder of temporary files, where files may be made and deleted again.

"wrong": one of them changed, something was written beside the output or left in the folder for temporary files, or a
sample has a victim's pixels. "missed": a job finished, and a line of its list is neither a sample nor a reject.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess import make_shards
from maskstream.preprocess.job.verification import repair_split
from maskstream.preprocess.versions import append, erase, merge, remove
from maskstream.shards.checksummed import CHECKSUM, add_checksum, read_checksummed
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.local import LocalStore

from ..preprocess.raw_files import put, tar_of
from ..preprocess.versions.small_splits import written
from ..web_server import WebServer, serving
from .archives import HangError, limited

INSIDE, OUTSIDE = 16, 31
"""The width of pictures in the raw data, and of those that are outside."""
OLD_S = 1_000_000_000
SETTINGS: dict[str, Any] = {"workers": 0, "max_rejects": 1, "pauses_s": (), "samples_per_shard": 4, "as_is": True}


def picture(width: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (12, width, 3), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


@dataclass(frozen=True, slots=True)
class World:
    """The folders of an attack: the raw data, the output, and what lies around them."""

    folder: Path

    @property
    def raw(self) -> Path:
        return self.folder / "deep" / "raw"

    @property
    def out(self) -> Path:
        return self.folder / "deep" / "outputs" / "out"

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    @property
    def victims(self) -> list[Path]:
        home, beside = self.folder / "home", self.folder / "deep"
        return [
            *(home / "thesis.png", home / "deep" / "mail.png", beside / "victim.png", beside / "outputs" / "other.png"),
            self.temporary / "maskstream-raw-mine" / "files" / "notes.png",
        ]

    def build(self) -> None:
        """Make the victims and empty folders."""
        for number, path in enumerate(self.victims):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(OUTSIDE, number))
        for folder in (self.raw, self.out):
            folder.mkdir(parents=True)

    def age(self, seconds: int = OLD_S) -> None:
        """Make all files and folders but those of the output as old as `seconds` after 1970; a time of its own for each
        attack, since lists of archives are known by path, size and time.
        """
        for parent, folders, files in os.walk(self.folder, topdown=False):
            if not Path(parent).is_relative_to(self.out):
                for path in (*(Path(parent, name) for name in (*folders, *files)), Path(parent)):
                    os.utime(path, (seconds, seconds), follow_symlinks=False)

    def seen(self) -> dict[str, tuple[int, ...] | bytes]:
        """What there is but for the output and the cache, with bytes, inodes and times."""
        found: dict[str, tuple[int, ...] | bytes] = {}
        for parent, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if Path(parent, name) not in (self.out, self.folder / "cache")]
            for name in (*folders, *files):
                path = Path(parent, name)
                facts = path.lstat()
                facts_of_it = (facts.st_ino, facts.st_mode, facts.st_uid, facts.st_gid)
                times = () if path == self.temporary else (facts.st_nlink, facts.st_mtime_ns, facts.st_ctime_ns)
                found[str(path)] = facts_of_it + times
                if path.is_file() and not path.is_symlink():
                    found[f"{path} bytes"] = path.read_bytes()
        return found


def name_of(rng: np.random.Generator, world: World, base: Path) -> str:
    """A hostile name, as seen from a folder; many lead to a victim."""
    victim = world.victims[rng.integers(len(world.victims))]
    up = "../" * int(rng.choice([1, 2, 3, 30]))
    parts = [
        os.path.relpath(victim, base),
        str(victim),
        up + str(victim)[1:],
        f"./{up}{victim.name}",
        f"x/../{os.path.relpath(victim, base)}",
        f"out/{victim.name}",
        f"far/{victim.relative_to(world.folder)}",
        f"x.parquet!/{'../' * 30}{str(victim)[1:]}",
        f"b.tar!/{'../' * 30}{str(victim)[1:]}",
        f"b.tar!/{os.path.relpath(victim, base)}",
        f"b.tar!/../../{victim.name}",
        f"b.tar!/good.png/../{os.path.relpath(victim, base)}",
        f"good.png/{os.path.relpath(victim, base)}",
        f"file://{victim}",
        f"~/{victim.name}",
        f"..\\..\\{victim.name}",
        f"%2e%2e/{victim.name}",
        f"{victim}\n",
        f"{os.path.relpath(victim, base)}/",
        f"{os.path.relpath(victim, base)}\0.png",
        "x" * 300 + ".png",
        *("..", ".", "/", "", "good.png/..", "/dev/zero", "/proc/self/environ"),
    ]
    return parts[rng.integers(len(parts))]


def row_of(name: str) -> str:
    quoted = name.replace('"', '""')
    return f'"{quoted}",x\n'


Work = tuple[Callable[[], object], int | None]
"""What meets hostile names, and how many lines their list has, if there is one."""
Attempt = Callable[[np.random.Generator, World, WebServer], Work]


def lines(rng: np.random.Generator, world: World) -> tuple[str, int]:
    """A list of a good picture and hostile names, one in four among thousands of names of files that are not there."""
    names = sorted({name_of(rng, world, world.raw) for _ in range(int(rng.integers(1, 4)))})
    if rng.random() < 0.25:
        plain = [f"c{n % 7}/{n}.png" for n in range(int(rng.integers(1000, 5000)))]
        names = [*plain, *names]
        rng.shuffle(names)
    return "path,label\n" + "".join(map(row_of, ["good.png", *names])), 1 + len(names)


def links(rng: np.random.Generator, world: World) -> None:
    """Links that lead out, and a file with the name of an archive."""
    if rng.random() < 0.5:
        (world.raw / "out").symlink_to(world.folder / "home")
    if rng.random() < 0.5:
        (world.raw / "far").symlink_to(world.folder)


def plain_list(rng: np.random.Generator, world: World, server: WebServer) -> Work:
    (world.raw / "good.png").write_bytes(picture(INSIDE, 0))
    links(rng, world)
    text, count = lines(rng, world)
    (world.raw / "list.csv").write_text(text)
    return partial(make_shards, "image-folder", world.raw, world.out, **SETTINGS), count


def list_in_archive(rng: np.random.Generator, world: World, server: WebServer) -> Work:
    text, count = lines(rng, world)
    good = picture(INSIDE, 0)
    members = {"good.png": good, "list.csv": text.encode()}
    if rng.random() < 0.5:
        members |= {"x.parquet!/q.png": good, "b.tar!/q.png": good}
    if rng.random() < 0.5:
        put(world.raw / "b.tar", tar_of({"other.png": good}))
    if rng.random() < 0.3:
        links(rng, world)
    put(world.raw / "a.tar", tar_of(members))
    return partial(make_shards, "image-folder", world.raw, world.out, **SETTINGS), count


def archive_names(rng: np.random.Generator, world: World, server: WebServer) -> Work:
    name, good = name_of(rng, world, world.raw), picture(INSIDE, 0)
    if rng.random() < 0.5:
        put(world.raw / "a.tar", tar_of({"c/good.png": good, name or "x": good}))
    else:
        with zipfile.ZipFile(world.raw / "a.zip", "w") as packed:
            for one in ("c/good.png", name or "x"):
                packed.writestr(one, good)
    return partial(make_shards, "image-folder", world.raw, world.out, **SETTINGS), None


def list_at_url(rng: np.random.Generator, world: World, server: WebServer) -> Work:
    (world.raw / "good.png").write_bytes(picture(INSIDE, 0))
    text, count = lines(rng, world)
    (world.raw / "list.csv").write_text(text)
    more = name_of(rng, world, world.raw) if rng.random() < 0.3 else ""
    (world.raw / "files.txt").write_text(f"good.png\nlist.csv\n{more}\n".replace("\0", "0"))
    server.folder = world.raw
    return partial(make_shards, "image-folder", server.url, world.out, **SETTINGS), count


def refs(rng: np.random.Generator, world: World, server: WebServer) -> Work:
    """Names of files and of splits in COCO's lists."""
    (world.raw / "train2014").mkdir()
    (world.raw / "train2014" / "good.jpg").write_bytes(picture(INSIDE, 0))
    hostile = name_of(rng, world, world.raw / "train2014")
    split = name_of(rng, world, world.out) if rng.random() < 0.5 else "train"
    images = [{"id": 1, "file_name": "good.jpg"}, {"id": 2, "file_name": hostile if split == "train" else "good.jpg"}]
    shapes = [{"id": n, "bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 5, 1, 5, 5]]} for n in (1, 2)]
    listed = {"images": images, "annotations": shapes, "categories": [{"id": 1, "name": "x"}]}
    (world.raw / "instances.json").write_text(json.dumps(listed))
    ref = {"category_id": 1, "split": split, "sentences": [{"sent": "the dog"}]}
    found = [{"ref_id": n, "ann_id": n, "image_id": n, **ref} for n in (1, 2)]
    (world.raw / "refs.json").write_text(json.dumps(found))
    return partial(make_shards, "refcoco", world.raw, world.out, **SETTINGS), None


def table(rng: np.random.Generator, world: World, server: WebServer) -> Work:
    """Paths, labels and names of columns in Parquet."""
    good, hostile = picture(INSIDE, 0), name_of(rng, world, world.raw)
    column = name_of(rng, world, world.raw) if rng.random() < 0.5 else "note"
    rows = {"image": [{"bytes": good, "path": "good.png"}, {"bytes": None, "path": hostile}], "label": ["x", hostile]}
    pq.write_table(pa.table(rows | {column: [hostile, hostile]}), world.raw / "train-0.parquet")
    return partial(make_shards, "parquet-image", world.raw, world.out, **SETTINGS), 2


def description(rng: np.random.Generator, world: World, server: WebServer) -> Work:
    """Names in the description of a split, with right checksums, and the commands on it."""
    ours, theirs = written(world.out / "a", 0), written(world.out / "b", 100)
    hostile = name_of(rng, world, ours)
    info = read_checksummed((ours / "dataset.json").read_bytes())
    info.pop(CHECKSUM, None)
    info = forged(rng, info, hostile)
    for name in ("dataset.json", "versions/1.json"):
        (ours / name).write_bytes(add_checksum(info))
    commands: list[Callable[[], object]] = [
        lambda: append(ours, theirs),
        lambda: append(theirs, ours),
        lambda: remove(ours, ["k1"]),
        lambda: erase(ours, ["k1"]),
        lambda: merge(world.out / "both", [ours, theirs]),
        lambda: repair_split(ours),
        lambda: verify(ours),
    ]
    return commands[rng.integers(len(commands))], None


def forged(rng: np.random.Generator, info: dict[str, Any], hostile: str) -> dict[str, Any]:
    """The description with a hostile name in one of its places."""
    which = rng.integers(6)
    if which < 3:
        return info | {("dataset", "split", "rejects")[which]: hostile}
    if which == 3:
        part = info["parts"][0]
        files = info["files"] | {hostile: info["files"][part["name"]]}
        return info | {"parts": [part | {"name": hostile}], "files": files}
    if which == 4:
        return info | {"removed": hostile, "files": info["files"] | {hostile: info["files"][info["rejects"]]}}
    return info | {"label_names": [hostile, "y"]}


ATTEMPTS: tuple[Attempt, ...] = (
    *(plain_list, plain_list, list_in_archive, list_in_archive, archive_names, list_at_url, refs, table),
    *(description, description),
)


def lost(world: World, count: int) -> str:
    """What is wrong with a split that was finished: "missed", "wrong", or ""."""
    manifest = Manifest.load(world.out / "train")
    rejects = read_rejects(LocalStore(world.out / "train"), manifest.info)
    if len({*manifest.sources().to_pylist(), *(reject.source for reject in rejects)}) != count:
        return "missed"
    return ""


def has_victim(out: Path) -> bool:
    """Whether a picture of a victim's width is in a tar of the output."""
    for path in out.rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".png") and (stream := tar.extractfile(member)) is not None:
                    pixels = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_COLOR)
                    if pixels is not None and pixels.shape[1] == OUTSIDE:
                        return True
    return False


@contextmanager
def temporary_files(folder: Path) -> Iterator[None]:
    """Temporary files and the cache are in the folder for the block."""
    before = {name: os.environ.get(name) for name in ("TMPDIR", "MASKSTREAM_CACHE")}
    os.environ |= {"TMPDIR": str(folder / "temporary"), "MASKSTREAM_CACHE": str(folder / "cache")}
    tempfile.tempdir = None
    try:
        yield
    finally:
        tempfile.tempdir = None
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def end_of(work: Work, world: World) -> str:
    """How an attempt ends, but for what it did to others."""
    run, count = work
    try:
        with limited():
            run()
    except MaskstreamError:
        return "refused"
    except HangError:
        return "hang"
    except Exception:
        traceback.print_exc()
        return "foreign"
    return (lost(world, count) if count is not None else "") or "finished"


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Attacks with `count` hostile names."""
    ends: Counter[str] = Counter()
    (folder / "served").mkdir()
    with serving(folder / "served") as server:
        for number in range(count):
            rng, world = np.random.default_rng((seed, number)), World(folder / "world")
            attempt = ATTEMPTS[rng.integers(len(ATTEMPTS))]
            world.build()
            work = attempt(rng, world, server)
            world.age(OLD_S + number)
            before = world.seen()
            with temporary_files(world.folder):
                end = end_of(work, world)
            after = world.seen()
            if changed := [name for name in before.keys() | after if before.get(name) != after.get(name)]:
                print(f"changed: {', '.join(sorted(changed)[:5])}")
                end = "wrong"
            elif has_victim(world.out):
                end = "wrong"
            ends[end] += 1
            if end not in ("refused", "finished"):
                print(f"{end}: seed {seed}, number {number}, {attempt.__name__}")
            shutil.rmtree(world.folder)
    return ends
