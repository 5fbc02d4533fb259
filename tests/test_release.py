"""What is released: wheel and sdist hold the package and nothing else, and the wheel works where it is alone."""

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from maskstream import __version__

from .test_readme import loader_code

ROOT = Path(__file__).parent.parent
MOST_BYTES = 2_000_000
FOLDERS = {"pipelines", "preprocess", "shards", "train", "cli", "modalities", "pages"}

pytestmark = pytest.mark.slow


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The folder of the sdist, which is made of the tree, and of the wheel, which is made of the sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", ROOT, "--outdir", out)
    return out


@pytest.fixture(scope="module")
def alone(dist, tmp_path_factory):
    """The environment in which the wheel is the only maskstream: its dependencies are those of this process."""
    site = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", site, *dist.glob("*.whl"))
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{site}:{sysconfig.get_path('purelib')}", "HOME": str(site)}


def test_the_wheel_is_small_and_holds_the_package_alone(dist):
    (wheel,) = dist.glob("*.whl")
    assert wheel.name == f"maskstream-{__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name) for name in archive.namelist()]
    assert {name.parts[0] for name in names} == {"maskstream", f"maskstream-{__version__}.dist-info"}
    assert {name.parts[1] for name in names if len(name.parts) > 2 and name.parts[0] == "maskstream"} == FOLDERS
    assert Path("maskstream/py.typed") in names
    assert any(name.suffix == ".j2" for name in names)
    assert not [name for name in names if name.parts[0] == "maskstream" and name.suffix not in (".py", ".j2", ".typed")]


def test_the_wheel_of_the_tree_is_that_of_the_sdist(dist, tmp_path):
    run(sys.executable, "-m", "build", ROOT, "--wheel", "--outdir", tmp_path)
    (own,), (other,) = tmp_path.glob("*.whl"), dist.glob("*.whl")
    with zipfile.ZipFile(own) as one, zipfile.ZipFile(other) as two:
        assert {i.filename: i.CRC for i in one.infolist()} == {i.filename: i.CRC for i in two.infolist()}


def test_the_sdist_has_the_tests_and_no_data(dist):
    (sdist,) = dist.glob("*.tar.gz")
    assert sdist.stat().st_size < 2 * MOST_BYTES
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"Makefile", "README.md", "LICENSE", "tests/conftest.py", "shards/__init__.py"} <= set(names)


def test_the_index_would_take_both(dist):
    said = run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())
    assert said.count("PASSED") == 2


def test_the_command_works_without_the_tree(alone, tmp_path):
    said = run(sys.executable, "-m", "maskstream", "--version", env=alone, cwd=tmp_path)
    assert said.strip() == f"maskstream {__version__}"
    where = run(sys.executable, "-c", "import maskstream; print(maskstream.__file__)", env=alone, cwd=tmp_path)
    assert where.startswith(alone["PYTHONPATH"].partition(":")[0])


def test_the_loader_of_the_readme_reads_a_split(alone, split, tmp_path):
    said = run(sys.executable, "-c", loader_code(split), env=alone, cwd=tmp_path)
    assert said.splitlines()[0] == "(2, 16, 224, 224, 3)"


def test_the_citation_names_this_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
