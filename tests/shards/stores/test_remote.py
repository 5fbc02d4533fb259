"""The store of a URL gives what the store of the folder gives, whatever the server does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from maskstream.preprocess.raw.url import fetched
from maskstream.shards.errors import MissingFileError, OutageError, ShardError, StoreError, UnlistedError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.stores import client, remote, remote_files
from maskstream.shards.stores.base import Range, ShardFile
from maskstream.shards.stores.block_sums import BlockSums
from maskstream.shards.stores.local import LocalStore
from maskstream.shards.stores.open import open_store
from maskstream.shards.stores.remote import RemoteStore

from ...damaged_files import flip
from ...web_server import Request, WebServer, serving

SIZE = 50_000
TAR = "a.tar"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is given up soon."""
    monkeypatch.setattr(client, "MAX_RETRIES", 2)
    monkeypatch.setattr(client, "LEAST_PAUSE_S", 0.01)
    monkeypatch.setattr(client, "READ_S", 2.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tar of random bytes and its sums, and files without sums."""
    folder = tmp_path / "split"
    folder.mkdir()
    data = random.Random(0).randbytes(SIZE)
    sums = BlockSums()
    sums.update(data)
    (folder / TAR).write_bytes(data)
    (folder / "a.sums").write_bytes(sums.digest())
    (folder / "plain").write_bytes(b"no sums")
    (tmp_path / "outside.tar").write_bytes(b"outside")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[WebServer]:
    with serving(folder.parent) as server:
        yield server


@pytest.fixture
def store(server: WebServer) -> RemoteStore:
    return RemoteStore(f"{server.url}/split", shards={TAR: ShardFile(SIZE, "")})


def test_it_reads_what_the_folder_holds(store: RemoteStore, folder: Path) -> None:
    local, rng = LocalStore(folder), random.Random(1)
    for _ in range(20):
        ranges = [Range("plain", 3, 4), Range(TAR, 7, 0)]
        for _ in range(rng.randrange(1, 5)):
            begin, end = sorted(rng.randrange(SIZE + 1) for _ in range(2))
            ranges.append(Range(TAR, begin, end - begin))
        rng.shuffle(ranges)
        assert store.read_many(ranges) == local.read_many(ranges)
    assert store.read(TAR, 10, 5) == store.unchecked(TAR, 10, 5) == local.read(TAR, 10, 5)
    assert store.whole("plain", 7) == b"no sums"
    with pytest.raises(StoreError, match="has 7 bytes, but at most 6 are allowed"):
        store.whole("plain", 6)


@pytest.mark.parametrize(("offset", "size"), [(0, 1 << 62), (-1, 5), (0, -1), (SIZE, 1), (1 << 70, 1 << 70)])
def test_bytes_that_a_file_does_not_have_are_not_asked_for(
    store: RemoteStore, server: WebServer, offset: int, size: int
) -> None:
    with pytest.raises(StoreError, match=r"a\.tar.* were requested"):
        store.read(TAR, offset, size)
    assert not server.requests


def test_a_known_size_is_not_asked_for_and_sums_are_fetched_once(store: RemoteStore, server: WebServer) -> None:
    store.read(TAR, 100, 10)
    store.read(TAR, 40_000, 10)
    assert sorted(server.requests) == [
        Request("GET", "split/a.sums", 0, 104),
        Request("GET", "split/a.tar", 0, 4096),
        Request("GET", "split/a.tar", 36864, 40960),
    ]
    server.requests.clear()
    assert [store.size("plain"), store.size("plain")] == [7, 7]
    assert [one.method for one in server.requests] == ["HEAD"]


def test_pages_of_sums_are_fetched_as_they_are_needed_and_forgotten(
    store: RemoteStore, server: WebServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAGE_BYTES", 16)
    monkeypatch.setattr(remote, "KEPT_BYTES", 48)
    local = LocalStore(folder)
    for offset in (0, 20_000, 30_000, 0, 38_000, 20_000):
        assert store.read(TAR, offset, 1000) == local.read(TAR, offset, 1000)
    pages = [one.begin for one in server.requests if one.name.endswith(".sums")]
    assert pages == [0, 32, 48, 64, 32]


def test_one_wrong_answer_is_asked_for_again(store: RemoteStore, server: WebServer, folder: Path) -> None:
    for wrong in (TAR, "a.sums"):
        left = [1]

        def answer(request: Request, body: bytes, wrong: str = wrong, left: list[int] = left) -> bytes:
            if request.name.endswith(wrong) and left:
                left.pop()
                return bytes([body[0] ^ 1]) + body[1:]
            return body

        server.answer = answer
        fresh = RemoteStore(store.location, shards={TAR: ShardFile(SIZE, "")})
        assert fresh.read(TAR, 0, SIZE) == (folder / TAR).read_bytes()
        assert not left


Damage = Callable[[Path], None]


def flipped(name: str, at: int) -> Damage:
    return lambda folder: flip(folder / name, at, 4)


def cut(name: str, size: int) -> Damage:
    return lambda folder: os.truncate(folder / name, size)


@pytest.mark.parametrize(
    "damage",
    [
        flipped(TAR, 9000),
        flipped("a.sums", 17),
        cut(TAR, 9000),
        cut(TAR, 0),
        cut("a.sums", 20),
        cut("a.sums", 0),
        lambda folder: (folder / "a.sums").unlink(),
        lambda folder: (folder / TAR).unlink(),
    ],
)
def test_damage_is_found_where_the_folder_finds_it(damage: Damage, store: RemoteStore, folder: Path) -> None:
    damage(folder)
    outcomes = set()
    for offset in range(0, SIZE, 1000):
        found = []
        for each in (LocalStore(folder), RemoteStore(store.location, shards={TAR: ShardFile(SIZE, "")})):
            try:
                found.append(each.read(TAR, offset, 700))
            except StoreError as error:
                found.append(type(error).__name__.encode())
        assert found[0] == found[1]
        outcomes.add(found[0] if len(found[0]) < 100 else b"")
    assert outcomes <= {b"", b"StoreError", b"MissingFileError"}


@pytest.mark.parametrize("what", [503, 403, 0])
def test_an_outage_is_no_verdict_on_bytes(what: int, store: RemoteStore, server: WebServer) -> None:
    server.answer = lambda request, body: what
    for read in (
        lambda: store.read(TAR, 0, 10),
        lambda: store.whole("plain", 100),
        lambda: store.unchecked(TAR, 0, 10),
        lambda: store.size("plain"),
    ):
        with pytest.raises(OutageError, match="split"):
            read()
    assert len(server.requests) >= (4 if what == 403 else 12)
    server.answer = lambda request, body: body
    assert len(store.read(TAR, 0, 10)) == 10


def test_outages_that_pass_are_waited_for(store: RemoteStore, server: WebServer, folder: Path) -> None:
    seen: dict[Request, int] = {}

    def answer(request: Request, body: bytes) -> bytes | int:
        seen[request] = seen.get(request, 0) + 1
        return (503, 0, body)[min(seen[request], 3) - 1]

    server.answer = answer
    assert store.read(TAR, 5000, 5000) == (folder / TAR).read_bytes()[5000:10000]
    assert set(seen.values()) == {3}


def test_a_server_that_falls_silent_is_asked_again(store: RemoteStore, server: WebServer, folder: Path) -> None:
    silent = [1]

    def answer(request: Request, body: bytes) -> bytes:
        if request.name.endswith(TAR) and silent:
            silent.pop()
            time.sleep(4)
        return body

    server.answer = answer
    assert store.read(TAR, 0, 100) == (folder / TAR).read_bytes()[:100]
    assert not silent


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_ends_the_wait_for_a_silent_server(ignored: bool) -> None:
    """Also where SIGINT is ignored, as in a job that a script starts in the background."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        words = [sys.executable, "-m", "maskstream", "inspect", f"http://127.0.0.1:{silent.getsockname()[1]}/x"]
        background = ["env", f"--{'ignore' if ignored else 'default'}-signal=INT"]
        with subprocess.Popen([*background, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 130


def test_a_server_that_is_away_is_an_outage() -> None:
    with pytest.raises(OutageError, match=r"http://127.0.0.1:1/split/dataset.json cannot be reached \("):
        Manifest.load("http://127.0.0.1:1/split")
    with pytest.raises(OutageError):
        verify("http://127.0.0.1:1/split")


def test_names(store: RemoteStore, server: WebServer) -> None:
    for name in ("../outside.tar", "/outside.tar", "deep/../../outside.tar", "..", "a\nb"):
        with pytest.raises(StoreError, match=r"leads outside|is not a valid file name"):
            store.size(name)
    foreign = store.of_split({}, outside=True)
    assert foreign.read("../outside.tar", 3, 4) == b"side"
    with pytest.raises(StoreError, match="leads outside"):
        foreign.size("../../../../etc/passwd")
    with pytest.raises(MissingFileError, match=r"http://.*/split/no%20.tar does not exist"):
        store.size("no%20.tar")
    for listing in (store.names, store.folders):
        with pytest.raises(UnlistedError, match="cannot list files"):
            listing()


def test_another_process_opens_its_own(store: RemoteStore, folder: Path) -> None:
    copy = pickle.loads(pickle.dumps(store))
    assert copy.location == store.location
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(copy.read, (TAR, 5, 10))
    assert found == store.read(TAR, 5, 10)


def test_a_forked_process_is_told_what_to_do(store: RemoteStore) -> None:
    """The threads of the client do not survive a fork: a request would wait for ever."""
    store.read(TAR, 0, 5)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            sender.send(store.read(TAR, 0, 5))
        except OutageError as error:
            sender.send(str(error))
        os._exit(0)
    assert receiver.poll(20)
    assert "forked" in receiver.recv()
    os.waitpid(child, 0)


def test_a_split_at_a_url_is_the_split(split: Path) -> None:
    with serving(split.parent) as server:
        url = f"{server.url}/{split.name}"
        remote, local = Manifest.load(url), Manifest.load(split)
        assert remote.fingerprint == local.fingerprint
        assert read_dataset_json(url) == local.info
        read = [Path(one.name).name for one in server.requests[:3]]
        assert read == ["dataset.json", "1.json", "manifest-000000.parquet"]
        for i in range(len(local)):
            assert remote.store.read(*remote.member(i, "mp4")) == local.store.read(*local.member(i, "mp4"))
        assert not [one for one in server.requests if one.method == "HEAD"]
        assert remote.component("mp4").digest.tolist() == local.component("mp4").digest.tolist()
        assert pickle.loads(pickle.dumps(remote)).keys(range(3)) == local.keys(range(3))
        with pytest.raises(ValueError, match="is not a single local folder"):
            remote.shard_path(0)
        assert verify(url) == verify(split)


def test_verify_finds_the_same_at_a_url(split: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    names = sorted(path.name for path in split.iterdir() if path.is_file())
    with serving(tmp_path_factory.mktemp("served")) as server:
        for n, name in enumerate(names):
            for damaged in ("flipped", "missing"):
                folder = server.folder / f"{n}-{damaged}"
                shutil.copytree(split, folder)
                if damaged == "missing":
                    (folder / name).unlink()
                else:
                    flipped(name, (folder / name).stat().st_size // 2)(folder)
                at_url, local = verify(f"{server.url}/{folder.name}").problems, verify(folder).problems
                assert [one.replace(f"{server.url}/{folder.name}", str(folder)) for one in at_url] == local
                assert local


def test_a_url_without_a_split_says_so(server: WebServer) -> None:
    with pytest.raises(ShardError, match=r"there is no dataset.json in http://.*/split, so it is not a finished split"):
        Manifest.open(open_store(f"{server.url}/split/"))


def test_a_server_that_sends_next_to_nothing_is_left(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "READ_S", 0.31)  # no other test has the client of this server with this number
    monkeypatch.setattr(client, "RETRY_S", 0.5)
    monkeypatch.setattr(remote_files, "ASK_S", 0.5)
    store = RemoteStore(f"{server.url}/split", shards={TAR: ShardFile(SIZE, "")})
    server.rate = 40
    reads: list[Callable[[], object]] = [
        lambda: store.read(TAR, 0, 100),
        lambda: store.read_many([Range(TAR, 0, 100), Range(TAR, 30_000, 100)]),
        lambda: store.whole(TAR, 1 << 20),
        lambda: fetched(server.url, f"split/{TAR}", None),
    ]
    for read in reads:
        with pytest.raises(
            OutageError, match=r"bytes of split/\S+ arrived in 0 s; a server must send at least 1024 bytes per second"
        ):
            read()
    monkeypatch.setattr(client, "LEAST_BYTES_S", 5)
    assert store.whole("plain", 1 << 20) == b"no sums"


def test_headers_that_never_end_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "ASK_S", 0.5)
    monkeypatch.setattr(client, "RETRY_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=trickle, args=(connection,), daemon=True).start()

        def trickle(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.05)

        threading.Thread(target=answer, daemon=True).start()
        store = RemoteStore(f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(OutageError, match="cannot be reached"):
            store.size("x")


def test_a_server_that_sends_no_sizes_is_told_what_to_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "REPEATS", 0)
    (tmp_path / "dataset.json").write_bytes(b"{}")
    with serving(tmp_path) as server:
        server.chunked = True
        for work in (lambda: Manifest.load(server.url), lambda: fetched(server.url, "dataset.json", None)):
            with pytest.raises(OutageError, match=r"without its size \(Content-Length\).*no chunks, no compression"):
                work()
