"""Erases random samples with their words from splits with random dependents, and searches every file for them.

"gone": no file holds a key, a source, a piece of a member or a label that only they had, once what was named is deleted
or merged again; every split verifies. "missed": a file that was not named holds one. "wrong": a split that fails.
"""

from __future__ import annotations

import shlex
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess.curate import write_card
from maskstream.preprocess.versions import append, divide, erase, merge, remove, take_few
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.dataset import finish_split, is_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Reject, Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.stores.open import open_store

from ..preprocess.versions.small_splits import contents
from ..preprocess.versions.test_dependents import features, store_targets
from ..preprocess.versions.test_erasing import everything

ODD = ("", "Zoë ", "<b>&'", 'a "b" ', "\\u00e9", "|x| ", "-->", "日本")
PIECE = 48


class Case:
    """A split below a folder, with what lies beside it."""

    def __init__(self, rng: np.random.Generator, out: Path) -> None:
        self.rng, self.out = rng, out
        self.words: dict[str, list[str]] = {}
        self.train = self.split(out / "train", int(rng.integers(6, 14)))

    def split(self, folder: Path, n: int, names: list[str] | None = None) -> Path:
        """A split of n samples, whose words are kept by key."""
        rng = self.rng
        names = names or [f"{rng.choice(ODD)}{rng.bytes(6).hex()}" for _ in range(int(rng.integers(2, 6)))]
        folder.mkdir(parents=True)
        samples = []
        for _ in range(n):
            text, label = rng.bytes(100).hex(), int(rng.integers(len(names)))
            key, source = f"person-{rng.bytes(6).hex()}", f"{rng.choice(ODD)}source-{rng.bytes(6).hex()}.mp4"
            member = json_member({"text": text, "label": names[label]})
            samples.append(Sample(key=key, members={"json": member}, source=source, label=label))
            self.words[key] = [key, source, text[:PIECE], text[-PIECE:]]
        size = int(rng.integers(2, 6))
        records = [
            write_shard(folder / f"toy-{at // size:06d}.tar", samples[at : at + size]) for at in range(0, n, size)
        ]
        refused = [Reject(source="other", stage="open", reason=f"same as {samples[0].source}")]
        info = DatasetInfo(dataset="toy", split="train", modality="image", profile="p", label_names=tuple(names))
        finish_split(folder, info, records, refused)
        return folder

    def often(self) -> bool:
        """Whether something is there, of which each case has half."""
        return bool(self.rng.random() < 0.5)

    def surround(self) -> None:
        """Make random versions and dependents."""
        keys, names = self.keys(), Manifest.load(self.train).info["label_names"]
        if self.often():
            remove(self.train, [keys[0]])
        if self.often():
            append(self.train, self.split(self.out.parent / "more", 4, names))
        if self.often():
            divide(self.train, 0.3, out=self.out / "val", by="sample")
        if self.often():
            take_few(self.train, 2)
        if self.often():
            self.split(self.out / "test", 5, names)
        if self.often() and not is_split(open_store(self.out / "val")):
            merge(self.out / "both", [self.train, self.split(self.out / "theirs", 3, names)])
        for name in ("train", "val", "few-2", "test"):
            if is_split(open_store(self.out / name)):
                if self.often():
                    store_targets(self.out / name, self.out / f"{name}-targets")
                if self.often():
                    features(self.out / name, self.out / f"{name}.parquet")
                if self.often():
                    write_card(self.out / name)
        if self.often():
            write_card(self.out)
        if self.often():
            table = {"key": keys, "why": ["rule"] * len(keys), "of": keys[1:] + keys[:1]}
            pq.write_table(pa.table(table), self.out / "curated.parquet")
        if self.often():
            page = self.train if self.often() else self.out
            (page / "page.html").write_text("".join(f"<p>{key}</p>" for key in keys))
        if self.often():
            (self.train / ".measures").mkdir()
            (self.train / ".measures/x.parquet").write_text(str(keys))

    def keys(self) -> list[str]:
        """The keys of all samples of the split that are there."""
        manifest = Manifest.load(self.train, whole=True)
        return [manifest.key(i) for i in range(len(manifest)) if not manifest.is_removed(i)]

    def lone_labels(self, keys: set[str]) -> list[str]:
        """The labels that only these samples have, in any split."""
        found, others = set[str](), set[str]()
        for name in ("train", "test", "theirs"):
            if is_split(open_store(self.out / name)):
                manifest = Manifest.load(self.out / name, whole=True)
                names = manifest.info["label_names"]
                for i, label in enumerate(manifest.label.tolist()):
                    (found if manifest.key(i) in keys else others).add(names[label])
        return sorted(found - others)

    def end(self) -> str:
        """Erase some samples and see what is left."""
        self.surround()
        some = self.rng.permutation(self.keys())[: int(self.rng.integers(1, 4))].tolist()
        words = bool(self.rng.random() < 0.8)
        secrets = [word for key in some for word in self.words[key]]
        secrets += self.lone_labels({*some}) if words else []
        try:
            found = erase(self.train, some, words=words)
        except (MaskstreamError, ValueError) as error:
            return "refused" if "no samples besides these" in str(error) else f"foreign {error!r}"
        for line in found.named:
            if "`maskstream merge " in line:
                out, *splits = shlex.split(line.split("`maskstream merge ")[1].split("`")[0])
                merge(out, splits)
            elif " still names " in line:
                Path(line.split(" still names ")[0]).unlink()
        if left := holders(self.out, secrets):
            return f"missed {left}"
        for path in sorted(self.out.iterdir()):
            if is_split(open_store(path)) and not (report := verify(path)).ok:
                return f"wrong {path.name}: {report.problems[:2]}"
        return "gone"


def holders(folder: Path, words: list[str]) -> list[str]:
    """The files that hold one of some words, also compressed. All end in their own digits, which nothing escapes."""
    forms = {word.removesuffix(".mp4")[-12:].encode() for word in words}
    files = everything(contents(folder))
    return sorted(name for name, data in files.items() if any(form in data or form in name.encode() for form in forms))


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Erases samples from `count` splits."""
    ends: Counter[str] = Counter()
    for number in range(count):
        try:
            end = Case(np.random.default_rng([seed, number]), folder / str(number) / "out").end()
        except Exception:
            end = f"foreign {traceback.format_exc()}"
        ends[end.split()[0]] += 1
        if end.split()[0] not in ("gone", "refused"):
            print(f"erasures {number} of seed {seed}: {end}", flush=True)
    return ends
