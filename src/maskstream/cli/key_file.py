"""Files of keys: text with the key of a sample in each line."""

from __future__ import annotations

from pathlib import Path


def keys_in(path: Path, option: str) -> list[str]:
    """The keys in a file, without empty lines; ValueError, which names the option, for one that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ValueError(
            f"{option} {path} cannot be read ({reason}); give a text file with the key of a sample in each line"
        ) from error
    return [line.strip() for line in lines if line.strip()]
