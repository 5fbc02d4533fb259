"""The servers of the tests do what the other tests need of them."""

import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import AzureStore, S3Store

from ..ports import free_ports
from .seaweedfs import BUCKET, S3Server, environment
from .server import listens, running, wait_until

pytestmark = pytest.mark.services


def test_seaweedfs_keeps_ranges_multiparts_and_conditions(s3: str) -> None:
    store = S3Store.from_url(s3)
    data = os.urandom(12 << 20)
    store.put("one", data, use_multipart=False)
    store.put("parts", data, chunk_size=5 << 20)
    for name in ("one", "parts"):
        assert bytes(store.get_range(name, start=4_999_999, length=2_000_001)) == data[4_999_999:7_000_000]
    assert sorted(entry["path"] for page in store.list() for entry in page) == ["one", "parts"]
    with pytest.raises(AlreadyExistsError):
        store.put("one", b"other", mode="create", use_multipart=False)
    with pytest.raises(InterruptedError):
        interrupted_write(store, "broken", data)
    assert sorted(entry["path"] for page in store.list() for entry in page) == ["one", "parts"]


def test_azurite_keeps_ranges_and_conditions(azure: str) -> None:
    store = AzureStore.from_url(azure)
    data = os.urandom(12 << 20)
    store.put("parts", data, chunk_size=5 << 20)
    assert bytes(store.get_range("parts", start=4_999_999, length=2_000_001)) == data[4_999_999:7_000_000]
    with pytest.raises(AlreadyExistsError):
        store.put("parts", b"other", mode="create", use_multipart=False)
    with pytest.raises(InterruptedError):
        interrupted_write(store, "broken", data)
    assert [entry["path"] for page in store.list() for entry in page] == ["parts"]


def interrupted_write(store: S3Store | AzureStore, name: str, data: bytes) -> None:
    with obstore.open_writer(store, name) as writer:
        writer.write(data)
        raise InterruptedError


def test_seaweedfs_refuses_a_wrong_secret(s3_server: S3Server) -> None:
    wrong = S3Store(
        BUCKET,
        endpoint=s3_server.endpoint,
        access_key_id=environment("")["AWS_ACCESS_KEY_ID"],
        secret_access_key="wrong",
        client_options={"allow_http": True},
    )
    with pytest.raises(Exception, match=r"403|SignatureDoesNotMatch"):
        wrong.put("a", b"a")


def test_nginx_serves_ranges(web_server) -> None:
    data = os.urandom(100_000)
    (web_server.folder / "deep").mkdir()
    (web_server.folder / "deep/file").write_bytes(data)
    request = urllib.request.Request(f"{web_server.url}/deep/file", headers={"Range": "bytes=500-1499"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 206
        assert answer.read() == data[500:1500]


def test_a_server_dies_with_the_tests_that_are_killed(tmp_path: Path) -> None:
    [port] = free_ports(1)
    script = f"""
        import sys, time
        from pathlib import Path
        from tests.services.server import listens, running
        with running([sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"],
                     Path({str(tmp_path)!r}), ready=lambda: listens({port})):
            time.sleep(100)
    """
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=root) as tests:
        wait_until(lambda: listens(port), lambda: tests.poll() and "the script ended")
        tests.send_signal(signal.SIGKILL)
    wait_until(lambda: not listens(port), lambda: None)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"ended with 3.*no disk"),
        running(["sh", "-c", "echo no disk; exit 3"], tmp_path, ready=lambda: False),
    ):
        pass
