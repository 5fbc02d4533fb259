"""The table of the loader benchmark, and the ratios that the project states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rows import OURS, Row

Key = tuple[str, str, str]
"""Variant, reader, output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Two rows that are compared in one figure (CPU time a clip, wall time of a clip, or bytes read of bytes needed),
    and the most that the ratio one / other may be, where the project has set itself that.
    """

    what: str
    one: Key
    other: Key
    figure: Literal["cpu", "speed", "bytes"] = "cpu"
    most: float | None = None
    least: float | None = None

    def verdict(self, value: float) -> str:
        """The target of the ratio, and whether it is reached."""
        if self.most is None and self.least is None:
            return ""
        bound = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        missed = (self.most is not None and value > self.most) or (self.least is not None and value < self.least)
        return f"  ({bound}: {'NOT reached' if missed else 'reached'})"


TRAIN, FLOAT = ("train", OURS, "uint8"), ("train", OURS, "float")
FOUND, COPY, SPDL = ("found", OURS, "uint8"), ("copy", OURS, "uint8"), ("found", "spdl", "uint8")
ALL_CORES, OFFICIAL = f"{OURS}-all-cores", ("found", "decord-official-all-cores", "float")
MASKED = {name: ("train", f"{OURS}+{name}", "uint8") for name in ("tube", "motion-guided")}

CLAIMS = (
    Claim(what="found / SPDL, same files", one=FOUND, other=SPDL, most=0.65),
    Claim(what="copy / SPDL, same packets", one=COPY, other=("copy", "spdl", "uint8"), most=0.70),
    Claim(what="train / SPDL, original files", one=TRAIN, other=SPDL, most=0.20),
    Claim(what="train / SPDL noref, same videos", one=TRAIN, other=("train", "spdl-noref", "uint8"), most=0.75),
    Claim(what="train / floor", one=TRAIN, other=("train", "floor", "yuv"), most=1.35),
    Claim(what="train as YUV planes / floor", one=("train", OURS, "yuv"), other=("train", "floor", "yuv"), most=1.40),
    Claim(what="copy / floor", one=COPY, other=("copy", "floor", "yuv"), most=1.35),
    Claim(what="found / floor", one=FOUND, other=("found", "floor", "yuv"), most=1.35),
    Claim(
        what="train, clips/s of the official loader's, uint8",
        one=("train", ALL_CORES, "uint8"),
        other=OFFICIAL,
        figure="speed",
        least=8,
    ),
    Claim(
        what="train, clips/s of the official loader's, float",
        one=("train", ALL_CORES, "float"),
        other=OFFICIAL,
        figure="speed",
        least=4,
    ),
    Claim(
        what="found, clips/s of the official loader's, float",
        one=("found", ALL_CORES, "float"),
        other=OFFICIAL,
        figure="speed",
    ),
    *(
        Claim(what=f"{row[0]}, bytes read / bytes of the GOPs needed", one=row, other=row, figure="bytes", most=1.1)
        for row in (TRAIN, COPY, FOUND)
    ),
    Claim(what="with tube masks / without", one=MASKED["tube"], other=TRAIN, most=1.01),
    Claim(what="with motion-guided masks / without", one=MASKED["motion-guided"], other=TRAIN, most=1.10),
    Claim(what="train / official transforms, original files", one=FLOAT, other=("found", "decord-official", "float")),
    Claim(what="train / torchcodec, original files", one=TRAIN, other=("found", "torchcodec", "uint8")),
    Claim(what="train / torchcodec, same videos", one=TRAIN, other=("train", "torchcodec", "uint8")),
    Claim(what="train / SPDL, same videos", one=TRAIN, other=("train", "spdl", "uint8")),
    Claim(what="train / webdataset with PyAV, same tars", one=TRAIN, other=("train", "webdataset", "uint8")),
    Claim(what="train / HF datasets, same tars", one=TRAIN, other=("train", "hf-datasets", "uint8")),
    Claim(what="whole loader / sampler alone", one=("train", f"{OURS}-loader", "uint8"), other=TRAIN),
)
"""The targets, and other ratios."""


def show(rows: Sequence[Row], facts: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Prints the rows, the ratios, and what they depend on."""
    by_key = {(row.variant, row.reader.name, row.reader.output): row for row in rows}
    console = Console(width=max(124, Console().width), highlight=False)
    console.print(_table(by_key))
    for claim in CLAIMS:
        value = _value(claim, by_key)
        if value is not None:
            console.print(f"  {value:6.3f}  {claim.what}{claim.verdict(value)}")
        elif claim.verdict(0):
            console.print(f"       -  {claim.what}: not measured, a row is missing")
    for note in notes:
        console.print(f"  note: {note}")
    for name, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        console.print(f"  {name}: {text}", soft_wrap=True)


def _table(by_key: Mapping[Key, Row]) -> Table:
    table = Table(
        title="Clips of 16 frames at 224 x 224, stride 4, from 10 s of 340 x 256; one thread each, but for -all-cores"
    )
    for name in ("files", "reader", "output"):
        table.add_column(name, no_wrap=True)
    for name in ("CPU ms", "min-max", "/ ours", "/ SPDL", "clips/s", "kB read", "peak MB", "diff"):
        table.add_column(name, justify="right", no_wrap=True)
    last = ""
    for (variant, reader, output), row in by_key.items():
        if last not in ("", variant):
            table.add_section()
        last = variant
        alike = "uint8" if output == "yuv" else output
        ours = by_key.get((variant, OURS, alike))
        figures = row.as_dict()
        table.add_row(
            variant,
            reader,
            output,
            f"{figures['cpu_ms_per_clip']:.1f}",
            f"{min(row.cpu_ms):.1f}-{max(row.cpu_ms):.1f}",
            _number(_ratio(row, ours), 2),
            _number(_ratio(row, by_key.get((variant, "spdl", alike))), 2),
            f"{figures['wall_clips_per_s']:.1f}",
            _number(None if row.bytes_per_clip is None else row.bytes_per_clip / 1e3, 0),
            _number(row.peak_mb, 0),
            _number(row.difference, 1),
        )
    return table


def _value(claim: Claim, by_key: Mapping[Key, Row]) -> float | None:
    """The ratio, or None where one of the rows was not measured."""
    one, other = by_key.get(claim.one), by_key.get(claim.other)
    if one is None or other is None:
        return None
    if claim.figure == "speed":
        return median(theirs / ours for ours, theirs in zip(one.wall_s, other.wall_s, strict=True))
    if claim.figure == "bytes":
        known = one.bytes_per_clip is not None and one.gop_bytes_per_clip
        return one.bytes_per_clip / one.gop_bytes_per_clip if known else None  # type: ignore[operator]
    return _ratio(one, other)


def _ratio(row: Row, to: Row | None) -> float | None:
    """The median over the rounds of the ratio in each, so that noise that lasts longer than a round cancels."""
    return None if to is None else median(one / other for one, other in zip(row.cpu_ms, to.cpu_ms, strict=True))


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
