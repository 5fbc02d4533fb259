"""The sums files of remote files: fetched page by page, at the same time as what they check, and kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import NamedTuple

from maskstream.shards.errors import MissingFileError

from .base import Range
from .block_sums import sums_bytes, sums_name, sums_range

PAGE_BYTES = 1 << 15
"""How many bytes of a sums file are fetched at once: those of 16 MiB of its tar."""
KEPT_BYTES = 64 << 20
"""How many bytes of sums files are kept: those of 32 GiB of tars."""

_Page = tuple[str, int]


class Sums(NamedTuple):
    """The sums of some blocks, which are being fetched: pages of a sums file, and where in these the sums are."""

    pages: dict[_Page, Future[bytes]]
    offset: int
    size: int


class RemoteSums:
    """Fetches and keeps sums. Threads that need the same page wait for one request.

    fetch: the bytes [offset, offset + size) of a file, fewer if it ends before.
    """

    def __init__(self, fetch: Callable[[str, int, int], bytes]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._pages: OrderedDict[_Page, Future[bytes]] = OrderedDict()

    def begun(self, blocks: Range, total: int, pool: Executor) -> Sums:
        """The sums of whole blocks of a file with `total` bytes. What is not in memory is being fetched by `pool`."""
        name = sums_name(blocks.name)
        if name is None:
            raise ValueError(f"{blocks.name} has no sums file")
        offset, size = sums_range(blocks.offset, blocks.size)
        first, last = offset // PAGE_BYTES, (offset + size - 1) // PAGE_BYTES
        end = sums_bytes(total)
        pages = {(name, n): self._page((name, n), end, pool) for n in range(first, last + 1)}
        return Sums(pages, offset - first * PAGE_BYTES, size)

    def read(self, sums: Sums) -> bytes | None:
        """The sums, once they are there; None if there is no sums file."""
        try:
            data = b"".join(page.result() for page in sums.pages.values())
        except MissingFileError:
            return None
        return data[sums.offset : sums.offset + sums.size]

    def forget(self, sums: Sums) -> None:
        """Fetch these pages again when they are needed next."""
        with self._lock:
            for name, page in sums.pages.items():
                if self._pages.get(name) is page:
                    del self._pages[name]

    def _page(self, page: _Page, end: int, pool: Executor) -> Future[bytes]:
        with self._lock:
            found = self._pages.pop(page, None)
            if found is None or _has_failed(found):
                at = page[1] * PAGE_BYTES
                found = pool.submit(self._fetch, page[0], at, min(PAGE_BYTES, end - at))
            self._pages[page] = found
            while len(self._pages) > KEPT_BYTES // PAGE_BYTES:
                self._pages.popitem(last=False)
            return found


def _has_failed(page: Future[bytes]) -> bool:
    """Whether a page must be fetched again; a sums file that does not exist is an answer."""
    return page.done() and not isinstance(page.exception(), MissingFileError | None)
