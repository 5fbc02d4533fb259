"""Whether a source is the one that was encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..shards.errors import OutageError
from .file_state import FileState
from .raw_files import RawFiles
from .source import Source


def is_same(
    source: Source, files: Sequence[FileState], raw: RawFiles, known: dict[tuple[Path, FileState], bool]
) -> bool:
    """Whether the files of a source have these states. `known` keeps what was found, for sources may share a file.

    Raises OutageError if one cannot be read.
    """
    if len(files) != len(source.files):
        return False
    for path, state in zip(source.files, files, strict=True):
        try:
            known[path, state] = known[path, state] if (path, state) in known else raw.is_same(path, state)
        except OSError as error:
            raise OutageError(
                f"the source {source.id!r} cannot be read ({path}: {error.strerror}); mend this and run the same "
                "command again"
            ) from error
        if not known[path, state]:
            return False
    return True
