"""Damages the files of a stopped training at random: it must go on exactly, or be refused.

Each attack damages one file, or two, of a run that died in step 11 and has checkpoints after steps 4 and 8. "exact":
the resumed run has the metrics and weights of an undisturbed one. "refused": ResumeError, and no file has changed.
Anything else is "wrong" (another run, nothing said) or "foreign" (another exception). run.json and metrics.jsonl are
not both taken away: that asks for metrics that begin after the checkpoint.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from maskstream.shards.errors import ResumeError
from maskstream.train import Trainer, load_model, read_metrics

from ..train.synthetic import SyntheticLoader, small_recipe

STEPS, SAVE_EVERY, DIES_AFTER = 12, 4, 10


def train(out: Path, dies_after: int | None = None) -> None:
    """Trains in a folder, from what is there."""
    loader = SyntheticLoader(batches=5, size=2)

    def crash(made: int) -> None:
        if made == dies_after:
            raise RuntimeError("the machine is gone")

    loader.before_batch = crash
    Trainer(small_recipe(), loader, out, steps=STEPS, save_every=SAVE_EVERY, progress=False).run()


def outcome(out: Path) -> tuple[object, ...]:
    """All of a run but how long its steps took."""
    rows = [(m.step, m.epoch, m.loss, m.parts, m.lr, m.grad_norm) for m in read_metrics(out / "metrics.jsonl")]
    weights = load_model(out / "model.safetensors").state_dict()
    return rows, {name: w.numpy().tobytes() for name, w in weights.items()}


def flip(rng: np.random.Generator, path: Path, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    for at in rng.integers(len(data) * 8, size=bits) if data else ():
        data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)


def cut(rng: np.random.Generator, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.integers(len(data) + 1)])


def zeros(rng: np.random.Generator, path: Path) -> None:
    """A range becomes zeros, as after a power failure."""
    data = bytearray(path.read_bytes())
    begin, end = sorted(rng.integers(len(data) + 1, size=2))
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)


def add(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(path.read_bytes() + (bytes(100) if rng.random() < 0.5 else rng.bytes(100)))


def noise(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(rng.bytes(int(rng.integers(1000))))


def remove(rng: np.random.Generator, path: Path) -> None:
    path.unlink()


def digit(rng: np.random.Generator, path: Path) -> None:
    """A digit becomes another one."""
    data = bytearray(path.read_bytes())
    digits = [at for at, byte in enumerate(data) if chr(byte).isdigit()]
    if digits:
        data[digits[rng.integers(len(digits))]] = ord("0") + int(rng.integers(10))
    path.write_bytes(data)


def swap(rng: np.random.Generator, path: Path) -> None:
    """A checkpoint gets a file of the other one."""
    others = [other for other in path.parent.parent.glob(f"*/{path.name}") if other != path]
    if others:
        shutil.copy(others[0], path)


def line(rng: np.random.Generator, path: Path) -> None:
    """A line is gone, or is there twice."""
    lines = path.read_bytes().splitlines(keepends=True)
    at = int(rng.integers(max(len(lines), 1)))
    path.write_bytes(b"".join([*lines[:at], *(lines[at : at + 1] * 2 if rng.random() < 0.5 else []), *lines[at + 1 :]]))


WAYS: list[Callable[[np.random.Generator, Path], None]] = [
    *(flip, partial(flip, bits=40), cut, zeros, add, noise, remove, digit, swap, line),
]


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Does `count` attacks below `folder`; returns how many ended in which way."""
    train(folder / "whole")
    wanted = outcome(folder / "whole")
    with suppress(RuntimeError):
        train(folder / "stopped", dies_after=DIES_AFTER)
    ends: Counter[str] = Counter()
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        out = shutil.copytree(folder / "stopped", folder / "run")
        done = []
        for _ in range(1 + (rng.random() < 0.3)):
            files = sorted(path for path in out.rglob("*") if path.is_file())
            path, way = files[rng.integers(len(files))], WAYS[rng.integers(len(WAYS))]
            way(rng, path)
            if not any((out / name).exists() and (out / name).stat().st_size for name in ("run.json", "metrics.jsonl")):
                shutil.copy(folder / "stopped" / "run.json", out)
            done.append(f"{way.__name__ if hasattr(way, '__name__') else 'flips'} {path.relative_to(out)}")
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        try:
            train(out)
            end = "exact" if outcome(out) == wanted else "wrong"
        except ResumeError:
            unchanged = before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
            end = "refused" if unchanged else "wrong"
        except Exception as error:
            end = "foreign"
            done.append(repr(error))
        ends[end] += 1
        if end in ("wrong", "foreign"):
            print(f"{end}: seed {seed}, attack {number}: {'; '.join(done)}", flush=True)
        shutil.rmtree(out)
    return ends
