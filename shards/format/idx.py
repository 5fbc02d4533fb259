"""The `.idx` file of a tar, which `fn.readers.webdataset` of NVIDIA DALI reads instead of the tar's headers.

The format is v1.2, byte for byte as DALI's `wds2idx` writes it: a line `v1.2 N`, then a line for each of the N samples
with `ending offset size member-name` for each component, in the order of the tar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Span = tuple[int, int]
"""Offset of a member's data in the tar, and its size, in bytes."""


def idx_text(samples: Iterable[tuple[str, Mapping[str, Span]]]) -> str:
    """The index of samples, which are (key, component -> span) in the order of the tar. Erased ones have no spans, and
    no line.
    """
    lines = [
        " ".join(f"{name} {offset} {size} {key}.{name}" for name, (offset, size) in spans.items())
        for key, spans in samples
        if spans
    ]
    return "\n".join([f"v1.2 {len(lines)}", *lines]) + "\n"
