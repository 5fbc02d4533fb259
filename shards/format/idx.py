"""The `.idx` file beside a tar, which `fn.readers.webdataset` of NVIDIA DALI reads instead of walking the headers.

Format v1.2, byte-equal to what DALI's `wds2idx` writes: a line `v1.2 N`, then a line for each of the N samples with
`ending offset size member-name` for each component, in the order of the tar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Span = tuple[int, int]
"""Offset of a member's data in the tar, and its size, in bytes."""


def idx_text(samples: Iterable[tuple[str, Mapping[str, Span]]]) -> str:
    """The text of the index of samples given as (key, component name -> span), in the order of the tar."""
    lines = [
        " ".join(f"{name} {offset} {size} {key}.{name}" for name, (offset, size) in spans.items())
        for key, spans in samples
    ]
    return "\n".join([f"v1.2 {len(lines)}", *lines]) + "\n"
