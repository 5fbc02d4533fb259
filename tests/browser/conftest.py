"""A browser for the tests that look at pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .look import Browser, browsing


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser; a test of it is skipped with a reason where there is none."""
    try:
        opened = browsing()
        running = opened.__enter__()
    except LookupError as error:
        pytest.skip(str(error))
    yield running
    opened.__exit__(None, None, None)
