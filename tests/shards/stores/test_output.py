"""An output writes files whole or not at all, on a disk and in an object store alike."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import pytest

from maskstream.shards.errors import OutageError, StoreError
from maskstream.shards.format.records import Records
from maskstream.shards.stores import client, remote_files, remote_output
from maskstream.shards.stores.output import (
    LocalOutput,
    Location,
    Output,
    get_last_parts,
    open_output,
    split_folder_and_name,
    within,
)
from maskstream.shards.stores.remote_output import RemoteOutput
from tests.s3_double import BUCKET, S3Double


@pytest.fixture(params=["local", "remote", "top of a bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Output:
    if request.param == "local":
        return open_output(tmp_path)
    request.getfixturevalue("double")
    return open_output(f"s3://{BUCKET}/a b/c/" if request.param == "remote" else f"s3://{BUCKET}")


def test_what_is_published_is_there_whole(output: Output) -> None:
    assert (output.size("a.tar"), output.whole("a.tar", 9), output.head("a.tar", 9)) == (None, None, None)
    output.publish("a.tar", b"first")
    output.publish("a.tar", b"second")
    output.publish(".records/b.record", b"")
    with output.writing("c.tar") as stream:
        for part in (b"x" * 1000, b"y"):
            stream.write(part)
        assert output.size("c.tar") is None
    assert output.names() == [".records/b.record", "a.tar", "c.tar"]
    assert output.names(".records/") == [".records/b.record"]
    assert [output.size(name) for name in output.names()] == [0, 6, 1001]
    assert [output.sizes().size(name) for name in (*output.names(), "d")] == [0, 6, 1001, None]
    assert output.whole("a.tar", 6) == b"second"
    assert output.head("a.tar", 3) == b"sec"
    assert output.head("a.tar", 100) == b"second"
    assert output.whole(".records/b.record", 0) == output.head(".records/b.record", 5) == b""
    assert output.store.whole("a.tar", 6) == b"second"
    with pytest.raises(StoreError, match=r"a\.tar .*6 bytes, but at most 5"):
        output.whole("a.tar", 5)


def test_after_an_exception_nothing_is_published(output: Output) -> None:
    output.publish("a.tar", b"old")
    for name in ("a.tar", "b.tar"):
        with pytest.raises(ZeroDivisionError):
            _write_half(output, name)
    assert output.names() == ["a.tar"]
    assert output.whole("a.tar", 9) == b"old"


def _write_half(output: Output, name: str) -> None:
    with output.writing(name) as stream:
        stream.write(b"half")
        raise ZeroDivisionError


def test_only_one_creates_a_file(output: Output) -> None:
    assert output.create("dataset.json", b"one")
    for data in (b"two", b"", b"longer"):
        assert not output.create("dataset.json", data)
    assert output.whole("dataset.json", 9) == b"one"
    assert output.names() == ["dataset.json"]


@pytest.mark.parametrize("conditional", ["kept", "refused", "ignored"])
def test_of_racing_runs_one_creates_the_file_where_the_store_can_tell(
    conditional: str, double: S3Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All look before any of them writes."""
    double.conditional = conditional  # type: ignore[assignment]
    monkeypatch.setattr(RemoteOutput, "size", lambda self, name: None)
    output = open_output(f"s3://{BUCKET}/x")
    output.create("other", b"")
    created: list[bool] = []
    threads = [
        threading.Thread(target=lambda n=n: created.append(output.create("dataset.json", b"%d" % n)))  # type: ignore[misc]
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(created) == (1 if conditional == "kept" else 8)
    assert sorted(double.objects) == ["x/dataset.json", "x/other"]


def test_a_file_that_another_run_created_first_is_left(double: S3Double, monkeypatch: pytest.MonkeyPatch) -> None:
    """This run looked before the other one wrote. An equal file may be its own, if an answer was lost."""
    monkeypatch.setattr(RemoteOutput, "size", lambda self, name: None)
    double.objects["x/a"] = b"theirs"
    output = open_output(f"s3://{BUCKET}/x")
    for data in (b"", b"a", b"theirs!", b"longer than theirs"):
        assert not output.create("a", data)
    assert output.create("a", b"theirs")
    assert double.objects == {"x/a": b"theirs"}


def test_removing_what_is_not_there_is_no_error(output: Output) -> None:
    names = [f".records/{n}.record" for n in range(120)]
    for name in names:
        output.publish(name, b"")
    output.remove(["a", *names, "b/c"])
    output.remove([])
    assert output.names() == []


def test_a_copy_in_another_process_writes_to_the_same_place(output: Output) -> None:
    pickle.loads(pickle.dumps(output)).publish("a", b"b")
    assert output.whole("a", 1) == b"b"


def test_large_files_are_sent_in_parts_which_nobody_sees(double: S3Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_output, "ONE_PUT_BYTES", 1 << 20)
    monkeypatch.setattr(remote_output, "_PART_BYTES", 5 << 20)
    output = open_output(f"s3://{BUCKET}/x")
    data = bytes(range(256)) * (11 << 12)
    with output.writing("a.tar") as stream:
        stream.write(data)
    assert double.objects == {"x/a.tar": data}
    output.publish("b.tar", data)
    assert double.objects["x/b.tar"] == data
    assert double.uploads == {}
    assert double.requests.count("PUT x/a.tar") == double.requests.count("PUT x/b.tar") == 3


def test_a_record_is_found_by_its_first_part(double: S3Double) -> None:
    """Also where the first part is longer than what is asked for at first."""
    double.objects["x/.records/a.tar.record"] = b""
    records = Records(f"s3://{BUCKET}/x", _Any)
    task = _Any("a.tar")
    assert records.first(task) is None
    assert records.stands(task) is None
    for size in (10, 1 << 16, 1 << 18):
        records.record(task, _Any("x" * size))
        assert records.first(task) == {"name": "x" * size}
        assert records.stands(task) == _Any("x" * size)


class _Any:
    """A task, and a record that always stands."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Any) and self.name == other.name

    def to_parts(self) -> list[dict[str, str]]:
        return [{"name": self.name}, {}]

    @classmethod
    def from_parts(cls, parts: object) -> _Any:
        return cls(parts[0]["name"])  # type: ignore[index]

    def stands(self, sizes: object) -> bool:
        return True


def test_only_writable_places_are_outputs(tmp_path: Path) -> None:
    assert isinstance(open_output(tmp_path), LocalOutput)
    assert isinstance(open_output("s3://b/x"), RemoteOutput)
    for location in ("http://host/x", "https://host/x", "hf://datasets/a/b"):
        with pytest.raises(ValueError, match=r"cannot be written to|not written to"):
            open_output(location)
    for location in ("ftp://host/x", "s3://", "s3:///x"):
        with pytest.raises(ValueError, match=location):
            open_output(location)


def test_a_store_that_is_away_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RETRIES", 0)
    monkeypatch.setattr(remote_files, "REPEATS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    output = open_output("s3://b/x")
    for act in (lambda: output.publish("a", b""), lambda: output.size("a"), output.names, lambda: output.remove(["a"])):
        with pytest.raises(OutageError, match="s3://b/x"):
            act()


@pytest.mark.parametrize(
    ("folder", "joined"), [("s3://b/x/", "s3://b/x/a.tar"), ("s3://b", "s3://b/a.tar"), (Path("x"), Path("x/a.tar"))]
)
def test_locations_are_joined_and_parted(folder: Location, joined: Location) -> None:
    assert within(folder, "a.tar") == joined
    parent, name = split_folder_and_name(joined)
    assert (within(parent, name), name) == (joined, "a.tar")
    assert get_last_parts(joined, 1) == "a.tar"
