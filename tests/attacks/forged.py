"""Forged splits through the loader, verify and inspect: right samples, a replaced sample or a refusal.

    python -m tests.attacks forged -n 700 --seed 0
    python -m tests.attacks.forged mesh 17 18 0 FOLDER    # forgery 17 of the simulations of seed 0, in an empty folder

The forgeries of a modality are read in a child process with little memory and a limit of time, which tells a signal and
a hang. "right": all samples are as before, though something is forged. "replaced": a sample is unusable (SampleError).
"refused": the split is (ShardError). An unchanged sample that differs is "wrong", memory beyond 4 times the largest
member and a constant is "foreign", as is an exception that is not a MaskstreamError.
"""

from __future__ import annotations

import logging
import queue
import resource
import shutil
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from .where import HERE, Where

ROOM_BYTES = 3 << 30
"""The address space that a child may add after its imports."""
GROWTH_BYTES = 160 << 20
"""The memory that decoders and caches may take besides 4 times a member."""
LIMIT_S, START_S = 120.0, 600.0
"""Seconds for one forgery, and for a child to be ready."""
GOOD = ("right", "replaced", "refused")


def attack(count: int, seed: int, folder: Path, where: Where = HERE, names: tuple[str, ...] = ()) -> Counter[str]:
    """Reads `count` forgeries, shared among the modalities; returns how each ended."""
    from .forge import FORGED

    ends: Counter[str] = Counter()
    chosen = names or tuple(FORGED)
    folder = where.root / "forged" if where.store == "http" else folder
    for n, name in enumerate(chosen):
        own = count // len(chosen) + (n < count % len(chosen))
        ends += _in_children(name, own, seed, folder / name, where)
    return ends


def _in_children(name: str, count: int, seed: int, folder: Path, where: Where) -> Counter[str]:
    """The ends of the forgeries of one modality; a child that dies is followed by another one."""
    ends: Counter[str] = Counter()
    while (number := ends.total()) < count:
        said, code = _one_child(name, number, count, seed, folder, where)
        if not said:
            raise RuntimeError(f"the child of {name} ended with {code} before it was ready")
        if said[-1] != "hang" and number + len(said) - 1 < count:
            said.append(f"signal exit code {code}")
        for n, line in enumerate(said[1:]):
            end = line.partition(" ")[0]
            ends[end] += 1
            if end not in GOOD:
                print(f"{name} {number + n} of seed {seed}: {line}", flush=True)
    return ends


def _one_child(name: str, first: int, stop: int, seed: int, folder: Path, where: Where) -> tuple[list[str], int]:
    """What a child says of the forgeries [first, stop), after the line that it is ready, and its exit code.

    It may die before the last one. One that is silent for too long is killed, and its last line is "hang".
    """
    folder.mkdir(parents=True)
    words = [name, str(first), str(stop), str(seed), str(folder), where.store, where.url, str(where.root)]
    child = subprocess.Popen([sys.executable, "-m", "tests.attacks.forged", *words], stdout=subprocess.PIPE, text=True)
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_forward, args=(child, lines), daemon=True)
    reader.start()
    said: list[str] = []
    try:
        while (line := lines.get(timeout=LIMIT_S if said else START_S)) is not None:
            said.append(line)
    except queue.Empty:
        said += ["hang"] if said else []
    finally:
        child.kill()
        reader.join()
        shutil.rmtree(folder, ignore_errors=True)
    return said, child.wait()


