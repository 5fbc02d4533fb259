"""Requests whose answers are complete.

A client repeats most of what fails, but not a request that may have changed something and whose answer was cut. It
takes an answer for complete when its Content-Length is too small, and when that is too large it asks for bytes that the
file does not have. Here the bytes of an answer are counted, and a request whose answer makes no sense is made again. A
network is never the reason that a file seems to be shorter than it is. A server that sends next to nothing a second is
left, as one that sends nothing is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import GenericError

from . import client as clients

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ObjectStore

REPEATS = 6
"""How often a request is made again whose answer is not complete."""
_PAUSE_S = 0.05
_RETRIES = re.compile(r"after (\d+) retries, max_retries: (\d+)")
_STATUS = re.compile(r"status code: (?!416)\d")

T = TypeVar("T")


class IncompleteError(GenericError):
    """The answer has fewer bytes than it says."""


class SlowError(GenericError):
    """The server sends fewer bytes a second than a server must."""


class BeyondTheEndError(GenericError):
    """The file ends before the range."""


def part(client: ObjectStore, key: str, start: int, length: int) -> bytes:
    """A range of a file; fewer bytes only if the file ends within it. Raises BeyondTheEndError if it ends before."""
    return asked(lambda: _range(client, key, start, start + length))


def parts(
    client: ObjectStore, asking: ObjectStore, key: str, starts: Sequence[int], lengths: Sequence[int], coalesce: int
) -> list[bytes]:
    """Ranges of a file, fetched at the same time by the client `asking`, and one by one by `client` where that fails;
    fewer bytes only if the file ends before.
    """
    try:
        found = obstore.get_ranges(asking, key, starts=starts, lengths=lengths, coalesce=coalesce)
        data = [bytes(one) for one in found]
    except GenericError as error:
        if has_given_up(error):
            raise
    else:
        if [len(one) for one in data] == list(lengths):
            return data
    return [part(client, key, start, length) for start, length in zip(starts, lengths, strict=True)]


def contents(client: ObjectStore, key: str, most: int) -> bytes:
    """The contents of a file; the first `most` + 1 bytes if it has more."""
    try:
        return part(client, key, 0, most + 1)
    except BeyondTheEndError:
        return b""


def chunks(found: GetResult, key: str) -> Iterator[memoryview]:
    """The bytes of an answer as they come. Raises SlowError if over READ_S seconds of waiting they come too slowly."""
    came, waited_s, begun = 0, 0.0, time.monotonic()
    for chunk in found.stream(min_chunk_size=1):
        data = memoryview(chunk)
        came, waited_s = came + len(data), waited_s + time.monotonic() - begun
        if waited_s >= clients.READ_S:
            if came < clients.LEAST_BYTES_S * waited_s:
                raise SlowError(
                    f"{came} bytes of {key} came in {waited_s:.0f} s; a server must send {clients.LEAST_BYTES_S} a "
                    "second"
                )
            came, waited_s = 0, 0.0
        yield data
        begun = time.monotonic()


def asked(request: Callable[[], T]) -> T:
    """What a request gives, which is made again while its answer makes no sense."""
    begun = time.monotonic()
    for number in range(REPEATS + 1):
        try:
            return request()
        except BeyondTheEndError:
            raise
        except GenericError as error:
            if number == REPEATS or has_given_up(error) or time.monotonic() - begun > clients.RETRY_S:
                raise
            time.sleep(_PAUSE_S * 2**number)
    raise AssertionError("the last attempt raises")


def has_given_up(error: GenericError) -> bool:
    """Whether the client has judged the answer: it has repeated the request as often as it may, or the server says what
    it does not do.
    """
    found = _RETRIES.search(str(error))
    return (found is not None and int(found[1]) >= int(found[2])) or _STATUS.search(str(error)) is not None


def _range(client: ObjectStore, key: str, start: int, end: int) -> bytes:
    try:
        found = obstore.get(client, key, options={"range": (start, end)})
    except GenericError as error:
        if clients.is_beyond_the_end(error) and obstore.head(client, key)["size"] <= start:
            raise BeyondTheEndError(str(error)) from error
        raise
    first, last = found.range
    data = b"".join(chunks(found, key))
    if first != start or len(data) != last - first or last < min(end, found.meta["size"]):
        raise IncompleteError(f"bytes {start} to {end} of {key} were requested, and {len(data)} bytes came")
    return data
