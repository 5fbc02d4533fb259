"""A command ends before native libraries are taken apart, which may abort it, and nothing is lost."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import atexit, ctypes, sys, threading
libc = ctypes.CDLL(None)
libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)  # stands for a library that aborts at the end
import maskstream.cli as cli
main = cli.main
def begins():  # as commands import libraries that register handlers
    atexit.register(print, "handlers ran", end="")
    threading.Thread(target=lambda: (threading.main_thread().join(), print("threads ended"))).start()
    main()
cli.main = begins
cli.run()
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--version"], 0, "maskstream "),
        (["inspect", "nowhere"], 1, "error"),
        (["inspect", "--no"], 2, "No such option"),
    ],
)
def test_a_command_ends_with_its_code_and_all_that_it_wrote(words: list[str], code: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert done.stdout.endswith("threads ended\nhandlers ran")


def test_a_failure_that_nobody_foresaw_is_a_traceback() -> None:
    broken = SCRIPT.replace("cli.run()", "cli.app = lambda: 1 / 0\ncli.run()")
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert done.stdout.endswith("threads ended\nhandlers ran")
