"""The rows of the table: the measurements of one reader on one variant of the files."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from all_cores import EPOCHS, others_on_all_cores, ours_on_all_cores
from clips import Variant
from ours import clips_of, gop_bytes, readers_of
from readers import Clip, Reader, as_uint8, peers
from streams import tar_readers

OURS = "maskstream"
LARGEST_DIFFERENCE = 6.0
"""Levels of 255, mean over a clip. Other resampling makes 1 or 2; other frames, or another part of them, more."""
CLIPS_FOR_PEAK = 4
PARTS = 5


@dataclass(kw_only=True)
class Row:
    """What was measured of one reader, round by round: CPU and wall time per clip; the rest once.

    `gop_bytes_per_clip` is what the GOPs of the clips hold, for readers of maskstream. `difference` is the mean over a
    clip, in levels of 255, from maskstream's pixels of the same clip.
    """

    variant: str
    reader: Reader
    clips: Sequence[Clip]
    cpu_ms: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    bytes_per_clip: float | None = None
    gop_bytes_per_clip: float | None = None
    peak_mb: float | None = None
    difference: float | None = None

    def measure(self, part: int, parts: int) -> None:
        """One part of a round: every `parts`-th clip. A reader of whole epochs does its round in the first part."""
        if part > 0 and not self.reader.divisible:
            return
        clips = self.clips[part::parts] if self.reader.divisible else self.clips
        gc.collect()
        read, wall, cpu = _bytes_read(), time.perf_counter(), _cpu_s()
        self.reader.run(clips)
        cpu, wall = _cpu_s() - cpu, time.perf_counter() - wall
        if part == 0:
            self.cpu_ms.append(0.0)
            self.wall_s.append(0.0)
            self.bytes_per_clip = None if read is None else 0.0
        self.cpu_ms[-1] += cpu * 1e3 / len(self.clips)
        self.wall_s[-1] += wall / len(self.clips)
        if read is not None and self.bytes_per_clip is not None:
            self.bytes_per_clip += ((_bytes_read() or 0) - read) / len(self.clips)

    def as_dict(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "reader": self.reader.name,
            "output": self.reader.output,
            "cpu_ms_per_clip": round(median(self.cpu_ms), 3),
            "wall_clips_per_s": round(1 / median(self.wall_s), 2),
            "bytes_per_clip": None if self.bytes_per_clip is None else round(self.bytes_per_clip),
            "gop_bytes_per_clip": None if self.gop_bytes_per_clip is None else round(self.gop_bytes_per_clip),
            "peak_mb": None if self.peak_mb is None else round(self.peak_mb, 1),
            "cpu_ms_rounds": [round(value, 3) for value in self.cpu_ms],
        }


def rows_of(variants: dict[str, Variant], epochs: int, only: Collection[str]) -> tuple[list[Row], list[str]]:
    """A row for every reader of every variant (of those in `only`, if any), and why other readers cannot be used."""
    rows: list[Row] = []
    missing: list[str] = []
    for name, variant in variants.items():
        clips = clips_of(variant, epochs)
        many = [clip for _ in range(EPOCHS) for clip in clips]
        mine = readers_of(variant.manifest)
        whole: list[Reader] = []
        found = [peers(name)]
        if name in ("found", "train"):
            found.append(tar_readers(variant.manifest))
            whole = [ours_on_all_cores(variant, output) for output in ("uint8", "float")]
        if name == "found":
            others, lacking = others_on_all_cores(many)
            whole, missing = [*whole, *others], [*missing, *lacking]
        missing += [reason for _, lacking in found for reason in lacking if reason not in missing]
        readers = [reader for some, _ in found for reader in some] + mine
        rows += [Row(variant=name, reader=reader, clips=clips) for reader in readers]
        rows += [Row(variant=name, reader=reader, clips=many) for reader in whole]
        for row in rows:
            if row.variant == name and row.reader.name.startswith(OURS):
                row.gop_bytes_per_clip = gop_bytes(variant.manifest, clips)
    return [row for row in rows if not only or row.reader.name in only or row.reader.name.startswith(OURS)], missing


def check(rows: Sequence[Row]) -> list[str]:
    """Warms every reader up and compares its pixels with maskstream's; says which are not the same picture."""
    reference = {
        row.variant: as_uint8(row.reader.run(row.clips[:1]))
        for row in rows
        if (row.reader.name, row.reader.output) == (OURS, "uint8")
    }
    complaints = []
    for row in rows:
        pixels = row.reader.run(row.clips[:1])
        if not row.reader.comparable:
            continue
        expected, got = reference[row.variant], as_uint8(pixels)
        if got.shape != expected.shape:
            raise SystemExit(
                f"{row.reader.name} on {row.variant}: {got.shape} came out, {expected.shape} was asked for"
            )
        row.difference = float(abs(got.astype("i2") - expected).mean())
        if row.difference > LARGEST_DIFFERENCE:
            complaints.append(
                f"{row.reader.name} on {row.variant} differs by {row.difference:.1f} levels: other frames?"
            )
    return complaints


def measure_round(rows: Sequence[Row], first: int) -> None:
    """One round: all readers in turn, a few clips at a time, so that noise of seconds hits all alike."""
    for part in range(PARTS):
        for row in (*rows[first:], *rows[:first]):
            row.measure(part, PARTS)


def peak_mb(row: Row) -> float | None:
    """How far resident memory rises in a copy of this process that reads the row's first clips; Linux only, and not for
    readers with processes of their own.
    """
    if row.reader.all_cores or not Path("/proc/self/status").exists():
        return None
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = _resident_kb("VmRSS")
            row.reader.run(row.clips[:CLIPS_FOR_PEAK])
            os.write(send, str(_resident_kb("VmHWM") - before).encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        rise = pipe.read()
    os.waitpid(child, 0)
    return int(rise) / 1024 if rise else None


def _cpu_s() -> float:
    """Processor time of this process and of its workers so far."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _bytes_read() -> int | None:
    """Bytes that read system calls gave this process and its workers so far; None where the system does not say."""
    pids = ["self", *(str(worker.pid) for worker in multiprocessing.active_children())]
    try:
        return sum(int(Path(f"/proc/{pid}/io").read_text().split()[1]) for pid in pids)
    except OSError:
        return None


def _resident_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
