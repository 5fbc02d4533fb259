"""Only a verdict on the bytes is a reject: what cannot be read now is tried again, and ends the run."""

import errno
import os
import time

import pytest

from maskstream.preprocess.job import judge as judge_module
from maskstream.preprocess.job.judge import Judge
from maskstream.preprocess.raw.file_state import read_state
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.errors import DataError, DatasetError, OutageError
from maskstream.shards.format.sample import Reject, Sample
from maskstream.shards.members.text import json_member

SAMPLE = Sample(key="a", source="a", members={"json": json_member({})})


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"bytes")
    os.utime(path, (1e9, 1e9))
    return Source(id="a", path=path)


class Encode:
    """Gives one outcome after the other, and the last again and again; counts its calls."""

    def __init__(self, *outcomes):
        self.outcomes, self.calls = outcomes, 0

    def __call__(self, source):
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.calls += 1
        if callable(outcome):
            outcome = outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def caused(error, reason="cannot be opened"):
    reject = RejectError("open", reason)
    reject.__cause__ = error
    return reject


def judged(source, encode, pauses=2, report=lambda text: None):
    return Judge((0,) * pauses).judge(source, encode, report)


def test_a_sample_is_encoded_once(source):
    encode = Encode(SAMPLE)
    found = judged(source, encode)
    assert (found.outcome, encode.calls) == (SAMPLE, 1)
    assert found.files == (read_state(source.path),)
    assert (found.files[0].size_bytes, found.files[0].mtime_ns) == (5, 10**18)


def test_a_reject_is_what_two_attempts_say(source):
    encode = Encode(RejectError("decode", "is damaged"))
    assert judged(source, encode).outcome == Reject(source="a", stage="decode", reason="is damaged")
    assert encode.calls == 2
    once = Encode(RejectError("decode", "is damaged"), SAMPLE)
    assert judged(source, once).outcome == SAMPLE
    other = Encode(*(RejectError("decode", f"at {number}") for number in range(9)))
    assert (judged(source, other).outcome.reason, other.calls) == ("at 2", 3)


def test_damage_that_ffmpeg_calls_an_input_error_is_a_reject(source):
    assert isinstance(judged(source, Encode(caused(OSError(errno.EIO, "Input/output error")))).outcome, Reject)


def test_a_file_that_is_gone_ends_the_run(source):
    source.path.unlink()
    notes = []
    encode = Encode(RejectError("open", "cannot be read"))
    with pytest.raises(OutageError, match=r"'a' failed 3 times.*No such file.*run the same command again"):
        judged(source, encode, report=notes.append)
    assert encode.calls == 0
    assert [note.split(";")[1] for note in notes] == [" retrying in 0 s"] * 2


def test_a_file_that_comes_back_is_a_sample(source):
    aside = source.path.rename(source.path.with_name("aside"))
    assert judged(source, Encode(SAMPLE), report=lambda note: aside.rename(source.path)).outcome == SAMPLE


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ENOENT, errno.ETIMEDOUT])
def test_an_error_of_the_system_while_the_file_is_read(source, monkeypatch, code):
    """The encoder takes what cannot be read as damage; the plain read says what it is."""
    failures = [0, 2]

    def failing(path):
        failures[0] += 1
        if failures[0] == failures[1]:
            raise OSError(code, os.strerror(code), str(path))
        return read_state(path)

    monkeypatch.setattr(judge_module, "read_state", failing)
    encode = Encode(RejectError("decode", "is truncated"), SAMPLE)
    assert judged(source, encode).outcome == SAMPLE
    failures[:] = [0, 2]
    with pytest.raises(OutageError, match=os.strerror(code)):
        judged(source, Encode(RejectError("decode", "is truncated")), pauses=0)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ESTALE])
def test_errors_that_no_bytes_cause(source, code):
    for error in (caused(OSError(code, os.strerror(code))), OSError(code, os.strerror(code))):
        with pytest.raises(OutageError, match=os.strerror(code)):
            judged(source, Encode(error))
        assert judged(source, Encode(error, SAMPLE)).outcome == SAMPLE


