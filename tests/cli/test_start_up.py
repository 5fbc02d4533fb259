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
