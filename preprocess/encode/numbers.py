"""Numbers in text files, and whether the types that a file declares can hold them."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Float64s, Int64s

_NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)


def read_numbers(
    lines: Sequence[str],
    first: int,
    *,
    comments: tuple[str, ...] = (),
    dtype: np.dtype[Any] | None = None,
    most: int | None = None,
) -> Float64s:
    """Parse lines of numbers as float64 (rows, columns). Blank lines and comments are skipped.

    Args:
        lines: Lines of a file.
        first: Number of the first line in its file, for errors.
        comments: Prefixes of comment lines.
        dtype: Fields of a row, one number each; None for float64 in all columns.
        most: Largest number of rows to parse.

    Raises:
        RejectError: A line is not numeric or has another count than the first, or a number does not fit its type.
    """
    rows = [n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(comments)][:most]
    if not rows:
        return np.empty((0, len(dtype.names or ()) if dtype is not None else 0))
    try:
        table = np.loadtxt((lines[n] for n in rows), np.float64, comments=comments or None, ndmin=2)
    except ValueError as error:
        raise RejectError("open", f"is not a text file of numbers ({error})") from error
    fields = [(f"number {n + 1}", np.dtype(np.float64)) for n in range(table.shape[1])]
    if dtype is not None:
        fields = [(name, dtype[name]) for name in dtype.names or ()]
    for at, ((name, kind), column) in enumerate(zip(fields, table.T, strict=False)):
        for row in find_unfit(column, kind).tolist():
            word = lines[rows[row]].split()[at]
            if kind.kind != "f" or _NOT_FINITE.fullmatch(word) is None:
                raise make_unfit_error(first + rows[row], name, word, kind)
    return table


def find_unfit(values: Float64s, kind: np.dtype[Any]) -> Int64s:
    """Return the positions, int64 (n,), of the numbers (N,) that a type cannot hold. For floats these are all that are
    not finite, including literal nan and inf.
    """
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return np.flatnonzero(~np.isfinite(values.astype(kind)))
    low, high = np.iinfo(kind).min, np.iinfo(kind).max + 1.0  # float64 cannot hold the largest int64, but one more
    return np.flatnonzero(~((values >= low) & (values < high) & (values == np.trunc(values))))  # NaN equals nothing


def make_unfit_error(line: int, name: str, word: object, kind: np.dtype[Any]) -> RejectError:
    """Return the error for a number that does not fit its type.

    Args:
        line: Number of the line.
        name: Name of the number.
        word: Number as written.
        kind: Type that the file declares.
    """
    if kind.kind == "f":
        legal = f"numbers up to {np.finfo(kind).max:.3g}"
    else:
        legal = f"whole numbers from {np.iinfo(kind).min} to {np.iinfo(kind).max}"
    return RejectError("decode", f"line {line}: {name} is {str(word)[:40]}, but {kind} holds {legal}")