def test_what_memory_lacks_is_no_damage(source, monkeypatch):
    from maskstream.preprocess.job import judge as machine

    assert isinstance(judged(source, Encode(caused(MemoryError()))).outcome, Reject)
    assert isinstance(judged(source, Encode(MemoryError("Unable to allocate 1 TiB"))).outcome, Reject)
    monkeypatch.setattr(machine, "_has_memory", lambda: False)
    for error in (caused(MemoryError()), MemoryError(), caused(OSError(errno.ENOMEM, "Cannot allocate memory"))):
        with pytest.raises(OutageError, match="address space"):
            judged(source, Encode(error))
    with pytest.raises(OutageError, match="address space"):  # as some decoders call it
        judged(source, Encode(caused(ValueError("Invalid data found when processing input"))))


def test_a_file_that_changes_while_it_is_read_is_tried_again(source):
    def replaced(data):
        def rewrite():
            source.path.write_bytes(data)
            return SAMPLE

        return rewrite

    encode = Encode(replaced(b"other bytes"), SAMPLE)
    found = judged(source, encode)
    assert (found.outcome, encode.calls, found.files) == (SAMPLE, 2, (read_state(source.path),))
    same_size = Encode(replaced(b"!" * 11), replaced(b"?" * 11), SAMPLE)
    assert (judged(source, same_size).files[0].xxh3_64, same_size.calls) == (read_state(source.path).xxh3_64, 3)
    n = iter(range(99))
    with pytest.raises(OutageError, match="changed while it was read"):
        judged(source, Encode(lambda: replaced(b"%d" % next(n))()))


def test_a_change_within_the_tick_of_a_clock_shows(source):
    """Another write may leave the modification time, so a file that is new is compared by its bytes."""

    def rewrite():
        before = source.path.stat()
        source.path.write_bytes(b"BYTES")
        os.utime(source.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return SAMPLE

    os.utime(source.path, ns=(time.time_ns(), time.time_ns()))
    encode = Encode(rewrite, SAMPLE)
    assert judged(source, encode).outcome == SAMPLE
    assert encode.calls == 2


class PanicException(BaseException):
    """As that of Rust libraries, which is not an Exception."""


def test_one_file_ends_no_job(source, monkeypatch):
    monkeypatch.setattr(judge_module, "check_machine", lambda error: None)
    for error in (KeyError("a bug"), OSError("an error of Pillow, without a number"), PanicException("retry-limit")):
        found = judged(source, Encode(error)).outcome
        assert (found.source, found.stage) == ("a", "decode")
        assert found.reason.startswith(f"its encoder raised {type(error).__name__}: {error} (test_judge.py:")
    assert judged(source, Encode(DataError("has no\nheader"))).outcome.reason == "has no header"


@pytest.mark.parametrize(
    "error", [DatasetError("no pydicom"), ImportError("no av"), KeyboardInterrupt(), SystemExit(1)]
)
def test_what_never_speaks_of_bytes_passes(source, error):
    with pytest.raises(type(error)):
        judged(source, Encode(error))


def test_sources_without_files_and_with_several(source, tmp_path):
    computed = Source(id="a", path=tmp_path / "nowhere", computed=True)
    assert judged(computed, Encode(SAMPLE)).files == ()
    (tmp_path / "b").write_bytes(b"2")
    both = Source(id="a", path=source.path, parts=(tmp_path / "b",))
    assert [state.size_bytes for state in judged(both, Encode(SAMPLE)).files] == [5, 1]
    (tmp_path / "b").unlink()
    with pytest.raises(OutageError, match="b cannot be read"):
        judged(both, Encode(SAMPLE))
    assert judged(Source(id="a", path=tmp_path), Encode(SAMPLE)).files[0].xxh3_64 == ""
