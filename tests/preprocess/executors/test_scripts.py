"""Shards made by scripts as people write them: without a guard, from stdin, with classes of their own."""

import subprocess
import sys

import pytest

from maskstream.shards.format.manifest import Manifest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from dataclasses import replace
from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets import DATASETS
{own}
{guard}
    make_shards("folder", sys.argv[1], sys.argv[2], workers=2, samples_per_shard=1)
    print("done")
"""
OWN = """
from maskstream.preprocess.source import Source
class Mine(Source):
    pass
def mine(root, folder=DATASETS["folder"]):
    def own(source):
        return Mine(id=source.id, path=source.path, label=source.label)
    raw = folder(root)
    return replace(raw, splits={name: [own(one) for one in sources] for name, sources in raw.splits.items()})
DATASETS["folder"] = mine
"""
GUARD, NO_GUARD = 'if __name__ == "__main__":', "if True:"


@pytest.fixture
def made(make_video, tmp_path):
    """made(own, guard, stdin=False) runs the script over two videos; returns what it printed, its errors, its code."""
    for number in range(2):
        make_video(f"raw/{'ab'[number]}/{number}.mp4", 5)

    def run(own, guard, *, stdin=False):
        path = tmp_path / "script.py"
        path.write_text(SCRIPT.format(own=own, guard=guard))
        command = [sys.executable, "-" if stdin else path, tmp_path / "raw", tmp_path / "out"]
        text = path.read_text() if stdin else None
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=200)
        return done.stdout, done.stderr, done.returncode

    return run


@pytest.mark.parametrize(
    ("own", "guard", "stdin"),
    [("", NO_GUARD, False), ("", NO_GUARD, True), (OWN, GUARD, False)],
)
def test_shards_are_made_in_any_script(made, tmp_path, own, guard, stdin):
    assert made(own, guard, stdin=stdin) == ("done\n", "", 0)
    assert len(Manifest.load(tmp_path / "out/train")) == 2


def test_sources_of_a_script_without_a_guard_are_refused_in_a_sentence(made):
    out, err, code = made(OWN, NO_GUARD)
    assert (out, code) == ("", 1)
    sentence = "worker processes cannot import script.py, which defines Mine: put the code that it runs under"
    assert sentence in err.splitlines()[-1]


def test_sources_of_a_script_from_stdin_are_refused_in_a_sentence(made):
    out, err, code = made(OWN, GUARD, stdin=True)
    assert (out, code) == ("", 1)
    assert "worker processes cannot import Mine, defined in a notebook, a script from stdin" in err.splitlines()[-1]
