"""Worker processes in scripts as people write them: without a guard, from stdin, with classes of their own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

LOADER = """
import sys
from maskstream.pipelines import VideoClip, masks, video_loader
{own}
print("begins", file=sys.stderr)
{guard}
    run = video_loader(sys.argv[1], clip=VideoClip(frames=2, stride=4, size=32), mask={mask}, patch=8, batch_size=4,
                       workers=2, threads=1, device="cpu")
    print("samples", sum(len(batch.key) for batch in run))
"""
OWN_MASK = """
class Mine(masks.Random):
    pass
"""
GUARD, NO_GUARD = 'if __name__ == "__main__":', "if True:"
RANDOM, MINE = "masks.Random(ratio=0.75)", "Mine(ratio=0.75)"
SENTENCE = "worker processes cannot import script.py, which defines Mine: put the code that it runs under"


def ran(script, *args, stdin=False):
    """What the script printed, its errors and its exit code; a file of its own, or from stdin."""
    command = [sys.executable, "-"] if stdin else [sys.executable, str(script)]
    text = script.read_text() if stdin else None
    done = subprocess.run([*command, *map(str, args)], input=text, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr, done.returncode


@pytest.fixture
def script(tmp_path):
    return tmp_path / "script.py"


@pytest.mark.parametrize("stdin", [True, False])
def test_a_loader_has_workers_in_a_script_without_a_guard_and_from_stdin(split, script, stdin):
    script.write_text(LOADER.format(own="", guard=NO_GUARD, mask=RANDOM))
    out, err, code = ran(script, split, stdin=stdin)
    assert (out.split(), err.split(), code) == (["samples", "8"], ["begins"], 0)


def test_the_main_module_is_imported_where_the_mask_is_defined_in_it(split, script):
    script.write_text(LOADER.format(own=OWN_MASK, guard=GUARD, mask=MINE))
    out, err, code = ran(script, split)
    assert code == 0, err
    assert err.count("begins") == 3  # here and in both workers
    assert out.split() == ["samples", "8"]


def test_a_mask_of_a_script_without_a_guard_is_refused_in_a_sentence(split, script):
    script.write_text(LOADER.format(own=OWN_MASK, guard=NO_GUARD, mask=MINE))
    _, err, code = ran(script, split)
    assert code == 1
    assert SENTENCE in err.splitlines()[-1]


def test_a_mask_of_a_script_from_stdin_is_refused_in_a_sentence(split, script):
    script.write_text(LOADER.format(own=OWN_MASK, guard=GUARD, mask=MINE))
    _, err, code = ran(script, split, stdin=True)
    assert code == 1
    assert "cannot import Mine, defined in a notebook, a script from stdin" in err.splitlines()[-1]
