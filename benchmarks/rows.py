"""The rows of the table: one reader on one variant of the files, and how it is measured."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from clips import Variant
from ours import clips_of, readers_of
from readers import Clip, Reader, as_uint8, peers

OURS = "maskstream"
LARGEST_DIFFERENCE = 6.0
"""Levels of 255, mean over a clip. Other resampling makes 1 or 2; other frames, or another part of them, more."""
CLIPS_FOR_PEAK = 4
PARTS = 5


@dataclass(kw_only=True)
class Row:
    """What was measured of one reader, round by round: CPU and wall time per clip; the rest once.

    `difference` is the mean over a clip, in levels of 255, from maskstream's pixels of the same clip.
    """

    variant: str
    reader: Reader
    clips: Sequence[Clip]
    cpu_ms: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    bytes_per_clip: float | None = None
    peak_mb: float | None = None
    difference: float | None = None

    def measure(self, part: int, parts: int) -> None:
        """One part of a round: every `parts`-th clip. A reader of whole epochs does its round in the first part."""
        clips = self.clips[part::parts] if self.reader.divisible else self.clips if part == 0 else []
        gc.collect()
        read, wall, cpu = _bytes_read(), time.perf_counter(), time.process_time()
        self.reader.run(clips)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
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
            "peak_mb": None if self.peak_mb is None else round(self.peak_mb, 1),
            "cpu_ms_rounds": [round(value, 3) for value in self.cpu_ms],
        }


def rows_of(variants: dict[str, Variant], epochs: int, only: Collection[str]) -> tuple[list[Row], list[str]]:
    """A row for every reader of every variant (of those in `only`, if any), and why other readers cannot be used."""
    rows: list[Row] = []
    missing: list[str] = []
    for name in ("found", *variants):
        variant = variants["copy" if name == "found" else name]
        clips = clips_of(variant, epochs)
        others, lacking = peers(name)
        missing += [reason for reason in lacking if reason not in missing]
        mine = [] if name == "found" else readers_of(variant.manifest)
        rows += [Row(variant=name, reader=reader, clips=clips) for reader in (*others, *mine)]
    return [row for row in rows if not only or row.reader.name in (*only, OURS)], missing


def check(rows: Sequence[Row]) -> list[str]:
    """Warms every reader up and compares its pixels with maskstream's; says which are not the same picture."""
    reference = {
        row.variant: as_uint8(row.reader.run(row.clips[:1]))
        for row in rows
        if (row.reader.name, row.reader.output) == (OURS, "uint8")
    }
    reference["found"] = reference["copy"]
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
    """How far resident memory rises in a copy of this process that reads the row's first clips; Linux only."""
    if not Path("/proc/self/status").exists():
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


def _bytes_read() -> int | None:
    """Bytes that read system calls gave this process so far; None where the system does not say."""
    try:
        return int(Path("/proc/self/io").read_text().split()[1])
    except OSError:
        return None


def _resident_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
