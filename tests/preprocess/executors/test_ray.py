"""The Ray executor where no task runs. tests/services/test_ray.py runs tasks in clusters."""

import importlib.util
import subprocess
import sys

import pytest

from maskstream.cli import main
from maskstream.preprocess import RayExecutor


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'maskstream\[ray\]'"):
        RayExecutor()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_is_imported_only_to_run_tasks():
    code = "import sys, maskstream.preprocess as p; p.RayExecutor('auto'); sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "rey"], "--executor must be one of local, ray, slurm"),
        (["--address", "auto"], "--address auto requires --executor ray"),
        (["--executor", "ray", "--workers", "2"], "--workers 2 cannot be combined with --executor ray"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["maskstream", "shards", "folder", "--root", str(tmp_path), *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert said in " ".join(capsys.readouterr().err.split())
