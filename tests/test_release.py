"""What is released: wheel and sdist hold the package and nothing else, and the wheel works where it is alone."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from maskstream import __version__

from .test_readme import README, SAMPLE, blocks

ROOT = Path(__file__).parent.parent
MOST_BYTES = 2_500_000
FOLDERS = {"pipelines", "preprocess", "samples", "shards", "train", "cli", "modalities", "pages", "docs"}

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
    pages = {Path("maskstream") / page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md")}
    assert {name for name in names if name.suffix == ".md"} == pages
    code = (".py", ".j2", ".typed", ".md")
    other = {name for name in names if name.parts[0] == "maskstream" and name.suffix not in code}
    vendor = Path("maskstream/pages/vendor")
    uplot = {vendor / name for name in ("LICENSE", "uPlot.iife.min.js", "uPlot.min.css")}
    data = {Path("maskstream") / name for name in ("train/reached.json", "docs/evaluation.schema.json")}
    assert other == data | uplot


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
    (tmp_path / SAMPLE).parent.mkdir(parents=True)
    (tmp_path / SAMPLE).symlink_to(split)
    code = f"{blocks(README)[0]}\nprint(tuple(batch.video.shape))"
    assert run(sys.executable, "-c", code, env=alone, cwd=tmp_path).strip() == "(8, 16, 224, 224, 3)"


def release(folder, out, *words):
    """Runs the program of `make release` in a checkout."""
    command = [sys.executable, folder / ".ci/release.py", "--without-install", "--out", out, *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clone of the last commit, with the release that is under way now."""
    folder = tmp_path_factory.mktemp("checkout") / "maskstream"
    run("git", "clone", "-q", ROOT, folder)
    shutil.copy(ROOT / ".ci/release.py", folder / ".ci/release.py")
    commit(folder)
    return folder


def commit(folder):
    run("git", "-C", folder, "add", "--all")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    run("git", "-C", folder, *who, "commit", "-q", "--allow-empty", "-m", "a commit")


def test_a_release_is_the_same_bytes_twice_and_has_the_notes_of_its_version(checkout, tmp_path):
    done = release(checkout, tmp_path / "dist", "--draft")
    assert done.returncode == 0, done.stderr
    assert "the same bytes in two builds" in done.stdout
    assert sorted(path.suffix for path in (tmp_path / "dist").iterdir()) == [".gz", ".md", ".whl"]
    unreleased = (checkout / "CHANGELOG.md").read_text().partition("## Unreleased")[2].partition("\n## ")[0]
    assert (tmp_path / "dist/NOTES.md").read_text().strip() == unreleased.strip()


def test_what_cannot_be_released_is_said(checkout, tmp_path):
    changelog, version = checkout / "CHANGELOG.md", checkout / "CITATION.cff"
    text = f"# Changelog\n\n## Unreleased\n\n### Added\n- A thing.\n\n## {__version__} - 2026-01-02\n\nNotes.\n"
    for path, written, words, message in (
        (changelog, None, ("--tag", "v9"), f"the tag v9 is not v{__version__}"),
        (changelog, text, (), "changes under Unreleased"),
        (changelog, text.replace("- A thing.", "").replace(__version__, "0.0.1"), (), "has no section"),
        (version, version.read_text().replace(__version__, "9"), ("--draft",), "different versions"),
    ):
        before = path.read_text()
        path.write_text(written or before)
        if written is not None:
            done = release(checkout, tmp_path / "dist", *words)
            assert "not committed" in done.stderr
        commit(checkout)
        done = release(checkout, tmp_path / "dist", *words)
        assert done.returncode == 1
        assert message in done.stderr
        assert not (tmp_path / "dist").exists()
        path.write_text(before)
        commit(checkout)
