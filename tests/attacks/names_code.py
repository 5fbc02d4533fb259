"""Names of modules in what is read from data: in every text and key of dataset.json, its versions and the manifests.

    python -m tests.attacks names-code -n 2000 --seed 0

Each attack puts `module:X` or `module` into one to three places of a split of a random modality, and makes every
checksum right again. It is then opened by `verify`, `inspect`, a loader, `append` and `remove`. The module writes a
file when it is imported. "right": nothing was noticed. "refused": a MaskstreamError, or a problem of `verify`. "wrong":
the module was imported. "foreign": an exception that is not a MaskstreamError.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess.versions import append, remove
from maskstream.shards.checksummed import CHECKSUM, add_checksum
from maskstream.shards.errors import DatasetError, MaskstreamError
from maskstream.shards.format.dataset import DATASET_JSON, name_version
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from ..pipelines.every_modality import MODALITIES, write_split
from ..with_new_checksum import renew_checksum

MODULE = "planted_by_an_attack"
Place = tuple[str | int, ...]


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Opens `count` splits with planted names; returns how many ended in which way."""
    (folder / "code").mkdir()
    trace = folder / "imported"
    (folder / "code" / f"{MODULE}.py").write_text(f"open({str(trace)!r}, 'w').close()\nX = dict\n")
    wholes = [write_split(name, folder / name) for name in MODALITIES]
    sys.path.insert(0, str(folder / "code"))
    ends: Counter[str] = Counter()
    try:
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            name = list(MODALITIES)[number % len(MODALITIES)]
            split = folder / "split"
            shutil.copytree(wholes[number % len(wholes)], split)
            planted = _plant(split, rng)
            end = _end(name, split, rng)
            if trace.exists() or MODULE in sys.modules:
                trace.unlink(missing_ok=True)
                sys.modules.pop(MODULE, None)
                end = "wrong"
            if end not in ("right", "refused"):
                print(f"{end}: seed {seed}, number {number}, {name}: {', '.join(planted)}")
            ends[end.partition(" ")[0]] += 1
            shutil.rmtree(split)
    finally:
        sys.path.remove(str(folder / "code"))
    return ends


def _plant(split: Path, rng: np.random.Generator) -> list[str]:
    """Puts names into dataset.json or a part of the manifest; says where."""
    word = str(rng.choice([f"{MODULE}:X", f"{MODULE}:X.y", MODULE, f"!!python/name:{MODULE}.X"]))
    planted: list[str] = []
    if rng.random() < 0.3:
        part = split / "manifest-000000.parquet"
        part.write_bytes(_forged_part(part.read_bytes(), word, rng, planted))
        renew_checksum(split)
    if not planted or rng.random() < 0.5:
        info = json.loads((split / DATASET_JSON).read_bytes())
        del info[CHECKSUM]
        info["settings"].setdefault("encoder", {"kind": "x"})
        for _ in range(int(rng.integers(1, 3))):
            _change(info, word, rng, planted)
        for name in (DATASET_JSON, name_version(1)):
            (split / name).write_bytes(add_checksum(info))
    return planted


def _forged_part(data: bytes, word: str, rng: np.random.Generator, planted: list[str]) -> bytes:
    """A part of the manifest with the word in its metadata, or in a column of words."""
    table = pq.read_table(io.BytesIO(data))
    kinds = (pa.string(), pa.dictionary(pa.int32(), pa.string()))
    texts = [i for i, kind in enumerate(table.schema.types) if kind in kinds]
    if texts and rng.random() < 0.5:
        at = int(rng.choice(texts))
        planted.append(f"column {table.schema.names[at]}")
        column = pa.array([word] * len(table), pa.string()).cast(table.schema.types[at])
        table = table.set_column(at, table.schema.field(at), column)
    else:
        metadata = dict(table.schema.metadata or {})
        name = sorted(metadata)[rng.integers(len(metadata))]
        try:
            value = json.loads(metadata[name])
        except ValueError:
            value = None
        if isinstance(value, dict | list) and value:
            _change(value, word, rng, planted)
            metadata[name] = json.dumps(value).encode()
        else:
            metadata[name] = word.encode()
        planted.append(f"metadata {name!r}")
        table = table.replace_schema_metadata(metadata)
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _change(value: Any, word: str, rng: np.random.Generator, planted: list[str]) -> None:
    """Puts the word in the place of a text, of the kind of an object, or of a key; mostly of settings and names."""
    places = [place for place in _places(value) if place[0] not in ("format", "files", "parts") or rng.random() < 0.1]
    kinds = [place for place in places if place[-1] == "kind"]
    among = kinds if kinds and rng.random() < 0.4 else places
    place = among[rng.integers(len(among))] if among else (next(iter(value)) if isinstance(value, dict) else 0,)
    at = value
    for step in place[:-1]:
        at = at[step]
    if isinstance(at[place[-1]], dict):
        at[place[-1]]["kind"] = word
    elif isinstance(at, dict) and rng.random() < 0.1:
        at[word] = at.pop(place[-1])
    else:
        at[place[-1]] = word
    planted.append(".".join(map(str, place)))


def _places(value: Any) -> Iterator[Place]:
    """The places of all texts and objects in a JSON value."""
    for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, str | dict):
            yield (step,)
        if isinstance(inner, dict | list):
            for rest in _places(inner):
                yield (step, *rest)


def _end(name: str, split: Path, rng: np.random.Generator) -> str:
    """What comes of a split that is opened in every way."""
    other = split.with_name("other")

    def added() -> None:
        shutil.copytree(split, other)
        with suppress(MaskstreamError):  # its keys are those of the other one, if nothing else refuses it
            append(other, split)
        shutil.rmtree(other)

    def removed() -> None:
        manifest = Manifest.load(split)
        remove(split, [manifest.key(0)])

    def loaded() -> None:
        try:
            loader = MODALITIES[name].loader(split, batch_size=2, device="cpu", threads=1, max_bad_fraction=1.0)
        except ValueError as error:  # as for a split that has no such component
            raise DatasetError(str(error)) from error
        next(iter(loader))

    steps: list[Callable[[], Any]] = [lambda: inspect(split), loaded, added, removed]
    end = "right" if verify(split).ok else "refused"
    for step in steps:
        try:
            step()
        except MaskstreamError:
            end = "refused"
        except StopIteration:
            pass
        except Exception as error:
            return f"foreign {error!r:.300}"
    return end
