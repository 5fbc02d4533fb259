"""What processes do in the tests of executors."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture
def squares(monkeypatch):
    """local_work.py, as processes can import it."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("local_work")
