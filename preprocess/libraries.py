"""The versions of the libraries that decide what a job writes."""

from __future__ import annotations

import av


def libraries() -> dict[str, str]:
    """The versions of FFmpeg's libraries."""
    return {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
