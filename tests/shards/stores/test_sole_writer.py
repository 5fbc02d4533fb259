"""Two runs never write into one folder, and a run that was killed is in nobody's way."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskstream.shards.errors import BusyError
from maskstream.shards.stores.local_files import LOCK, joint_writer, sole_writer

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom maskstream.shards.stores.local_files import sole_writer\n"
    "with sole_writer(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def test_a_second_writer_is_refused_at_once_and_the_folder_is_left_clean(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with sole_writer(folder), sole_writer(tmp_path / "other"):
        for _ in range(2):
            with pytest.raises(BusyError, match=rf"new \(process {os.getpid()} on .*choose a different output folder"):
                sole_writer(folder).__enter__()
    assert list(folder.iterdir()) == []
    with sole_writer(folder):
        pass


def test_a_writer_in_another_process_holds_until_it_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"process {process.pid} on"):
            sole_writer(tmp_path).__enter__()
        process.kill()
    assert (tmp_path / LOCK).exists()
    with sole_writer(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("maskstream.shards.stores.local_files.fcntl.flock", flock)
    with sole_writer(tmp_path):
        (tmp_path / "written").touch()
    assert f"the file system of {tmp_path} has no locks" in caplog.text


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sole_writer(tmp_path):
        1 / 0  # noqa: B018
    with sole_writer(tmp_path):
        pass


def test_joint_writers_exclude_sole_ones_until_the_last_is_done(tmp_path: Path) -> None:
    first, second = joint_writer(tmp_path), joint_writer(tmp_path)
    first.__enter__()
    second.__enter__()
    for one in (first, second):
        with pytest.raises(BusyError, match="another run is writing"):
            sole_writer(tmp_path).__enter__()
        one.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []
    with sole_writer(tmp_path), pytest.raises(BusyError, match="another run is writing"):
        joint_writer(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []
