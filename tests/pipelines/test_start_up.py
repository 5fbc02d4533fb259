"""A process that loads imports what its loader needs: heavy packages come with the names and settings that use them."""

import ast
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import maskstream.pipelines
import maskstream.pipelines.masks
import maskstream.preprocess
import maskstream.shards

HEAVY = {"av", "cv2", "librosa", "numba", "numpy", "obstore", "pyarrow", "safetensors", "scipy", "soxr", "torch"}
OF_A_LOADER = {"av", "numpy", "pyarrow", "torch"}
"""What every loader of videos needs: decoding, the manifest and the tensors of its batches."""
SCRIPT = """
import sys
import maskstream.pipelines, maskstream.shards
print(*sys.modules)
from maskstream.pipelines import VideoClip, masks, video_loader
print(*sys.modules)
masks.Tube
print(*sys.modules)
"""


@pytest.mark.slow
def test_names_are_imported_when_they_are_asked_for():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    package, loader, mask = (set(line.split()) for line in done.stdout.splitlines())
    assert HEAVY & package == set()
    assert HEAVY & loader == OF_A_LOADER
    masks = "maskstream.pipelines.masks."
    assert not any(name.startswith((f"{masks}patterns.", f"{masks}text.")) for name in loader)
    assert f"{masks}patterns.frames" in mask


@pytest.mark.slow
def test_splits_and_kernels_need_neither_pandas_nor_scipy_s_blas(tmp_path, split):
    """pyarrow and numba would import them where they are installed, which takes 0.4 s. Nor pyarrow's functions, nor
    what numba's compiler knows of arrays.
    """
    path = tmp_path / "part.parquet"
    columns = {"n": pa.array([1, None, 2], pa.int64()), "of": pa.array([[1], None, [2, 300]], pa.list_(pa.int64()))}
    pq.write_table(pa.table(columns), path)
    script = f"""
import sys
import pyarrow.parquet as pq
import maskstream.pipelines.decode.pixels
from maskstream.pipelines.modalities.split import open_manifest
from maskstream.shards.format.columns import _fill_nulls, _values
from maskstream.shards.format.unpack import build_text_array
group = pq.ParquetFile({str(path)!r}).read_row_group(0, use_threads=False)
numbers, lists, texts = group.column("n").chunk(0), group.column("of").chunk(0), build_text_array(["a", "", "b\u00e9"])
made = _fill_nulls(numbers, -1).tolist(), _values(lists.values).tolist(), len(build_text_array([]))
open_manifest({str(split)!r})
print([name in sys.modules for name in ("pandas", "pyarrow.compute", "scipy.linalg", "numba.np.arrayobj")])
print(*made, texts.to_pylist() == ["a", "", "b\u00e9"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[False, False, False, False]", "[1, -1, 2] [1, 2, 300] 0 True"]


@pytest.mark.parametrize(
    "package", [maskstream.pipelines, maskstream.pipelines.masks, maskstream.preprocess, maskstream.shards]
)
def test_the_names_that_are_imported_late_are_those_that_are_typed(package):
    tree = ast.parse(Path(package.__file__).read_text())
    typed = {alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level for alias in n.names}
    assert {*package.__all__} - typed <= {"Fbank"}  # of another folder
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
    assert not hasattr(package, "nonesuch")
