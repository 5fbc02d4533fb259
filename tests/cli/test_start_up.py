"""Commands start quickly: what is heavy is imported by the commands that use it."""

import subprocess
import sys

HEAVY = {"torch", "webdataset", "numba", "scipy", "soxr", "av"}


def test_the_commands_are_there_without_heavy_packages():
    found = subprocess.run(
        [sys.executable, "-c", "import maskstream.cli, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not HEAVY & set(found.stdout.split())


SAID_FIRST = {
    "train mae-tiny --data D": "opening D for mae-tiny",
    "finetune R --data D --test T": "opening R and D",
    "report R --data D": "opening R and D",
    "replay R --step 1": "opening R",
    "export R --out E": "exporting R to E",
    "embed R D --out E.parquet": "opening R and D",
    "targets R D --out E": "opening R and D",
    "evaluate R --data D": "opening R and D",
    "probe R --data D --test T": "opening R, D and T",
    "curate D --copies": "opening D",
    "verify D": "opening D",
}


def test_slow_commands_say_what_they_do_before_they_import_what_is_heavy():
    """A line comes at once, in a log too; beside --json there is none."""
    code = """
import sys
from typer.testing import CliRunner
from maskstream.cli import app
sys.modules |= dict.fromkeys(sys.argv[1].split())  # their imports fail
for command in sys.argv[2:]:
    print(CliRunner().invoke(app, command.split()).stderr.partition(chr(10))[0])
"""
    heavy = " ".join(HEAVY - {"numba"})
    asked = [sys.executable, "-c", code, heavy, *SAID_FIRST, "probe R --data D --test T --json"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [*SAID_FIRST.values(), ""]