def _forward(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    if child.stdout is not None:
        with child.stdout:
            for line in child.stdout:
                lines.put(line.strip())
    lines.put(None)


def _child(name: str, first: int, stop: int, seed: int, folder: Path, where: Where) -> None:
    """Writes and reads the forgeries [first, stop), and prints how each ended."""
    from .forge import Forger, few_samples

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    raw = folder / "raw"
    raw.mkdir()
    samples = few_samples(name, raw)
    plain = folder / "plain"
    reference = _reference(name, samples, plain)
    _limit()
    print("ready", flush=True)
    for number in range(first, stop):
        split = folder / f"split-{number}"
        split.mkdir()
        forger = Forger(name=name, samples=samples, seed=seed, number=number)
        try:
            forged = forger.write(split)
        except Exception as error:  # the writer refuses what no manifest can hold
            print(f"refused {type(error).__name__} while it was written", flush=True)
        else:
            before = _memory(reset=True)
            end = _end(name, where.copied(split), forged, reference)
            grown = _memory() - before
            if grown > GROWTH_BYTES + 4 * forged.largest and end.split()[0] != "foreign":
                end = f"foreign memory grew by {grown >> 20} MiB, the largest member has {forged.largest} bytes"
            print(f"{end} ({'; '.join(forged.changes)})".encode("ascii", "backslashreplace").decode(), flush=True)
        shutil.rmtree(split)


def _reference(name: str, samples: list[Any], folder: Path) -> dict[str, list[Any]]:
    """The rows of all samples of the split that is not forged."""
    from maskstream.shards.format.verify import verify

    from .forge import write_forged

    folder.mkdir()
    write_forged(name, samples, folder)
    report = verify(folder, decode=True)
    assert report.ok, report.problems
    rows, replaced = _rows(name, folder)
    assert not replaced
    list(_loader(name, folder))
    return rows


def _limit() -> None:
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, used + ROOM_BYTES))


def _memory(*, reset: bool = False) -> int:
    """The most resident memory since the last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def _loader(name: str, location: str | Path) -> Any:
    from .forge import FORGED

    return FORGED[name].loader(location, batch_size=4, shuffle=False, max_bad_fraction=1.0, device="cpu", threads=1)


def _rows(name: str, location: str | Path) -> tuple[dict[str, list[Any]], int]:
    """The comparable values of each usable sample by its key, and the number of unusable ones."""
    from maskstream.pipelines.modalities.split import Split
    from maskstream.pipelines.stream.produce import batch_of
    from maskstream.pipelines.stream.sampler import Wanted
    from maskstream.shards.errors import SampleError

    from .forge import FORGED, modality_of

    split = Split.open(location, modality_of(name), shuffle=False, device="cpu", threads=1)
    source = FORGED[name].source(split)
    rows: dict[str, list[Any]] = {}
    bad = 0
    for index in range(len(split.manifest)):
        try:
            batch = batch_of(source.sampler, Wanted.of([index]))
        except SampleError:
            bad += 1
        else:
            rows[batch.key[0]] = _contents(batch)
    return rows, bad


def _contents(value: Any) -> list[Any]:
    """All that a batch holds, as values that can be compared."""
    if isinstance(value, torch.Tensor):
        return [tuple(value.shape), value.numpy().tobytes()]
    if is_dataclass(value):
        return [(f.name, _contents(getattr(value, f.name))) for f in fields(value)]
    return [repr(value)]


def _end(name: str, location: str, forged: Any, reference: dict[str, list[Any]]) -> str:
    """How reading a forged split ended, and what was said."""
    from maskstream.shards.errors import MaskstreamError
    from maskstream.shards.format.inspect import inspect
    from maskstream.shards.format.verify import verify

    refused, bad, wrong = 0, 0, set[str]()
    steps = {
        "inspect": lambda: inspect(location),
        "verify": lambda: verify(location, decode=True),
        "samples": lambda: _rows(name, location),
        "loader": lambda: list(_loader(name, location)),
    }
    for step, work in steps.items():
        begun = time.monotonic()
        try:
            found = work()
        except MaskstreamError:
            refused += 1
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(str(error).split())[:150]
            return f"foreign {step}: {type(error).__name__}: {said} at {frame.filename}:{frame.lineno}"
        else:
            if step == "samples":
                rows, bad = found
                wrong = {key for key in forged.unchanged & rows.keys() if rows[key] != reference[key]}
                wrong |= forged.unchanged - rows.keys()
        if (took := time.monotonic() - begun) > LIMIT_S / 2:
            return f"hang {step} took {took:.0f} s"
    if wrong:
        return f"wrong {sorted(wrong)}"
    return "refused" if refused else "replaced" if bad else "right"


if __name__ == "__main__":
    name, first, stop, seed, folder, *place = sys.argv[1:]
    store, url, root = place or ("local", "", "/")
    _child(name, int(first), int(stop), int(seed), Path(folder), Where(store, url, Path(root)))
