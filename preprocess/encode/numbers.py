"""Numbers in text files, and whether the types that a file declares can hold them."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.source import RejectError

Float64s = npt.NDArray[np.float64]
_NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)


def read_numbers(
    lines: Sequence[str],
    first: int,
    *,
    comments: tuple[str, ...] = (),
    dtype: np.dtype[Any] | None = None,
    most: int | None = None,
) -> Float64s:
    """Parse lines of numbers: float64 (rows, columns). Blank lines and those that begin with a comment are skipped.

    Args:
        lines: Lines of a file.
        first: Number of the first line in its file, for errors.
        comments: Characters that begin a comment.
        dtype: Fields of a row, one number each; None for float64 in all columns.
        most: Largest number of rows to parse.

    Raises:
        RejectError: A line is not numbers or has another count than the first, or a number does not fit its type.
    """
    rows = [n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(comments)][:most]
    if not rows:
        return np.empty((0, len(dtype.names or ()) if dtype is not None else 0))
    try:
        table = np.loadtxt((lines[n] for n in rows), np.float64, comments=comments or None, ndmin=2)
    except ValueError as error:
        raise RejectError("open", f"is no text of numbers ({error})") from error
    fields = [(f"number {n + 1}", np.dtype(np.float64)) for n in range(table.shape[1])]
    if dtype is not None:
        fields = [(name, dtype[name]) for name in dtype.names or ()]
    for at, ((name, kind), column) in enumerate(zip(fields, table.T, strict=False)):
        for row in find_unfit(column, kind).tolist():
            word = lines[rows[row]].split()[at]
            if kind.kind != "f" or _NOT_FINITE.fullmatch(word) is None:
                raise make_unfit_error(first + rows[row], name, word, kind)
    return table


def find_unfit(values: Float64s, kind: np.dtype[Any]) -> npt.NDArray[np.int64]:
    """Find the numbers (N,) that a type cannot hold: int64 (n,). Of floats these are all that are not finite, also
    those that are written as nan or inf.
    """
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return np.flatnonzero(~np.isfinite(values.astype(kind)))
    low, high = np.iinfo(kind).min, np.iinfo(kind).max + 1.0  # float64 cannot hold the largest int64, but one more
    return np.flatnonzero(~((values >= low) & (values < high) & (values == np.trunc(values))))  # NaN equals nothing


def make_unfit_error(line: int, name: str, word: object, kind: np.dtype[Any]) -> RejectError:
    """The error for a number that its type cannot hold."""
    if kind.kind == "f":
        legal = f"numbers up to {np.finfo(kind).max:.3g}"
    else:
        legal = f"whole numbers from {np.iinfo(kind).min} to {np.iinfo(kind).max}"
    return RejectError("decode", f"line {line}: {name} is {str(word)[:40]}, but {kind} holds {legal}")
