"""Kernels: code is kept on disk under all that it depends on, and is compiled all the same where it cannot be."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numba.core.caching import CacheImpl

from maskstream.shards import jit

SOURCE = """
import numpy as np
from maskstream.shards.jit import kernel
LATER = 5

@kernel
def scaled(value):
    return np.sort(np.full(2, value * {factor}))[0] + LATER
"""
KEPT = """
import sys
from kernels import scaled
of_compiler = ("numba.core.typing.arraydecl", "numba.np.arraymath")
print(scaled(6), *scaled.stats.cache_hits.values(), *(name in sys.modules for name in of_compiler))
"""


def loaded(path: Path, factor: int, **constants: int) -> ModuleType:
    """A file of kernels as a new process would see it; its time never changes."""
    path.write_text(SOURCE.format(factor=factor))
    os.utime(path, (1e9, 1e9))
    spec = importlib.util.spec_from_file_location("kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module).update(constants)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path / "kernels.py"


@pytest.mark.slow
def test_code_is_kept_for_its_source_and_signature(path: Path) -> None:
    first = loaded(path, 2).scaled
    assert (first(6), first(6.0)) == (17, 17.0)
    assert not first.stats.cache_hits
    again = loaded(path, 2).scaled
    assert (again(6), again(6.0)) == (17, 17.0)
    assert len(again.stats.cache_hits) == 2
    other = loaded(path, 3).scaled  # as long, and of the same time
    assert other(6) == 23
    assert not other.stats.cache_hits
    imported = loaded(path, 3, IMPORTED=1).scaled
    assert imported(6) == 23
    assert not imported.stats.cache_hits


@pytest.mark.slow
def test_files_that_are_damaged_are_compiled_again(path: Path) -> None:
    assert loaded(path, 2).scaled(6) == 17
    kept = list(path.parent.glob("__pycache__/*.nb?"))
    assert len(kept) == 2
    for file in kept:
        file.write_bytes(file.read_bytes()[:-9])
        again = loaded(path, 2).scaled
        assert again(6) == 17
        assert not again.stats.cache_hits


@pytest.mark.slow
def test_another_process_has_the_code_without_numbas_compiler(path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": f"{path.parent}"}
    path.write_text(SOURCE.format(factor=2))
    said = [subprocess.run([sys.executable, "-c", KEPT], env=env, capture_output=True, text=True).stdout for _ in "ab"]
    assert [one.split() for one in said] == [["17", "True", "True"], ["17", "1", "False", "False"]]


def test_without_a_place_for_the_cache_a_kernel_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])

    @jit.kernel
    def total(values: np.ndarray) -> float:
        result = 0.0
        for value in values:
            result += value
        return result

    assert total(np.arange(5.0)) == 10.0
