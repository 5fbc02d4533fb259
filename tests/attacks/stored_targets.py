"""Stored targets of a frozen teacher, features and token ids, whose files are damaged, forged or of another teacher.

    python -m tests.attacks stored-targets -n 200 --seed 0

A loader of two epochs must show each sample's own targets ("right"), another sample in its place ("replaced"), or be
"refused" with the folder's name; `verify` must find each change. "wrong" are targets of another sample or teacher,
"missed" is a change that `verify` does not find. Checksums that a file has of itself fit.
"""

from __future__ import annotations

import json
import shutil
import traceback
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.targets import TARGETS
from maskstream.shards.checksummed import CHECKSUM, add_checksum
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.verify import verify
from maskstream.train.nn.masked_autoencoder import ImageAutoencoderConfig
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.papers.vq.model import ImageVQConfig

from ..pipelines.every_modality import write_split
from ..train.test_write_targets import LOADING, taught, written
from .kept_files import damaged
from .side_files import changed_json, changed_table

DATA = ImageData(size=32, patch=8, augment=RandomResizedCrop())
CYCLE = 2
TEACHERS = {
    "ids": ImageVQConfig(quantiser=QuantiserConfig(levels=(4, 4), stem=4, widths=(8, 8), rounds=1)),
    "features": ImageAutoencoderConfig(width=24, depth=1, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=2),
}
VALUES: dict[str, tuple[object, ...]] = {
    "dtype": ("<f4", "<f2", "<i4", ">i4", "O", 5),
    "cycle": (1, 2, 3, 4, 10**12, "2", -1),
    "shape": ([2, 16], [1, 16], [1, 16, 24], [1, 24, 16], [2, 8, 24], [1, 8, 48], [10**9, 10**9, 10**9], [], "x"),
    "weights": ("", "0" * 32, 7),
    "fingerprint": ("", "0" * 32, []),
    "version": (0, 2, 10**30, "1"),
    "geometry": ({}, {"size": 64}, {"data": {}}, [], "x"),
}

Shown = dict[tuple[str, int], bytes]


def shown(split: Path, folder: Path) -> Shown:
    """The targets of each sample in each of its clips, as a loader shows them."""
    found: Shown = {}
    data, options = replace(DATA, targets=str(folder)), {**LOADING, "batch_size": 1, "max_bad_fraction": 1.0}
    with closing(data.loader(split, seed=0, **options)) as loader:
        for epoch in range(CYCLE):
            for batch in loader:
                rows = batch.fields[TARGETS].numpy()
                found |= {(key, epoch): row.tobytes() for key, row in zip(batch.key, rows, strict=True)}
    return found


def forge_facts(folder: Path, rng: np.random.Generator) -> None:
    """Change what both descriptions say of the targets; their checksums fit, and they agree."""
    fields = json.loads((folder / "dataset.json").read_bytes())
    fields.pop(CHECKSUM)
    for _ in range(int(rng.integers(1, 3))):
        name = str(rng.choice(list(VALUES)))
        fields["settings"][TARGETS][name] = VALUES[name][int(rng.integers(len(VALUES[name])))]
    for path in (folder / "dataset.json", folder / "versions/1.json"):
        path.write_bytes(add_checksum(fields))


def change(folder: Path, other: Path, rng: np.random.Generator) -> str:
    """Change one or a few files, and return which, and how."""
    kind = str(rng.choice(["facts", "forged", "damaged", "swapped", "tar swapped", "gone"]))
    if kind == "facts":
        forge_facts(folder, rng)
        return kind
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files = [path for path in files if not path.parts[0].startswith(".")]
    if kind == "forged":
        files = [path for path in files if path.suffix in (".json", ".parquet")]
    name = files[int(rng.integers(len(files)))]
    path = folder / name
    if kind == "forged":
        forge = changed_table if path.suffix == ".parquet" else changed_json
        path.write_bytes(forge(path.read_bytes(), rng))
    elif kind == "damaged":
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif kind == "swapped":
        shutil.copy(other / name, path)
    elif kind == "tar swapped":
        name = Path(str(rng.choice([one.name for one in files if one.suffix == ".tar"])))
        for one in other.glob(f"{name.stem}.*"):
            shutil.copy(one, folder)
    else:
        path.unlink()
    return f"{kind} {name}"


def end_of(split: Path, folder: Path, changed: bool, by_facts: bool, truth: Shown) -> str:
    """What a loader shows of changed targets, and whether `verify` finds the change."""
    try:
        found = shown(split, folder)
    except (MaskstreamError, ValueError) as error:
        end = "refused" if folder.name in str(error) else f"foreign {error!r}"
    else:
        if wrong := [key for key, data in found.items() if truth[key] != data]:
            return f"wrong {wrong}"
        end = "right" if found.keys() == truth.keys() else "replaced"
    if changed and not by_facts and verify(folder).ok:  # facts that agree may be those of another job
        return f"missed, {end}"
    return end


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Changes `count` folders of targets, one at a time."""
    split, ends = write_split("image", folder / "data"), Counter[str]()
    truth: dict[str, Shown] = {}
    for name, model in TEACHERS.items():
        for number in range(2):
            weights = taught(folder, DATA, model, seed=number)
            written(weights, split, folder / f"{name}-{number}", DATA, cycle=CYCLE)
        truth[name] = shown(split, folder / f"{name}-0")
    for number in range(count):
        rng, changed = np.random.default_rng([seed, number]), folder / "changed-targets"
        name = str(rng.choice(list(TEACHERS)))
        shutil.copytree(folder / f"{name}-0", changed)
        before = {path: path.read_bytes() for path in changed.rglob("*") if path.is_file()}
        how = change(changed, folder / f"{name}-1", rng)
        after = {path: path.read_bytes() for path in changed.rglob("*") if path.is_file()}
        try:
            end = end_of(split, changed, after != before, how == "facts", truth[name])
        except Exception:
            end = f"foreign {traceback.format_exc()}"
        shutil.rmtree(changed)
        word = end.split()[0].rstrip(",")
        ends[word] += 1
        if word not in ("right", "replaced", "refused"):
            print(f"stored-targets {number} of seed {seed}: {name}, {how}: {end}", flush=True)
    return ends
