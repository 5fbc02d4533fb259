"""Gives the samples of a split other keys, so that it fits the split that it is a copy of."""

from __future__ import annotations

import shutil
from pathlib import Path

from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard


def with_other_keys(split: Path, begin: str = "Z") -> None:
    """Write the split again: each key begins with a Z, or what is given, instead of its first character."""
    manifest, groups = Manifest.load(split), dict[str, list[Sample]]()
    for i, source in enumerate(manifest.sources().to_pylist()):
        there = {name: component for name, component in manifest.components.items() if component.offset[i]}
        members = {
            name: component.described(i, manifest.store.read(*manifest.member(i, name)))
            for name, component in there.items()
        }
        sample = Sample(key=begin + manifest.key(i)[1:], members=members, source=source, label=int(manifest.label[i]))
        groups.setdefault(manifest.shard_name(i), []).append(sample)
    for path in split.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    info = manifest.info
    described = {name: info[name] for name in ("dataset", "split", "modality", "profile", "settings")}
    about = DatasetInfo(**described, label_names=tuple(info["label_names"]))
    finish_split(split, about, [write_shard(split / name, some) for name, some in groups.items()], [])
