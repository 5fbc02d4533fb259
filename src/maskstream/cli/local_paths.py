"""Paths of commands are local: a URL is refused before any work. What may be a URL is a str.

pathlib would turn a URL into a local folder named `s3:`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from maskstream.shards.stores.url import local_path, spoilt_url


def with_local_paths(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which now refuses URLs for its arguments and options of the type Path."""

    @wraps(command)
    def checked(*args: Any, **given: Any) -> None:
        for name, value in given.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, Path) and (url := spoilt_url(one)):
                    local_path(url, name)
        command(*args, **given)

    return checked
