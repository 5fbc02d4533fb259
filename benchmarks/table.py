"""The table of the loader benchmark, and the ratios that the project states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rows import OURS, Row

Key = tuple[str, str, str]
"""Variant, reader, output."""

CLAIMS: tuple[tuple[str, Key, Key, float | None], ...] = (
    ("copy / SPDL, same packets", ("copy", OURS, "uint8"), ("copy", "spdl", "uint8"), 0.70),
    ("train / official loader, original files", ("train", OURS, "float"), ("found", "decord-official", "float"), 0.25),
    ("train / SPDL, original files", ("train", OURS, "uint8"), ("found", "spdl", "uint8"), None),
    ("train / torchcodec, original files", ("train", OURS, "uint8"), ("found", "torchcodec", "uint8"), None),
    ("train / SPDL, same videos", ("train", OURS, "uint8"), ("train", "spdl", "uint8"), None),
    ("train / SPDL skipping frames, same videos", ("train", OURS, "uint8"), ("train", "spdl-noref", "uint8"), None),
    ("train / torchcodec, same videos", ("train", OURS, "uint8"), ("train", "torchcodec", "uint8"), None),
    ("train / decoding alone", ("train", OURS, "uint8"), ("train", "decode-only", "yuv"), None),
    ("copy / decoding alone", ("copy", OURS, "uint8"), ("copy", "decode-only", "yuv"), None),
    ("with tube masks / without", ("train", f"{OURS}+tube", "uint8"), ("train", OURS, "uint8"), None),
    ("with motion-guided masks / without", ("train", f"{OURS}+motion-guided", "uint8"), ("train", OURS, "uint8"), None),
    ("whole loader / sampler alone", ("train", f"{OURS}-loader", "uint8"), ("train", OURS, "uint8"), None),
)
"""What is compared: a name, the one, the other, and the most that the ratio may be."""


def show(rows: Sequence[Row], facts: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Prints the rows, the ratios, and what they depend on."""
    by_key = {(row.variant, row.reader.name, row.reader.output): row for row in rows}
    console = Console(width=max(124, Console().width), highlight=False)
    console.print(_table(by_key))
    for what, value, bound in _claims(by_key):
        verdict = "" if bound is None else f"  (at most {bound:.2f}: {'reached' if value <= bound else 'MISSED'})"
        console.print(f"  {value:5.2f}  {what}{verdict}")
    for note in notes:
        console.print(f"  note: {note}")
    for name, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        console.print(f"  {name}: {text}", soft_wrap=True)


def _table(by_key: Mapping[Key, Row]) -> Table:
    table = Table(
        title="CPU time per clip of 16 frames at 224 x 224, stride 4, from 10 s of 340 x 256; one thread each"
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
        ours = by_key.get(("copy" if variant == "found" else variant, OURS, alike))
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


def _claims(by_key: Mapping[Key, Row]) -> Iterator[tuple[str, float, float | None]]:
    for what, one, other, bound in CLAIMS:
        if one in by_key and (value := _ratio(by_key[one], by_key.get(other))) is not None:
            yield what, value, bound


def _ratio(row: Row, to: Row | None) -> float | None:
    """The median over the rounds of the ratio in each, so that noise that lasts longer than a round cancels."""
    return None if to is None else median(one / other for one, other in zip(row.cpu_ms, to.cpu_ms, strict=True))


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
