"""A process that loads imports what its loader needs: heavy packages come with the names and settings that use them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import maskstream.pipelines
import maskstream.preprocess
import maskstream.shards

HEAVY = {"av", "cv2", "librosa", "numba", "numpy", "obstore", "pyarrow", "safetensors", "scipy", "soxr", "torch"}
OF_A_LOADER = {"av", "cv2", "numpy", "pyarrow", "torch"}
"""What every loader of videos needs: decoding, resizing, the manifest and the tensors of its batches."""
SCRIPT = """
import sys
import maskstream.pipelines, maskstream.shards
print(*sys.modules)
from maskstream.pipelines import VideoClip, masks, video_loader
print(*sys.modules)
"""


def test_names_are_imported_when_they_are_asked_for():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    package, loader = (HEAVY & set(line.split()) for line in done.stdout.splitlines())
    assert package == set()
    assert loader == OF_A_LOADER


@pytest.mark.parametrize("package", [maskstream.pipelines, maskstream.preprocess, maskstream.shards])
def test_the_names_that_are_imported_late_are_those_that_are_typed(package):
    tree = ast.parse(Path(package.__file__).read_text())
    typed = {alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level for alias in n.names}
    assert {*package.__all__} - typed <= {"Fbank"}  # of another folder
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
    assert not hasattr(package, "nonesuch")
