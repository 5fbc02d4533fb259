"""`maskstream inspect`."""

from __future__ import annotations

from .terminal import Data, Json, show


def inspect(data: Data, as_json: Json = False) -> None:
    """Print the contents of a split: samples, hours, resolutions, frame rates, bytes, rejects by reason."""
    from maskstream.shards.format.inspect import inspect as look

    show(look(data), as_json)
